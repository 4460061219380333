"""The shaded view and the flat map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.rendering.condition_view import render_view
from segvigen_model.rendering.rasterizer import Camera
from segvigen_model.types import Material

FRONT = Camera((0.0, 0.0, 2.0))
RED = (1.0, 0.0, 0.0, 1.0)


def test_view_has_true_alpha(make_sheets):
    view = render_view(make_sheets(0.0), FRONT, 64)
    assert view.shape == (64, 64, 4)
    assert view[32, 32, 3] == 255
    assert view[0, 0, 3] == 0
    assert not view[view[..., 3] == 0].any(), "nothing shines where nothing is"


def test_light_comes_from_above(make_sheets):
    mesh = make_sheets(0.0)
    above = render_view(mesh, Camera((0.0, 0.5, 1.9)), 32)
    normals = np.tile(np.float32([0, 1, 0]), (4, 1))
    up = render_view(replace(mesh, vertex_normals=normals), Camera((0.0, 0.5, 1.9)), 32)
    assert up[16, 16, 0] > above[16, 16, 0]


def test_a_roof_throws_a_shadow(make_sheets):
    lit = make_sheets(0.0)
    roof = np.array([[-2, 1.05, -2], [2, 1.05, -2], [2, 1.05, 2], [-2, 1.05, 2.0]])
    both = replace(
        lit,
        vertices=np.concatenate([lit.vertices, roof]),
        faces=np.concatenate([lit.faces, [[4, 5, 6], [4, 6, 7]]]),
        face_material=np.zeros(4, np.int32),
    )
    camera = Camera((0.0, -0.2, 2.0))
    # the scene with the roof is scaled down; its centre still shows the wall
    assert render_view(both, camera, 32)[18, 16, 0] < render_view(lit, camera, 32)[18, 16, 0]


def test_colours_and_transparency_follow_the_materials(make_sheets):
    glass = Material(base_color_factor=(0.0, 0.0, 1.0, 0.5), alpha_mode="BLEND")
    cut = Material(base_color_factor=(0.0, 1.0, 0.0, 0.3), alpha_mode="MASK", alpha_cutoff=0.5)
    red = Material(base_color_factor=RED)
    r, g, b, a = render_view(make_sheets(0.0, materials=(red,)), FRONT, 16)[8, 8].astype(int)
    assert r > 2 * g and g == b and a == 255
    r, g, b, a = render_view(make_sheets(0.0, 0.1, materials=(red, glass)), FRONT, 16)[8, 8].astype(
        int
    )
    assert r > g and b > g and a == 255, "red through blue glass"
    *_, a = render_view(make_sheets(0.0, materials=(glass,)), FRONT, 16)[8, 8].astype(int)
    assert 126 <= a <= 129
    r, g, _, a = render_view(make_sheets(0.0, 0.1, materials=(red, cut)), FRONT, 16)[8, 8].astype(
        int
    )
    assert r > g and a == 255, "cut away"


def test_textures_are_read_the_right_way_up(make_sheets):
    texture = np.zeros((2, 2, 4), np.uint8)
    texture[0] = [255, 0, 0, 255]  # glTF: row 0 is v = 0
    texture[1] = [0, 0, 255, 255]
    corners = np.float32([[0, 1], [1, 1], [1, 0], [0, 0]])  # lower edge of the square has v = 1
    uv = corners[np.array([[0, 1, 2], [0, 2, 3]])]
    mesh = make_sheets(0.0, materials=(Material(base_color_texture=texture),), corner_uv=uv)
    view = render_view(mesh, FRONT, 64).astype(int)
    assert view[22, 32, 0] > view[22, 32, 2], "upper half red"
    assert view[42, 32, 2] > view[42, 32, 0], "lower half blue"


def test_vertex_colours_are_used(make_sheets):
    colors = np.tile(np.uint8([0, 255, 0, 255]), (4, 1))
    r, g, b, _ = render_view(make_sheets(0.0, vertex_colors=colors), FRONT, 16)[8, 8].astype(int)
    assert g > 2 * r and r == b


def test_no_faces_are_refused(make_sheets):
    empty = replace(
        make_sheets(0.0), faces=np.zeros((0, 3), np.int64), face_material=np.zeros(0, np.int32)
    )
    with pytest.raises(AssetRejected, match="no_faces"):
        render_view(empty)
