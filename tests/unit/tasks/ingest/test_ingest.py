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
import segvigen_model.mesh.sandbox.handlers as reader
from tasks.ingest.sandbox import main
real = reader.mesh_from_bytes
reader.mesh_from_bytes = (
    lambda data, *a, **k: os.abort() if len(data) == {size} else real(data, *a, **k)
)
main()
"""
FAULTY = """
import segvigen_model.mesh.sandbox.handlers as reader
from tasks.ingest.sandbox import main
def mesh_from_bytes(*args, **kwargs):
    raise IndexError("a bug")
reader.mesh_from_bytes = mesh_from_bytes
main()
"""
TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32).tobytes()


def test_a_good_mesh_is_registered_and_copied(
    pipeline: Any, make_boxes: Callable[..., bytes]
) -> None:
    pipeline.raw.put("sub/two boxes.glb", make_boxes(2))
    pipeline.raw.put("sub/LICENSE", b"\n CC0-1.0 \nlong text")
    assert pipeline.ingest() == {"sub/two boxes.glb": "registered"}
    (asset,) = pipeline.catalogue.list_assets()
    assert (asset.state, asset.name, asset.num_faces) == ("registered", "two boxes.glb", 24)
    assert asset.licence == "CC0-1.0"
    assert pipeline.store.get(keys.make_asset_source_key(asset.asset_id, "glb")) == make_boxes(2)
    about = load_asset_info(pipeline.store, asset.asset_id)
    assert (about["num_components"], about["surface_area"]) == (2, pytest.approx(12.0))
    assert about["bounds"] == [[-0.5, -0.5, -0.5], [2.5, 0.5, 0.5]]
    assert load_asset_mesh(pipeline.store, asset).num_faces == 24


def test_a_second_scan_finds_nothing(pipeline: Any, make_boxes: Callable[..., bytes]) -> None:
    pipeline.raw.put("a.glb", make_boxes())
    pipeline.raw.put("bad.glb", b"glTF")
    pipeline.ingest()
    events = len(pipeline.catalogue.list_events())
    assert pipeline.ingest() == {}
    assert len(pipeline.catalogue.list_events()) == events


def test_the_same_bytes_under_two_keys_are_one_asset(
    pipeline: Any, make_boxes: Callable[..., bytes]
) -> None:
    pipeline.raw.put("a.glb", make_boxes())
    pipeline.raw.put("b/copy.glb", make_boxes())
    assert pipeline.ingest() == {"a.glb": "registered", "b/copy.glb": "duplicate"}
    (asset,) = pipeline.catalogue.list_assets()
    assert [row.key for row in pipeline.catalogue.raw.list_all(asset.asset_id)] == [
        "a.glb",
        "b/copy.glb",
    ]


def test_a_changed_object_is_a_new_asset(
    pipeline: Any, tmp_path: Path, make_boxes: Callable[..., bytes]
) -> None:
    pipeline.raw.put("a.glb", make_boxes(2))
    pipeline.ingest()
    (tmp_path / "raw/a.glb").write_bytes(make_boxes(3))
    assert pipeline.ingest() == {"a.glb": "registered"}
    assert len(pipeline.catalogue.list_assets()) == 2


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
    "model.blend": (b"Kaydara FBX Binary", "unsupported_format"),
    "no-suffix": (b"123", "unsupported_format"),
    "noise.stl": (b"\x07" * 300, None),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_recorded_and_the_run_goes_on(
    pipeline: Any, make_boxes: Callable[..., bytes], name: str
) -> None:
    data, reason = BAD[name]
    pipeline.raw.put(name, data)
    pipeline.raw.put("zz-good.glb", make_boxes())
    outcome = pipeline.ingest()
    assert outcome["zz-good.glb"] == "registered"
    if reason is not None:
        assert outcome[name] == reason
    row = pipeline.catalogue.raw.get(name)
    asset = pipeline.catalogue.get_asset(row.asset_id)
    assert asset.state is AssetState.REJECTED
    assert row.reason == asset.reason
    assert len(asset.detail) > 15
    assert asset.source_key is None
    assert pipeline.ingest() == {}


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
    pipeline: Any, tmp_path: Path, make_boxes: Callable[..., bytes], file: bytes, key: str
) -> None:
    pipeline.raw.put("zz-good.glb", make_boxes())
    path = Path(os.fsdecode(os.fsencode(tmp_path / "raw") + b"/" + file))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(make_boxes(1))
    assert pipeline.ingest() == {key: "bad_key", "zz-good.glb": "registered"}
    row = pipeline.catalogue.raw.get(key)
    assert pipeline.catalogue.get_asset(row.asset_id).name == key.rpartition("/")[2]
    assert row.detail.endswith("rename the object")
    assert pipeline.ingest() == {}


def test_an_object_deleted_since_the_listing_is_reported_and_not_recorded(
    pipeline: Any, tmp_path: Path, make_boxes: Callable[..., bytes]
) -> None:
    pipeline.raw.put("a.glb", make_boxes(1))
    (info,) = scan_raw(pipeline.workspace)
    (tmp_path / "raw/a.glb").unlink()
    result = ingest_object(pipeline.workspace, info)
    assert (result.outcome, result.asset_id) == ("gone", "")
    assert pipeline.catalogue.raw.list_all() == [] and pipeline.catalogue.list_assets() == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.gltf", b'{"asset": {"version": "2.0"}, "x": [' + b"[]," * 2**20 + b"[]]}"),
        ("a.obj", b"mtllib gone.mtl\n" + b"#v\n" * 2**20),
    ],
)
def test_what_a_file_unfolds_to_stays_out_of_this_process(
    pipeline: Any, name: str, data: bytes
) -> None:
    pipeline.raw.put(name, data)
    tracemalloc.start()
    try:
        pipeline.ingest()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(data)


def test_too_many_bytes_are_not_even_read(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.raw.put("big.glb", b"x" * 2000)
    monkeypatch.setattr(pipeline.raw, "get", lambda key: pytest.fail("was read"))
    (info,) = scan_raw(pipeline.workspace)
    result = ingest_object(pipeline.with_settings(ingest={"max_bytes": 1000}), info)
    assert (result.outcome, result.reason) == ("rejected", "too_large")
    assert "2000 bytes > 1000" in result.note


def test_limits_can_be_raised_and_the_object_tried_again(
    pipeline: Any, make_boxes: Callable[..., bytes]
) -> None:
    pipeline.raw.put("a.glb", make_boxes(2))
    (info,) = scan_raw(pipeline.workspace)
    low = ingest_object(pipeline.with_settings(ingest={"max_faces": 10}), info)
    assert low.reason == "too_many_faces"
    assert scan_raw(pipeline.workspace) == []
    assert scan_raw(pipeline.workspace, is_retrying=True) == [info]
    high = ingest_object(pipeline.workspace, info)
    assert high.outcome == "registered"
    asset = pipeline.catalogue.get_asset(low.asset_id)
    assert (asset.state, asset.reason, asset.num_faces) == ("registered", None, 24)
    assert scan_raw(pipeline.workspace, is_retrying=True) == []


def test_gltf_side_files_are_copied_and_part_of_the_identity(pipeline: Any) -> None:
    document = json.dumps(gltf_triangle("data%20files/a.bin")).encode()
    pipeline.raw.put("one/t.gltf", document)
    pipeline.raw.put("one/data files/a.bin", TRIANGLE)
    pipeline.raw.put("two/t.gltf", document)
    pipeline.raw.put("two/data files/a.bin", (np.frombuffer(TRIANGLE, np.float32) * 2).tobytes())
    assert set(pipeline.ingest().values()) == {"registered"}
    sizes = sorted(
        float(load_asset_mesh(pipeline.store, asset).vertices.max())
        for asset in pipeline.catalogue.list_assets()
    )
    assert sizes == [1.0, 2.0]


def test_a_gltf_that_came_before_its_buffer_is_looked_at_again(pipeline: Any) -> None:
    pipeline.raw.put("t/a.gltf", json.dumps(gltf_triangle("data%20files/a.bin")).encode())
    assert pipeline.ingest() == {"t/a.gltf": "missing_side_file"}
    pipeline.raw.put("t/other.bin", TRIANGLE)
    assert pipeline.ingest() == {}, "not what it waits for"
    pipeline.raw.put("t/data files/a.bin", TRIANGLE)
    assert pipeline.ingest() == {"t/a.gltf": "registered"}
    assert pipeline.ingest() == {}


def test_what_older_code_parked_for_a_side_file_is_looked_at_once_more(pipeline: Any) -> None:
    pipeline.raw.put("a.gltf", json.dumps(gltf_triangle("a.bin")).encode())
    pipeline.ingest()
    pipeline.catalogue.raw.record(pipeline.catalogue.raw.get("a.gltf"))
    assert pipeline.ingest() == {"a.gltf": "missing_side_file"}
    pipeline.catalogue.raw.record(pipeline.catalogue.raw.get("a.gltf"))
    pipeline.raw.put("a.bin", TRIANGLE)
    assert pipeline.ingest() == {"a.gltf": "registered"}


def test_what_its_reader_cannot_survive_parks_one_object_only(
    pipeline: Any, make_boxes: Callable[..., bytes]
) -> None:
    pipeline.raw.put("a.glb", make_boxes(1))
    pipeline.raw.put("b.glb", make_boxes(2))
    deadly = Parser([sys.executable, "-c", DEADLY.format(size=len(make_boxes(1)))])
    assert pipeline.ingest(deadly) == {"a.glb": "parser_died", "b.glb": "registered"}
    deadly.close()
    (rejected,) = pipeline.catalogue.list_assets("rejected")
    assert rejected.detail is not None and "signal 6, twice" in rejected.detail
    assert scan_raw(pipeline.workspace) == []


def test_a_fault_of_ours_parks_one_object_only(
    pipeline: Any, make_boxes: Callable[..., bytes]
) -> None:
    pipeline.raw.put("a.glb", make_boxes(1))
    faulty = Parser([sys.executable, "-c", FAULTY])
    assert pipeline.ingest(faulty) == {"a.glb": "ingest_failed"}
    faulty.close()
    (failed,) = pipeline.catalogue.list_assets("failed")
    assert failed.last_error == "IndexError: a bug"


def test_an_absent_decoder_parks_one_object_until_it_is_there(
    pipeline: Any, make_boxes: Callable[..., bytes]
) -> None:
    pipeline.raw.put("a.glb", make_boxes(1))
    lacking = FAULTY.replace("IndexError(", "__import__('segvigen_model.errors', fromlist='x').")
    lacking = lacking.replace('"a bug")', "MissingExtra('DracoPy', 'pip install it')")
    parser = Parser([sys.executable, "-c", lacking])
    assert pipeline.ingest(parser) == {"a.glb": "missing_extra"}
    assert pipeline.ingest(parser) == {"a.glb": "missing_extra"}, "every scan tries again"
    parser.close()
    assert pipeline.ingest() == {"a.glb": "registered"}


def test_infrastructure_errors_go_up(
    pipeline: Any, make_boxes: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.raw.put("a.glb", make_boxes(1))

    def down(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(pipeline.store, "put", down)
    with pytest.raises(ConnectionError):
        pipeline.ingest()
    assert pipeline.catalogue.list_assets() == []
    assert len(scan_raw(pipeline.workspace)) == 1


def test_killed_between_blobs_and_rows_is_finished_by_the_next_run(
    pipeline: Any, make_boxes: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.raw.put("a.glb", make_boxes(1))

    def killed(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.catalogue, "register", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.ingest()
    assert len(list(pipeline.store.list("assets"))) == 3
    assert pipeline.ingest() == {"a.glb": "registered"}


def test_formats(pipeline: Any) -> None:
    box = trimesh.creation.box()
    for suffix in ("obj", "ply", "stl", "off"):
        data = box.export(file_type=suffix)
        pipeline.raw.put(f"box.{suffix}", data.encode() if isinstance(data, str) else data)
    assert set(pipeline.ingest().values()) == {"registered"}
    assert {asset.num_faces for asset in pipeline.catalogue.list_assets()} == {12}


def test_licence_sidecars(pipeline: Any, make_boxes: Callable[..., bytes]) -> None:
    pipeline.raw.put("a.glb", make_boxes(1))
    pipeline.raw.put("a.licence", b"MIT\n")
    pipeline.raw.put("b.glb", make_boxes(2))
    pipeline.raw.put("b.json", b'{"license": "CC-BY-4.0"}')
    pipeline.raw.put("c.glb", make_boxes(3))
    pipeline.raw.put("c.glb.json", b"not json")
    pipeline.ingest()
    licences = {asset.name: asset.licence for asset in pipeline.catalogue.list_assets()}
    assert licences == {"a.glb": "MIT", "b.glb": "CC-BY-4.0", "c.glb": "unknown"}
