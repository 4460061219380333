"""Ingest: good meshes in, bad ones recorded with a reason, nothing twice, nothing from outside."""

from __future__ import annotations

import json
import os
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from tasks.catalogue import AssetState
from tasks.ingest.ingest import ingest_object, scan_raw
from tasks.ingest.sandbox import Parser
from tasks.labelling.loading import load_asset_info, load_asset_mesh
from tasks.storage import keys


def glb_of(document: dict[str, Any], blob: bytes = b"") -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text
    if blob:
        blob += b"\0" * (-len(blob) % 4)
        body += struct.pack("<II", len(blob), 0x004E4942) + blob
    return b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body


def gltf_triangle(uri: str | None) -> dict[str, Any]:
    buffer: dict[str, Any] = {"byteLength": 36}
    if uri is not None:
        buffer["uri"] = uri
    return {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [buffer],
    }


# Readers gone wrong: one dies of files of one size, one has a bug.
DEADLY = """
import os
import tasks.ingest.sandbox as reader
real = reader.load_mesh
reader.load_mesh = lambda data, *a, **k: os.abort() if len(data) == {size} else real(data, *a, **k)
reader.main()
"""
FAULTY = """
import tasks.ingest.sandbox as reader
def load_mesh(*args, **kwargs):
    raise IndexError("a bug")
reader.load_mesh = load_mesh
reader.main()
"""
TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32).tobytes()


def test_a_good_mesh_is_registered_and_copied(world: Any, make_boxes: Callable[..., bytes]) -> None:
    world.raw.put("sub/two boxes.glb", make_boxes(2))
    world.raw.put("sub/LICENSE", b"\n CC0-1.0 \nlong text")
    assert world.ingest() == {"sub/two boxes.glb": "registered"}
    (asset,) = world.catalogue.assets()
    assert (asset.state, asset.name, asset.num_faces) == ("registered", "two boxes.glb", 24)
    assert asset.licence == "CC0-1.0"
    assert world.store.get(keys.asset_source(asset.asset_id, "glb")) == make_boxes(2)
    about = load_asset_info(world.store, asset.asset_id)
    assert (about["num_components"], about["surface_area"]) == (2, pytest.approx(12.0))
    assert about["bounds"] == [[-0.5, -0.5, -0.5], [2.5, 0.5, 0.5]]
    assert load_asset_mesh(world.store, asset).num_faces == 24


def test_a_second_scan_finds_nothing(world: Any, make_boxes: Callable[..., bytes]) -> None:
    world.raw.put("a.glb", make_boxes())
    world.raw.put("bad.glb", b"glTF")
    world.ingest()
    events = len(world.catalogue.events())
    assert world.ingest() == {}
    assert len(world.catalogue.events()) == events


def test_the_same_bytes_under_two_keys_are_one_asset(
    world: Any, make_boxes: Callable[..., bytes]
) -> None:
    world.raw.put("a.glb", make_boxes())
    world.raw.put("b/copy.glb", make_boxes())
    assert world.ingest() == {"a.glb": "registered", "b/copy.glb": "duplicate"}
    (asset,) = world.catalogue.assets()
    assert [row.key for row in world.catalogue.raw.all(asset.asset_id)] == ["a.glb", "b/copy.glb"]


def test_a_changed_object_is_a_new_asset(
    world: Any, tmp_path: Path, make_boxes: Callable[..., bytes]
) -> None:
    world.raw.put("a.glb", make_boxes(2))
    world.ingest()
    (tmp_path / "raw/a.glb").write_bytes(make_boxes(3))
    assert world.ingest() == {"a.glb": "registered"}
    assert len(world.catalogue.assets()) == 2


def nan_glb() -> bytes:
    points = np.array([[0, 0, np.nan], [1, 0, 0], [0, 1, 0]], np.float32)
    return glb_of(gltf_triangle(None), points.tobytes())


