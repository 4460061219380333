from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segvigen_model.errors import MissingExtra
from segvigen_model.types import Material
from tasks.labelling.part_colors import assign_part_colors, format_hex_color
from tasks.labelling.taxonomy import build_taxonomy
from tasks.rendering import viewer_html
from tasks.rendering.viewer_html import compute_face_colors, encode_face_pictures, render_viewer

REPOSITORY = Path(__file__).resolve().parents[4]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


def make_page(table, sheet, title=HOSTILE) -> str:
    return render_viewer(*table, sheet.buffers, title=title).decode()


def read_data(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def test_names_cannot_become_markup(table, table_sheet):
    page = make_page(table, table_sheet)
    assert "alert(1)</script>" not in page and "<img" not in page
    assert page.count("<script") == 2
    assert read_data(page)["title"] == HOSTILE


def test_the_policy_names_exactly_our_script_and_style(table, table_sheet):
    page = make_page(table, table_sheet)
    policy = re.search(r'Security-Policy" content="([^"]*)"', page)[1]
    for tag, pattern in (("script", r"<script>(.*?)</script>"), ("style", r"<style>(.*?)</style>")):
        (text,) = re.findall(pattern, page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_geometry_goes_in_exactly(table, table_sheet):
    mesh, labels = table
    page = make_page(table, table_sheet)
    data = read_data(page)
    faces = np.frombuffer(base64.b64decode(data["faces"]), "<u4").reshape(-1, 3)
    parts = np.frombuffer(base64.b64decode(data["part"]), "<u2")
    points = np.frombuffer(base64.b64decode(data["points"]), "<f4").reshape(-1, 3)
    assert np.array_equal(faces, mesh.faces) and np.array_equal(parts, labels)
    back = points / data["scale"] + np.array(data["center"])
    assert np.allclose(back, mesh.vertices, atol=1e-5)
    stray = replace(mesh, vertices=np.vstack([mesh.vertices, [[1e5, 0, 0]]]))
    more = read_data(render_viewer(stray, labels, table_sheet.buffers, title="").decode())
    seen = np.frombuffer(base64.b64decode(more["points"]), "<f4").reshape(-1, 3)
    assert np.array_equal(seen[:-1], points) and not seen[-1].any(), "no face: not to be framed"
    assert len(data["tiles"]) == 6 and sum(part["share"] for part in data["parts"]) > 0.99
    assert page == make_page(table, table_sheet)


def test_a_huge_mesh_gets_a_page_that_reports_it(table, table_sheet, monkeypatch):
    monkeypatch.setattr(viewer_html, "MAX_FACES", 3)
    page = make_page(table, table_sheet)
    assert "too many" in page and "<script" not in page


def test_original_colours_come_from_factor_and_vertices(table):
    mesh, _ = table
    assert (compute_face_colors(mesh) == [255, 128, 0]).all()
    red = np.tile(np.array([[255, 0, 0, 255]], dtype=np.uint8), (len(mesh.vertices), 1))
    assert (compute_face_colors(replace(mesh, vertex_colors=red)) == [255, 0, 0]).all()


def add_texture(mesh, *textures):
    uv = np.full((mesh.num_faces, 3, 2), (0.75 + 3, 0.25), dtype=np.float32)
    uv[0] = np.nan
    materials = tuple(Material(base_color_texture=texture) for texture in textures)
    worn = (np.arange(mesh.num_faces) % len(materials)).astype(np.int32)
    return replace(mesh, materials=materials, corner_uv=uv, face_material=worn)


def test_textures_go_in_small_and_once_each(table, table_sheet):
    mesh, labels = table
    assert encode_face_pictures(mesh)[1] == []
    blue = np.zeros((2048, 1024, 4), dtype=np.uint8)
    blue[..., 2] = 200
    dressed = add_texture(mesh, blue, None, blue)
    slots, (picture,) = encode_face_pictures(dressed)
    assert [int(slot) for slot in slots[:3]] == [1, 0, 1]
    image = np.asarray(Image.open(io.BytesIO(picture)))
    assert image.shape == (1024, 512, 3) and abs(image.mean(axis=(0, 1)) - [0, 0, 200]).max() < 3
    data = read_data(render_viewer(dressed, labels, table_sheet.buffers, title="t").decode())
    uv = np.frombuffer(base64.b64decode(data["uv"]), "<f4").reshape(-1, 3, 2)
    assert np.array_equal(uv[1:], dressed.corner_uv[1:]) and (uv[0] == 0).all()
    assert np.array_equal(np.frombuffer(base64.b64decode(data["slot"]), "<u2"), slots)


def test_many_textures_become_smaller_pictures(table):
    textures = [np.zeros((600, 600, 4), dtype=np.uint8) for _ in range(5)]
    _, pictures = encode_face_pictures(add_texture(table[0], *textures))
    assert {Image.open(io.BytesIO(picture)).size for picture in pictures} == {(512, 512)}


def test_names_categories_and_colour_slots_come_from_the_sheets_meta(table, table_sheet):
    reported = {"part_names": [HOSTILE, "", "leg"], "part_categories": ["", "legs", ""]}
    meta = {**table_sheet.buffers.meta, **reported, "part_slots": [4, 0, 9]}
    buffers = replace(table_sheet.buffers, meta=meta)
    taxonomy = build_taxonomy([{"id": "legs", "name": "Legs </script>"}])
    page = render_viewer(*table, buffers, title="t", taxonomy=taxonomy).decode()
    data = read_data(page)
    assert [part["name"] for part in data["parts"]] == reported["part_names"]
    assert [part["category"] for part in data["parts"]] == reported["part_categories"]
    colors = [format_hex_color(assign_part_colors(10)[slot]) for slot in (4, 0, 9)]
    assert [part["color"] for part in data["parts"]] == colors
    assert [label["background"] for label in data["labels"][:3]] == colors
    assert data["taxonomy"] == [{"id": "legs", "name": "Legs </script>", "parent": ""}]
    assert page.count("</script") == 2


def test_incomplete_names_are_not_shown(table, table_sheet):
    meta = {**table_sheet.buffers.meta, "part_names": ["only one"], "part_slots": "no list"}
    page = render_viewer(*table, replace(table_sheet.buffers, meta=meta), title="t").decode()
    assert [part["name"] for part in read_data(page)["parts"]] == ["", "", ""]


def test_an_absent_script_is_reported_with_its_hint(table, table_sheet, monkeypatch):
    monkeypatch.setattr(viewer_html, "SCRIPT", "viewer.absent.js")
    with pytest.raises(
        MissingExtra,
        match=r"viewer\.absent\.js is not installed; run `python -m infra\.viewer\.build`",
    ):
        make_page(table, table_sheet)


def test_a_page_without_a_mesh_stays_under_a_megabyte(table, table_sheet):
    assert len(make_page(table, table_sheet)) < 1_000_000


def test_keys_are_shown_as_they_must_be_pressed():
    """Plain letters choose labels; the viewer's own acts are capitals."""
    script = (REPOSITORY / "infra/viewer/src/main.js").read_text()
    block = script[script.index("const KEYS = {") :].partition("\n};")[0]
    keys = set(re.findall(r"\b([A-Z]): ?", block) + re.findall(r"\b([A-Z]), ", block))
    assert {"M", "S", "N", "U", "V"} <= keys
    reported = viewer_html._PAGE
    assert set(re.findall(r"<kbd>Shift ([A-Z])</kbd>", reported)) == keys
    assert set(re.findall(r'title="Shift ([A-Z]): ', reported)) == {"M", "S", "N", "C"}
    guide = (REPOSITORY / "docs/review.md").read_text()
    assert set(re.findall(r"`Shift ([A-Z])`", guide)) <= keys
    for text in (reported, guide):
        assert not re.findall(r"(?:<kbd>|`|title=\")([A-Z])(?:</kbd>|`|:)", text)
