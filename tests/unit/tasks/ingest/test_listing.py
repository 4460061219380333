"""The bucket's listing: side files, rescues, files that arrive later, local files still written."""

from __future__ import annotations

import io
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tasks.ingest.ingest import ingest_object, list_raw, scan_raw
from tasks.ingest.listing import RawListing
from tasks.labelling.loading import load_asset_info, load_asset_mesh
from tasks.storage.store import ObjectInfo, Store

TRIANGLE = b"usemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n"


def make_png(color: tuple[int, int, int] = (200, 10, 10)) -> bytes:
    picture = io.BytesIO()
    Image.new("RGB", (2, 2), color).save(picture, "png")
    return picture.getvalue()


def info_of(pipeline: Any, key: str) -> dict[str, Any]:
    return dict(load_asset_info(pipeline.store, pipeline.catalogue.raw.get(key).asset_id))


def texel_of(pipeline: Any, key: str) -> list[int]:
    asset = pipeline.catalogue.get_asset(pipeline.catalogue.raw.get(key).asset_id)
    texture = load_asset_mesh(pipeline.store, asset).materials[0].base_color_texture
    return texture[0, 0, :3].tolist()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("map_Kd -s 1.0 1.0 1.0 my tex.png", "my tex.png"),
        ("map_Kd my tex.png", "my tex.png"),
        ("map_Kd -s 1 1 1 t.png", "t.png"),
        ("map_Kd t.png -bm 1", "t.png"),
    ],
)
def test_options_and_spaces_leave_nothing_missing(pipeline: Any, line: str, name: str) -> None:
    pipeline.raw.put("o/a.obj", b"mtllib m.mtl\n" + TRIANGLE)
    pipeline.raw.put("o/m.mtl", f"newmtl m\nKd 1 1 1\n{line}\n".encode())
    pipeline.raw.put(f"o/{name}", make_png())
    assert pipeline.ingest() == {"o/a.obj": "registered"}
    about = info_of(pipeline, "o/a.obj")
    assert about["missing_side_files"] == [] and about["rescued_side_files"] == []
    assert pipeline.catalogue.raw.list_awaited() == {}
    assert texel_of(pipeline, "o/a.obj") == [200, 10, 10]


def test_rescues_are_recorded(pipeline: Any) -> None:
    pipeline.raw.put("o/a.obj", b"mtllib M.mtl\n" + TRIANGLE)
    pipeline.raw.put("o/m.MTL", b"newmtl m\nmap_Kd D:\\art\\T.png\n")
    pipeline.raw.put("o/Textures/t.png", make_png())
    pipeline.raw.put("p/T.png", make_png((0, 0, 0)))
    assert pipeline.ingest() == {"o/a.obj": "registered"}
    assert info_of(pipeline, "o/a.obj")["rescued_side_files"] == [
        {"wanted": "M.mtl", "found": "o/m.MTL", "how": "in another case"},
        {
            "wanted": "D:/art/T.png",
            "found": "o/Textures/t.png",
            "how": "by its base name, in another case",
        },
    ]
    assert texel_of(pipeline, "o/a.obj") == [200, 10, 10]


def test_a_rescue_that_arrives_later_is_noticed(pipeline: Any) -> None:
    pipeline.raw.put("o/a.obj", b"mtllib a.mtl\n" + TRIANGLE)
    pipeline.raw.put("o/a.mtl", b"newmtl m\nmap_Kd t.png\n")
    assert pipeline.ingest() == {"o/a.obj": "registered"}
    pipeline.raw.put("o/other/t.png", make_png())
    assert pipeline.ingest() == {}, "no place where it would be found"
    pipeline.raw.put("o/maps/T.PNG", make_png())
    assert pipeline.ingest() == {"o/a.obj": "registered"}
    assert pipeline.ingest() == {}
    assert pipeline.catalogue.raw.list_awaited() == {}


