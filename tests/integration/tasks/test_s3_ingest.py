"""Ingest from an ill S3 server: the server's faults end the run, one object's parks that object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trimesh

from tasks.catalogue import Catalogue
from tasks.ingest.ingest import ingest_object, scan_raw
from tasks.settings import load_settings
from tasks.workspace import Workspace

GLB = bytes(trimesh.Scene(trimesh.creation.box()).export(file_type="glb"))
OTHER = bytes(trimesh.Scene(trimesh.creation.icosphere(1)).export(file_type="glb"))
OBJ = b"mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"


def ingest_all(workspace: Workspace) -> dict[str, str]:
    results = [ingest_object(workspace, info) for info in scan_raw(workspace)]
    return {result.key: result.reason or result.outcome for result in results}


@pytest.fixture
def place(faulty_s3: Any, tmp_path: Path) -> Workspace:
    catalogue = Catalogue(f"sqlite:///{tmp_path}/c.db")
    return Workspace(faulty_s3.new_store(), faulty_s3.new_store(), catalogue, load_settings())


def test_a_store_that_cannot_be_written_parks_nothing(faulty_s3: Any, place: Workspace) -> None:
    place.raw.put("a.glb", GLB)
    faulty_s3.rule = lambda method, path: (403, "AccessDenied") if method == "PUT" else None
    with pytest.raises(PermissionError):
        ingest_all(place)
    assert place.catalogue.list_assets() == [] and place.catalogue.raw.list_all() == []
    faulty_s3.rule = lambda method, path: None
    assert ingest_all(place) == {"a.glb": "registered"}


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState"])
@pytest.mark.parametrize("file", ["b.glb", "c.mtl"])
def test_an_object_that_may_not_be_read_parks_itself_until_it_may(
    faulty_s3: Any, place: Workspace, code: str, file: str
) -> None:
    place.raw.put("a.glb", GLB)
    place.raw.put("b.glb", OTHER)
    place.raw.put("c.obj", OBJ.replace(b"a.mtl", b"c.mtl"))
    place.raw.put("c.mtl", b"newmtl x\n")
    shut = file.replace("mtl", "obj")
    faulty_s3.rule = lambda method, path: (
        (403, code) if path.endswith(f"/{file}") and method == "GET" else None
    )
    reported = ingest_all(place)
    assert reported.pop(shut) == "not_readable"
    assert reported["a.glb"] == "registered" and "not_readable" not in reported.values()
    events = len(place.catalogue.list_events())
    assert ingest_all(place) == {shut: "not_readable"}
    assert len(place.catalogue.list_events()) == events, "the same again is no news"
    faulty_s3.rule = lambda method, path: None
    assert ingest_all(place) == {shut: "registered"}
    assert ingest_all(place) == {}


def test_a_raw_bucket_that_is_closed_parks_nothing(faulty_s3: Any, place: Workspace) -> None:
    place.raw.put("a.glb", GLB)
    (info,) = scan_raw(place)
    bucket = place.raw.root_url.removeprefix("s3://").partition("/")[0]
    faulty_s3.rule = lambda method, path: (403, "ExpiredToken") if bucket in path else None
    with pytest.raises(PermissionError):
        ingest_object(place, info)
    assert place.catalogue.raw.list_all() == []


def test_keys_that_no_store_of_ours_takes_are_parked(place: Workspace) -> None:
    place.raw.put("b.glb", GLB)
    for odd in ("a//b.glb", "/b.glb", "c/../b.glb"):
        place.raw._fs.pipe_file(f"{place.raw._root}/{odd}", GLB)
    reported = ingest_all(place)
    assert reported.pop("b.glb") == "registered"
    assert set(reported.values()) == {"bad_key"} and len(reported) == 3
    assert ingest_all(place) == {}