BAD: dict[str, tuple[bytes, str]] = {
    "empty.glb": (b"", "empty_file"),
    "cut.glb": (glb_of(gltf_triangle(None), TRIANGLE)[:-20], "truncated"),
    "nan.glb": (nan_glb(), "nan_vertices"),
    "none.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no_faces"),
    "outside.glb": (glb_of(gltf_triangle("../../etc/passwd")), "external_reference"),
    "fetch.gltf": (json.dumps(gltf_triangle("http://a.b/c")).encode(), "external_reference"),
    "absent.gltf": (json.dumps(gltf_triangle("gone.bin")).encode(), "missing_side_file"),
    "really-a-glb.obj": (glb_of(gltf_triangle(None), TRIANGLE), "wrong_suffix"),
    "picture.glb": (b"\x89PNG\r\n\x1a\n0000", "wrong_suffix"),
    "model.fbx": (b"Kaydara FBX Binary", "unsupported_format"),
    "no-suffix": (b"123", "unsupported_format"),
    "noise.stl": (b"\x07" * 300, None),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_recorded_and_the_run_goes_on(
    world: Any, make_boxes: Callable[..., bytes], name: str
) -> None:
    data, reason = BAD[name]
    world.raw.put(name, data)
    world.raw.put("zz-good.glb", make_boxes())
    outcome = world.ingest()
    assert outcome["zz-good.glb"] == "registered"
    if reason is not None:
        assert outcome[name] == reason
    row = world.catalogue.raw.get(name)
    asset = world.catalogue.asset(row.asset_id)
    assert asset.state is AssetState.REJECTED
    assert row.reason == asset.reason
    assert len(asset.detail) > 15
    assert asset.source_key is None
    assert world.ingest() == {}


@pytest.mark.parametrize(
    ("file", "key"),
    [
        (b"back\\slash.glb", "back\\\\slash.glb"),
        (b"two\nlines.glb", "two\\nlines.glb"),
        (b"no-utf-8-\xff.glb", "no-utf-8-\\udcff.glb"),
        (b"\xff/a.glb", "\\udcff/a.glb"),
    ],
)
def test_an_odd_name_parks_one_object_only(
    world: Any, tmp_path: Path, make_boxes: Callable[..., bytes], file: bytes, key: str
) -> None:
    world.raw.put("zz-good.glb", make_boxes())
    path = Path(os.fsdecode(os.fsencode(tmp_path / "raw") + b"/" + file))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(make_boxes(1))
    assert world.ingest() == {key: "bad_key", "zz-good.glb": "registered"}
    row = world.catalogue.raw.get(key)
    assert world.catalogue.asset(row.asset_id).name == key.rpartition("/")[2]
    assert row.detail.endswith("rename the object")
    assert world.ingest() == {}


def test_an_object_deleted_since_the_listing_is_told_and_not_recorded(
    world: Any, tmp_path: Path, make_boxes: Callable[..., bytes]
) -> None:
    world.raw.put("a.glb", make_boxes(1))
    (info,) = scan_raw(world.workspace)
    (tmp_path / "raw/a.glb").unlink()
    result = ingest_object(world.workspace, info)
    assert (result.outcome, result.asset_id) == ("gone", "")
    assert world.catalogue.raw.all() == [] and world.catalogue.assets() == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.gltf", b'{"asset": {"version": "2.0"}, "x": [' + b"[]," * 2**20 + b"[]]}"),
        ("a.obj", b"mtllib gone.mtl\n" + b"#v\n" * 2**20),
    ],
)
def test_what_a_file_unfolds_to_stays_out_of_this_process(
    world: Any, name: str, data: bytes
) -> None:
    world.raw.put(name, data)
    tracemalloc.start()
    try:
        world.ingest()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(data)


