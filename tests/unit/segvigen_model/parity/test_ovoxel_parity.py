from __future__ import annotations

import hashlib
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from segvigen_model.ovoxel import vxz
from segvigen_model.ovoxel.on_device import convert as on_device
from segvigen_model.parity.ovoxel import compare_ovoxel

SHARED = Path(os.environ.get("SEGVIGEN_SHARED", Path(__file__).resolve().parents[5] / "shared"))


def test_the_torch_conversion_meets_the_golden_files_too(tmp_path):
    golden = SHARED / "golden/ovoxel"
    if not golden.is_dir():
        pytest.skip("needs ../shared/golden")
    names = ("open_plane", "nonmanifold")
    for name in names:
        for suffix in ("input", "64"):
            (tmp_path / f"{name}_{suffix}.npz").symlink_to(golden / f"{name}_{suffix}.npz")
    index = json.loads((golden / "index.json").read_text())
    for name in names:
        index[name]["grids"] = {"64": index[name]["grids"]["64"]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    converter = partial(on_device.voxelise, device=torch.device("cpu"))
    rows = compare_ovoxel(tmp_path, {" [torch]": converter})
    assert [row for row in rows if not row.ok] == []
    assert sum("[torch]" in row.name and not row.note for row in rows) > 15


@pytest.mark.skipif(not (SHARED / "golden/ovoxel/vxz").is_dir(), reason="needs ../shared/golden")
def test_golden_parity_of_small_grids(tmp_path):
    """Two meshes at grid 64, the tiny files and the extractions."""
    golden = SHARED / "golden"
    folder, extraction = tmp_path / "ovoxel", tmp_path / "fdg_to_mesh"
    folder.mkdir()
    index = json.loads((golden / "ovoxel/index.json").read_text())
    for name in ("open_plane", "box_hole"):
        index[name]["grids"] = {"64": index[name]["grids"]["64"]}
        for suffix in ("input", "64"):
            (folder / f"{name}_{suffix}.npz").symlink_to(golden / f"ovoxel/{name}_{suffix}.npz")
    for name in ("sphere", "nonmanifold"):
        (folder / f"{name}_64.npz").symlink_to(golden / f"ovoxel/{name}_64.npz")
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "vxz").symlink_to(golden / "ovoxel/vxz")
    extraction.symlink_to(golden / "fdg_to_mesh")
    # Through the real folder's name, so that the sets find each other as they do in DIR.
    rows = compare_ovoxel(folder) + compare_ovoxel(extraction)
    bad = [row for row in rows if not row.ok]
    assert not bad, bad
    assert len(rows) > 50


@pytest.mark.skipif(not (SHARED / "golden/ovoxel").is_dir(), reason="needs ../shared/golden")
def test_a_wrong_golden_fails(tmp_path):
    golden = SHARED / "golden/ovoxel"
    (tmp_path / "box_hole_input.npz").symlink_to(golden / "box_hole_input.npz")
    (tmp_path / "index.json").symlink_to(golden / "index.json")
    with np.load(golden / "box_hole_64.npz") as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    arrays["intersected"][5] ^= 2
    arrays["base_color"][7] ^= 16
    arrays["dual_u8"][::50] ^= 64
    arrays["dual_f64frac"] = 1 - arrays["dual_f64frac"]
    np.savez(tmp_path / "box_hole_64.npz", **arrays)
    index = json.loads((golden / "index.json").read_text())
    index["box_hole"]["grids"] = {}
    (tmp_path / "index.json").unlink()
    (tmp_path / "index.json").write_text(json.dumps(index))
    failed = {
        row.name.rpartition("box_hole_64 ")[2] for row in compare_ovoxel(tmp_path) if not row.ok
    }
    assert failed == {"flags", "base_color", "duals (share off)"}


def test_what_a_set_lacks_is_reported_and_stops_nothing(tmp_path):
    """No materials, no hashes, a mesh without outputs, a broken file: the rest is compared."""
    golden = SHARED / "golden/ovoxel"
    if not golden.is_dir():
        pytest.skip("needs ../shared/golden")
    (tmp_path / "box_hole_input.npz").symlink_to(golden / "box_hole_input.npz")
    (tmp_path / "box_hole_64.npz").symlink_to(golden / "box_hole_64.npz")
    (tmp_path / "sphere_input.npz").symlink_to(golden / "sphere_input.npz")
    (tmp_path / "odd_input.npz").write_bytes(b"no archive")
    (tmp_path / "vxz").mkdir()
    (tmp_path / "vxz_hashes.json").write_text(json.dumps({"files": {"a.vxz": {"n": 1}}}))
    rows = {row.name.removeprefix(tmp_path.name): row for row in compare_ovoxel(tmp_path)}
    reported = {name: row.note for name, row in rows.items() if row.note}
    assert reported == {
        "/box_hole_64 attributes": "no materials in index.json or beside the mesh",
        "/vxz": "no npz with the plain arrays",
        "/a.vxz": "file not here",
    }
    assert rows["/box_hole_64 voxels"].ok and rows["/box_hole_64 flags"].ok
    assert [name.split(":")[0] for name, row in rows.items() if not row.ok] == ["/odd"]


def test_shipped_files_are_compared_by_their_hashes(tmp_path):
    coords = np.array([[0, 0, 0], [1, 2, 3], [300, 2, 1]])
    color = np.arange(9, dtype=np.uint8).reshape(3, 3)
    (tmp_path / "one").mkdir()
    (tmp_path / "one/output.vxz").write_bytes(vxz.write_vxz(coords, {"base_color": color}))

    def sha(values):
        return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]

    hashes = {"n": 3, "coords_int32": sha(coords.astype(np.int32)), "base_color": sha(color)}
    for wanted, is_ok in ((hashes, True), (hashes | {"base_color": sha(color + 1)}, False)):
        (tmp_path / "vxz_hashes.json").write_text(json.dumps({"files": {"one/output.vxz": wanted}}))
        assert [row.ok for row in compare_ovoxel(tmp_path)] == [is_ok]


def test_the_authors_own_files_are_read_right():
    """The ten files of the official repository, where somebody put them beside the hashes."""
    folder = SHARED / "golden/segvigen_assets"
    if not (folder / "vxz_hashes.json").is_file():
        pytest.skip("needs ../shared/golden")
    rows = [row for row in compare_ovoxel(folder) if not row.note]
    if not rows:
        pytest.skip("the ten .vxz files do not lie in golden/segvigen_assets")
    assert [row for row in rows if not row.ok] == []
