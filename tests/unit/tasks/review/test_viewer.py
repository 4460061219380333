from __future__ import annotations

import base64
import hashlib
import json
import re

import numpy as np

from segvigen_model.types import Material
from tasks.review import viewer
from tasks.review.viewer import face_colors, render_viewer

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


def page_of(table, sheet, title=HOSTILE) -> str:
    return render_viewer(*table, sheet.buffers, title=title).decode()


def test_names_cannot_become_markup(table, table_sheet):
    page = page_of(table, table_sheet)
    assert "alert(1)</script>" not in page and "<img" not in page
    assert page.count("<script") == 2
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert data["title"] == HOSTILE


def test_the_policy_names_exactly_our_script_and_style(table, table_sheet):
    page = page_of(table, table_sheet)
    policy = re.search(r'Security-Policy" content="([^"]*)"', page)[1]
    for tag, pattern in (("script", r"<script>(.*?)</script>"), ("style", r"<style>(.*?)</style>")):
        (text,) = re.findall(pattern, page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_geometry_goes_in_exactly(table, table_sheet):
    mesh, labels = table
    page = page_of(table, table_sheet)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    faces = np.frombuffer(base64.b64decode(data["faces"]), "<u4").reshape(-1, 3)
    parts = np.frombuffer(base64.b64decode(data["part"]), "<u2")
    points = np.frombuffer(base64.b64decode(data["points"]), "<f4").reshape(-1, 3)
    assert np.array_equal(faces, mesh.faces) and np.array_equal(parts, labels)
    back = points / data["scale"] + np.array(data["center"])
    assert np.allclose(back, mesh.vertices, atol=1e-5)
    assert len(data["tiles"]) == 6 and sum(part["share"] for part in data["parts"]) > 0.99
    assert page == page_of(table, table_sheet)


def test_a_huge_mesh_gets_a_page_that_says_so(table, table_sheet, monkeypatch):
    monkeypatch.setattr(viewer, "MAX_FACES", 3)
    page = page_of(table, table_sheet)
    assert "too many" in page and "<script" not in page


def test_original_colours_come_from_factor_texture_and_vertices(table):
    from dataclasses import replace

    mesh, _ = table
    assert (face_colors(mesh) == [255, 128, 0]).all()
    texture = np.zeros((2, 2, 4), dtype=np.uint8)
    texture[0, 1] = (100, 200, 50, 255)
    uv = np.full((mesh.num_faces, 3, 2), (0.75 + 3, 0.25), dtype=np.float32)
    uv[0] = np.nan
    textured = replace(mesh, materials=(Material(base_color_texture=texture),), corner_uv=uv)
    assert (face_colors(textured)[1:] == [100, 200, 50]).all()
    red = np.tile(np.array([[255, 0, 0, 255]], dtype=np.uint8), (len(mesh.vertices), 1))
    assert (face_colors(replace(mesh, vertex_colors=red)) == [255, 0, 0]).all()
