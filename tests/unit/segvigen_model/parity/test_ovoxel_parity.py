from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from segvigen_model.parity.ovoxel import run

SHARED = Path(os.environ.get("SEGVIGEN_SHARED", Path(__file__).resolve().parents[5] / "shared"))


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
    rows = run(folder) + run(extraction)
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
    failed = {row.name.rpartition("box_hole_64 ")[2] for row in run(tmp_path) if not row.ok}
    assert failed == {"flags", "base_color", "duals (share off)"}