def test_nothing_is_asked_for_that_is_not_listed(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.raw.put("o/a.obj", b"mtllib gone.mtl\n" + TRIANGLE)
    asked, real = [], Store.find_info

    def find_info(self: Store, key: str) -> ObjectInfo | None:
        if self.root_url == pipeline.raw.root_url:
            asked.append(key)
        return real(self, key)

    monkeypatch.setattr(Store, "find_info", find_info)
    assert pipeline.ingest() == {"o/a.obj": "registered"}
    assert set(asked) <= {"o/a.obj"}


def test_one_listing_serves_a_whole_scan(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        pipeline.raw.put(f"o/{number}.obj", b"# %d\n" % number + TRIANGLE)
    listing = list_raw(pipeline.workspace)
    monkeypatch.setattr(Store, "list", lambda *_: pytest.fail("listed again"))
    found = scan_raw(pipeline.workspace, listing=listing)
    outcomes = [ingest_object(pipeline.workspace, i, listing=listing).outcome for i in found]
    assert outcomes == ["registered"] * 3


def test_a_side_file_that_is_gone_since_the_listing_is_missing(pipeline: Any) -> None:
    pipeline.raw.put("o/a.obj", b"mtllib a.mtl\n" + TRIANGLE)
    pipeline.raw.put("o/a.mtl", b"newmtl m\n")
    listing = list_raw(pipeline.workspace)
    (info,) = scan_raw(pipeline.workspace, listing=listing)
    raw_path(pipeline, "o/a.mtl").unlink()
    assert ingest_object(pipeline.workspace, info, listing=listing).outcome == "registered"
    assert info_of(pipeline, "o/a.obj")["missing_side_files"] == ["a.mtl"]


def raw_path(pipeline: Any, key: str) -> Path:
    return Path(pipeline.raw.get_uri(key).removeprefix("file://"))


def test_a_key_like_a_version_is_refused_once(pipeline: Any) -> None:
    root = Path(pipeline.raw.root_url.removeprefix("file://"))
    root.mkdir(parents=True, exist_ok=True)
    (root / "a.stl?versionId=3.stl").write_bytes(b"solid\nendsolid\n")
    assert pipeline.ingest() == {"a.stl?versionId=3.stl": "bad_key"}
    assert pipeline.ingest() == {}
    (rejected,) = pipeline.catalogue.list_assets("rejected")
    assert rejected.detail is not None and "rename it" in rejected.detail


def test_links_pipes_and_sockets_are_refused(pipeline: Any, tmp_path: Path) -> None:
    pipeline.raw.put("in.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    root = raw_path(pipeline, "in.off").parent
    (tmp_path / "secret.off").write_bytes(b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n# secret\n")
    (root / "out.off").symlink_to(tmp_path / "secret.off")
    (root / "climb.off").symlink_to("../secret.off")
    (root / "folder.off").symlink_to(tmp_path)
    (root / "nowhere.off").symlink_to("nothing")
    (root / "circle.off").symlink_to("circle.off")
    (root / "same.off").symlink_to("in.off")
    os.mkfifo(root / "pipe.off")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(root)
    try:
        server.bind("socket.off")
    finally:
        os.chdir(here)
    with server:
        assert pipeline.ingest() == {
            "circle.off": "not_a_file",
            "climb.off": "outside_root",
            "folder.off": "outside_root",
            "in.off": "registered",
            "nowhere.off": "not_a_file",
            "out.off": "outside_root",
            "pipe.off": "not_a_file",
            "same.off": "duplicate",
            "socket.off": "not_a_file",
        }
    assert pipeline.ingest() == {}, "each is recorded once"


def test_a_side_file_that_is_a_link_out_of_the_root_is_refused(
    pipeline: Any, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(make_png())
    pipeline.raw.put("o/a.obj", b"mtllib a.mtl\n" + TRIANGLE)
    pipeline.raw.put("o/a.mtl", b"newmtl m\nmap_Kd t.png\n")
    raw_path(pipeline, "o/t.png").symlink_to(tmp_path / "secret.png")
    assert pipeline.ingest() == {"o/a.obj": "outside_root"}


def test_a_file_exchanged_for_a_link_is_not_followed(pipeline: Any, tmp_path: Path) -> None:
    (tmp_path / "secret.off").write_bytes(b"OFF secret")
    pipeline.raw.put("a.off", b"OFF\n")
    (info,) = scan_raw(pipeline.workspace)
    raw_path(pipeline, "a.off").unlink()
    raw_path(pipeline, "a.off").symlink_to(tmp_path / "secret.off")
    assert ingest_object(pipeline.workspace, info).reason == "outside_root"


def test_a_file_that_is_being_written_waits(pipeline: Any) -> None:
    """Half of it is a whole smaller mesh: it must not be registered."""
    workspace = pipeline.with_settings(ingest={"quiet_s": 0.3})
    whole = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nv 0 0 1\nf 1 2 4\n"
    pipeline.raw.put("a.obj", whole[:33])
    pipeline.raw.put("b.obj", whole)
    path = raw_path(pipeline, "a.obj")
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.02):
            os.utime(path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert [info.key for info in scan_raw(workspace)] == ["b.obj"]
    finally:
        stop.set()
        writer.join()
    path.write_bytes(whole)
    assert [info.key for info in scan_raw(workspace)] == ["a.obj", "b.obj"], "after a wait"


def test_a_side_file_that_is_being_written_makes_its_mesh_wait(pipeline: Any) -> None:
    workspace = pipeline.with_settings(ingest={"quiet_s": 3600.0})
    pipeline.raw.put("o/a.obj", b"mtllib a.mtl\n" + TRIANGLE)
    pipeline.raw.put("o/a.mtl", b"newmtl m\n")
    os.utime(raw_path(pipeline, "o/a.obj"), (1.0, 1.0))
    (info,) = scan_raw(workspace)
    result = ingest_object(workspace, info)
    assert (result.outcome, result.asset_id) == ("changed", "")
    assert pipeline.catalogue.raw.get("o/a.obj") is None, "the next scan lists it"
    os.utime(raw_path(pipeline, "o/a.mtl"), (time.time() + 10**7,) * 2)
    assert ingest_object(workspace, info).outcome == "registered", "a wrong clock says nothing"


def test_names_by_folder() -> None:
    keys = ("a.obj", "o/t/x.png", "o/t/y.png", "o/a.obj")
    listing = RawListing(ObjectInfo(key, 1, "e", 0.0) for key in keys)
    assert listing.list_names("") == ["a.obj", "o"]
    assert listing.list_names("o") == ["t", "a.obj"]
    assert listing.list_names("o/t") == ["x.png", "y.png"]
    assert listing.list_names("nothing") == []
    assert [info.key for info in listing] == list(keys)