def test_too_many_bytes_are_not_even_read(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.raw.put("big.glb", b"x" * 2000)
    monkeypatch.setattr(world.raw, "get", lambda key: pytest.fail("was read"))
    (info,) = scan_raw(world.workspace)
    result = ingest_object(world.with_settings(ingest={"max_bytes": 1000}), info)
    assert (result.outcome, result.reason) == ("rejected", "too_large")
    assert "2000 bytes > 1000" in result.note


def test_limits_can_be_raised_and_the_object_tried_again(
    world: Any, make_boxes: Callable[..., bytes]
) -> None:
    world.raw.put("a.glb", make_boxes(2))
    (info,) = scan_raw(world.workspace)
    low = ingest_object(world.with_settings(ingest={"max_faces": 10}), info)
    assert low.reason == "too_many_faces"
    assert scan_raw(world.workspace) == []
    assert scan_raw(world.workspace, is_retrying=True) == [info]
    high = ingest_object(world.workspace, info)
    assert high.outcome == "registered"
    asset = world.catalogue.asset(low.asset_id)
    assert (asset.state, asset.reason, asset.num_faces) == ("registered", None, 24)
    assert scan_raw(world.workspace, is_retrying=True) == []


def test_gltf_side_files_are_copied_and_part_of_the_identity(world: Any) -> None:
    document = json.dumps(gltf_triangle("data%20files/a.bin")).encode()
    world.raw.put("one/t.gltf", document)
    world.raw.put("one/data files/a.bin", TRIANGLE)
    world.raw.put("two/t.gltf", document)
    world.raw.put("two/data files/a.bin", (np.frombuffer(TRIANGLE, np.float32) * 2).tobytes())
    assert set(world.ingest().values()) == {"registered"}
    sizes = sorted(
        float(load_asset_mesh(world.store, asset).vertices.max())
        for asset in world.catalogue.assets()
    )
    assert sizes == [1.0, 2.0]


def test_a_gltf_that_came_before_its_buffer_is_looked_at_again(world: Any) -> None:
    world.raw.put("t/a.gltf", json.dumps(gltf_triangle("data%20files/a.bin")).encode())
    assert world.ingest() == {"t/a.gltf": "missing_side_file"}
    world.raw.put("t/other.bin", TRIANGLE)
    assert world.ingest() == {}, "not what it waits for"
    world.raw.put("t/data files/a.bin", TRIANGLE)
    assert world.ingest() == {"t/a.gltf": "registered"}
    assert world.ingest() == {}


def test_what_older_code_parked_for_a_side_file_is_looked_at_once_more(world: Any) -> None:
    world.raw.put("a.gltf", json.dumps(gltf_triangle("a.bin")).encode())
    world.ingest()
    world.catalogue.raw.record(world.catalogue.raw.get("a.gltf"))
    assert world.ingest() == {"a.gltf": "missing_side_file"}
    world.catalogue.raw.record(world.catalogue.raw.get("a.gltf"))
    world.raw.put("a.bin", TRIANGLE)
    assert world.ingest() == {"a.gltf": "registered"}


def test_what_its_reader_cannot_survive_parks_one_object_only(
    world: Any, make_boxes: Callable[..., bytes]
) -> None:
    world.raw.put("a.glb", make_boxes(1))
    world.raw.put("b.glb", make_boxes(2))
    deadly = Parser([sys.executable, "-c", DEADLY.format(size=len(make_boxes(1)))])
    assert world.ingest(deadly) == {"a.glb": "parser_died", "b.glb": "registered"}
    deadly.close()
    (rejected,) = world.catalogue.assets("rejected")
    assert rejected.detail is not None and "signal 6, twice" in rejected.detail
    assert scan_raw(world.workspace) == []


def test_a_fault_of_ours_parks_one_object_only(
    world: Any, make_boxes: Callable[..., bytes]
) -> None:
    world.raw.put("a.glb", make_boxes(1))
    faulty = Parser([sys.executable, "-c", FAULTY])
    assert world.ingest(faulty) == {"a.glb": "ingest_failed"}
    faulty.close()
    (failed,) = world.catalogue.assets("failed")
    assert failed.last_error == "IndexError: a bug"


def test_faults_of_the_surroundings_go_up(
    world: Any, make_boxes: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.raw.put("a.glb", make_boxes(1))

    def down(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(world.store, "put", down)
    with pytest.raises(ConnectionError):
        world.ingest()
    assert world.catalogue.assets() == []
    assert len(scan_raw(world.workspace)) == 1


def test_killed_between_blobs_and_rows_is_finished_by_the_next_run(
    world: Any, make_boxes: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.raw.put("a.glb", make_boxes(1))

    def killed(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world.catalogue, "register", killed)
        with pytest.raises(KeyboardInterrupt):
            world.ingest()
    assert len(list(world.store.list("assets"))) == 2
    assert world.ingest() == {"a.glb": "registered"}


def test_formats(world: Any) -> None:
    box = trimesh.creation.box()
    for suffix in ("obj", "ply", "stl", "off"):
        data = box.export(file_type=suffix)
        world.raw.put(f"box.{suffix}", data.encode() if isinstance(data, str) else data)
    assert set(world.ingest().values()) == {"registered"}
    assert {asset.num_faces for asset in world.catalogue.assets()} == {12}


def test_licence_sidecars(world: Any, make_boxes: Callable[..., bytes]) -> None:
    world.raw.put("a.glb", make_boxes(1))
    world.raw.put("a.licence", b"MIT\n")
    world.raw.put("b.glb", make_boxes(2))
    world.raw.put("b.json", b'{"license": "CC-BY-4.0"}')
    world.raw.put("c.glb", make_boxes(3))
    world.raw.put("c.glb.json", b"not json")
    world.ingest()
    licences = {asset.name: asset.licence for asset in world.catalogue.assets()}
    assert licences == {"a.glb": "MIT", "b.glb": "CC-BY-4.0", "c.glb": "unknown"}
