"""Polygons of every shape to triangles that cover them, none lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.mesh.formats.ear_clipping import clip_ears
from segvigen_model.mesh.formats.triangulate import triangulate_polygons

L_SHAPE = [(2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 0)]
SLIT = [(0, 0), (3, 0), (3, 3), (0, 3), (0, 0), (1, 1), (1, 2), (2, 2), (2, 1), (1, 1)]
STRAIGHT = [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 3), (2, 3), (0, 3), (0, 2)]
COMB = [(0, 0), (4, 0), (4, 1), (3.5, 5), (3, 1), (2.5, 5), (2, 1), (1.5, 5), (1, 1), (0.5, 5)]
TWO_HOLES = [
    (0, 0), (10, 0), (10, 10), (0, 10), (0, 0), (1, 1), (1, 2), (2, 2), (2, 1), (4, 1), (4, 2),
    (5, 2), (5, 1), (4, 1), (2, 1), (1, 1),
]  # fmt: skip


def measure(vertices, found):
    triangles = np.asarray(vertices, float)[found.corners]
    sides = triangles[:, 1:] - triangles[:, :1]
    return np.cross(sides[:, 0], sides[:, 1]) / 2


def triangulate(points, sizes=None):
    points = np.asarray(points, float)
    if points.shape[1] == 2:
        points = np.column_stack([points, np.zeros(len(points))])
    sizes = [len(points)] if sizes is None else sizes
    found = triangulate_polygons(points, np.arange(len(points)), np.array(sizes))
    return found, measure(points, found)


@pytest.mark.parametrize("turn", range(6))
@pytest.mark.parametrize(
    ("polygon", "area"),
    [(L_SHAPE, 3), (SLIT, 8), (STRAIGHT, 9), (COMB, 11.75), (TWO_HOLES, 98)],
    ids=["L", "hole", "straight corners", "comb", "two holes"],
)
def test_a_polygon_is_covered_once_with_its_winding(polygon, area, turn):
    for points in (np.roll(polygon, turn, axis=0), np.roll(polygon, turn, axis=0)[::-1]):
        found, normals = triangulate(points)
        sign = np.sign(normals[:, 2].sum())
        assert len(found.corners) == len(polygon) - 2
        assert sorted(set(found.corners.ravel().tolist())) == list(range(len(polygon)))
        assert (sign * normals[:, 2] > -1e-9).all(), "no triangle is turned"
        assert np.abs(normals[:, 2]).sum() == pytest.approx(area)
        assert found.num_crossed == 0


def test_convex_polygons_become_the_fan_of_their_first_corner():
    found, _ = triangulate([(0, 0), (2, 0), (3, 1), (2, 2), (0, 2)])
    assert found.corners.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4]]


def test_straight_corners_make_no_face_without_area_where_that_is_possible():
    _, normals = triangulate([(2, 0), (3, 0), (0, 3), (0, 0), (1, 0)])
    assert (normals[:, 2] > 1e-9).all()


def test_polygons_stay_in_order_and_small_ones_give_nothing():
    points = [(0, 0), (1, 0), *L_SHAPE, (0, 0), (1, 0), (1, 1)]
    found, normals = triangulate(points, [2, 6, 0, 3])
    assert found.polygons.tolist() == [1, 1, 1, 1, 3]
    assert found.corners[-1].tolist() == [8, 9, 10]
    assert normals[:, 2].sum() == pytest.approx(3.5)


def test_a_concave_quad_is_cut_at_its_inner_corner():
    _, normals = triangulate([(0, 0), (4, 0), (1, 1), (0, 4)])
    assert normals[:, 2].tolist() == pytest.approx([2, 2])
    turned, normals = triangulate([(4, 0), (1, 1), (0, 4), (0, 0)])
    assert (normals[:, 2] > 0).all() and len(turned.corners) == 2


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_corners=st.integers(5, 40))
def test_stars_in_any_plane_keep_their_area(seed, num_corners):
    rng = np.random.default_rng(seed)
    angles = (np.arange(num_corners) + 0.8 * rng.random(num_corners)) / num_corners * 2 * np.pi
    radii = 0.05 + rng.random(num_corners)
    flat = np.column_stack([np.cos(angles) * radii, np.sin(angles) * radii, 0 * radii])
    x, y = flat[:, 0], flat[:, 1]
    area = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    far = 10 ** rng.uniform(-6, 6)
    found, normals = triangulate(far * (flat @ turn.T) + far)
    assert len(found.corners) == num_corners - 2
    assert np.linalg.norm(normals, axis=1).sum() == pytest.approx(area * far**2, rel=1e-6)


def test_polygons_that_cut_themselves_are_counted():
    bow_tie, _ = triangulate([(0, 0), (1, 1), (1, 0), (0, 1)])
    assert (len(bow_tie.corners), bow_tie.num_crossed) == (2, 1)
    star = [(np.cos(a), np.sin(a)) for a in 2 * np.pi * np.array([0, 2, 4, 1, 3]) / 5]
    crossed, _ = triangulate(star)
    assert (len(crossed.corners), crossed.num_crossed) == (3, 1)


def test_a_polygon_without_area_keeps_its_triangles():
    found, normals = triangulate([(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)])
    assert len(found.corners) == 3 and not normals.any()


def test_a_polygon_of_thousands_of_corners_is_cut_exactly():
    angles = np.arange(3000) / 3000 * 2 * np.pi
    radii = 1 + 0.3 * np.random.default_rng(0).random(3000)
    triangles, is_exact = clip_ears(
        np.column_stack([np.cos(angles), np.sin(angles)]) * radii[:, None]
    )
    assert is_exact and len(triangles) == 2998
