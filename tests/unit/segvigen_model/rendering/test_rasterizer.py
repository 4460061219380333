"""The z-buffer against ray casting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.rendering.rasterizer import (
    Camera,
    compute_depth_limit,
    project_triangles,
    rasterize,
    rasterize_parallel,
)

FRONT = Camera((0.0, 0.0, 2.0))


def rays(camera, pixels):
    """(S, S, 3) directions through pixel centres, view depth 1."""
    right, up, back = camera.axes
    half = np.tan(np.radians(camera.field_of_view_deg) / 2)
    at = ((np.arange(pixels) + 0.5) / pixels * 2 - 1) * half
    return at[None, :, None] * right - at[:, None, None] * up - back


def nearest_by_rays(triangles, camera, pixels):
    """Face and depth per pixel by intersecting every ray with every triangle."""
    origin, directions = np.array(camera.position), rays(camera, pixels).reshape(-1, 3)
    face, depth = np.full(len(directions), -1), np.full(len(directions), np.inf)
    for f, (a, b, c) in enumerate(triangles):
        matrix = np.stack(
            [
                np.broadcast_to(b - a, directions.shape),
                np.broadcast_to(c - a, directions.shape),
                -directions,
            ],
            axis=-1,
        )
        usable = np.abs(np.linalg.det(matrix)) > 1e-12
        u, v, t = np.full((3, len(directions)), -1.0)
        u[usable], v[usable], t[usable] = np.linalg.solve(
            matrix[usable], np.broadcast_to((origin - a)[:, None], (usable.sum(), 3, 1))
        )[..., 0].T
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < depth)
        face[hit], depth[hit] = f, t[hit]
    return face.reshape(pixels, pixels), depth.reshape(pixels, pixels)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_sees_what_rays_see(seed):
    rng = np.random.default_rng(seed)
    triangles = rng.uniform(-0.5, 0.5, (6, 3, 3))
    position = rng.normal(size=3) + np.array([0.5, 0.0, 0.0])
    camera = Camera(tuple((2.0 * position / np.linalg.norm(position)).tolist()))
    hits = rasterize(project_triangles(triangles, camera, 24), 24)
    face, depth = nearest_by_rays(triangles, camera, 24)
    same = hits.face == face
    assert same.mean() > 0.99, f"seed {seed}"  # rays along an edge may go either way
    seen = same & (face >= 0)
    assert np.allclose(1.0 / hits.inverse_depth[seen], depth[seen])
    points = np.einsum("nc,nck->nk", hits.weights[seen], triangles[face[seen]])
    wanted = np.array(camera.position) + rays(camera, 24)[seen] * depth[seen][:, None]
    assert np.allclose(points, wanted, atol=1e-9)


def test_the_official_camera_is_turned_rightly():
    from segvigen_model.rendering.condition_view import OFFICIAL_CAMERA

    # The official matrix, Blender's (x, y, z) as glTF's (x, z, -y).
    right, up, back = OFFICIAL_CAMERA.axes
    assert np.allclose(right, [0.8819213, 0.0, 0.4713968], atol=1e-6)
    assert np.allclose(up, [0.0649480, 0.9904633, -0.1215089], atol=1e-6)
    assert np.allclose(2.0 * back, OFFICIAL_CAMERA.position, atol=1e-6)


def test_picture_is_not_mirrored():
    corner = np.array([[[0.1, 0.1, 0.0], [0.4, 0.1, 0.0], [0.1, 0.4, 0.0]]])
    seen = np.argwhere(rasterize(project_triangles(corner, FRONT, 32), 32).is_hit)
    assert (seen[:, 0] < 16).all(), "up is towards row 0"
    assert (seen[:, 1] >= 16).all(), "right is towards the last column"


def test_peeling_finds_the_layers_in_order(make_sheets):
    triangles = 0.4 * make_sheets(-0.5, 0.0, 0.5).triangles
    corners = project_triangles(triangles, FRONT, 8)
    hits, found = rasterize(corners, 8), []
    while hits.is_hit.any():
        found.append(int(hits.face[3, 4]) // 2)
        hits = rasterize(corners, 8, compute_depth_limit(hits))
    assert found == [2, 1, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_and_hidden_faces_are_not_drawn(bad):
    flat = np.zeros((1, 3, 3))
    passing_the_eye = np.array([[[0.0, 0.0, 3.0], [0.2, 0.0, 0.0], [0.0, 0.2, 0.0]]])
    broken = np.array([[[bad, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.2, 0.0]]])
    with np.errstate(invalid="ignore"):
        corners = project_triangles(np.concatenate([flat, passing_the_eye, broken]), FRONT, 16)
    assert not rasterize(corners, 16).is_hit.any()


def parallel_by_rays(triangles, projection, pixels):
    """Face and depth per pixel centre: every triangle's plane at every pixel, by barycentrics."""
    corners = triangles @ projection[:, :3].T + projection[:, 3]
    face, depth = np.full((pixels, pixels), -1), np.full((pixels, pixels), np.inf)
    at = np.arange(pixels) + 0.5
    column, row = np.meshgrid(at, at)
    for f, (a, b, c) in enumerate(corners):
        inverse = np.linalg.inv(np.stack([b - a, c - a], axis=1)[:2])
        v, w = np.tensordot(inverse, np.stack([column - a[0], row - a[1]]), 1)
        found = a[2] + v * (b - a)[2] + w * (c - a)[2]
        hit = (v >= 0) & (w >= 0) & (v + w <= 1) & (found < depth)
        face[hit], depth[hit] = f, found[hit]
    return face, depth


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_parallel_rays_meet_the_nearest_face(seed):
    rng = np.random.default_rng(seed)
    triangles = rng.uniform(-0.5, 0.5, (6, 3, 3))
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    scale = np.array([20.0, -20.0, 1.0])[:, None]
    projection = np.column_stack([scale * axes, [12.0, 12.0, 2.0]])
    hits = rasterize_parallel(triangles, projection, 24)
    face, depth = parallel_by_rays(triangles, projection, 24)
    same = hits.face == face
    assert same.mean() > 0.99, f"seed {seed}"  # rays along an edge may go either way
    seen = same & (face >= 0)
    assert np.allclose(hits.depth[seen], depth[seen])
    assert (hits.depth[hits.face < 0] == 0).all() and (hits.weights[hits.face < 0] == 0).all()
    points = np.einsum("nc,nck->nk", hits.weights[seen], triangles[face[seen]])
    rows, columns = np.nonzero(seen)
    back = points @ projection[:, :3].T + projection[:, 3]
    assert np.allclose(back, np.stack([columns + 0.5, rows + 0.5, depth[seen]], axis=1))


def test_of_faces_at_the_same_depth_the_first_is_seen():
    triangle = np.array([[[-1.0, -1.0, 0.3], [3.0, -1.0, 0.3], [-1.0, 3.0, 0.3]]])
    projection = np.array([[4.0, 0, 0, 4.0], [0, -4.0, 0, 4.0], [0, 0, 1.0, 2.0]])
    hits = rasterize_parallel(np.repeat(triangle, 3, axis=0), projection, 8)
    assert (hits.face == 0).all() and np.allclose(hits.depth, 2.3)
