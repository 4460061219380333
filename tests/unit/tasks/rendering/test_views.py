from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.coords import fit_frame
from tasks.rendering.views import (
    compute_unit_triangles,
    list_directions,
    make_view,
    name_direction,
    render_hits,
)

SIZE = 64


@pytest.fixture(scope="module")
def triangles(table):
    mesh, _ = table
    return compute_unit_triangles(mesh, fit_frame(mesh.vertices))


@pytest.mark.parametrize("direction", list_directions().tolist())
def test_every_hit_lies_on_its_face_and_projects_back_to_its_pixel(triangles, direction):
    view = make_view(np.array(direction), triangles.reshape(-1, 3))
    axes = np.stack([view.right, view.up, view.forward])
    assert np.allclose(axes @ axes.T, np.eye(3))
    hits = render_hits(triangles, view, SIZE)
    rows, columns = np.nonzero(hits.face >= 0)
    assert len(rows) > 100
    starts = view.make_ray_origins(columns + 0.5, rows + 0.5, SIZE)
    points = starts + hits.depth[rows, columns][:, None] * view.forward
    corners = triangles[hits.face[rows, columns]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    off_plane = np.einsum("nk,nk->n", points - corners[:, 0], normals)
    facing = np.abs(normals @ view.forward) > 1e-3
    assert np.abs(off_plane[facing]).max() < 1e-9
    back = view.project(points, SIZE)
    assert np.allclose(back[:, 0], columns + 0.5) and np.allclose(back[:, 1], rows + 0.5)


def test_nothing_touches_the_border_of_the_window(triangles):
    for direction in list_directions():
        view = make_view(direction, triangles.reshape(-1, 3))
        face = render_hits(triangles, view, SIZE).face
        border = np.concatenate([face[0], face[-1], face[:, 0], face[:, -1]])
        assert (border == -1).all(), direction


def test_a_subset_keeps_the_original_face_numbers(triangles):
    only = np.arange(12, 24, dtype=np.int32)
    view = make_view(np.array([0.3, 0.2, 1.0]), triangles[only].reshape(-1, 3))
    seen = np.unique(render_hits(triangles, replace(view, only_faces=only), SIZE).face)
    assert seen[0] == -1 and set(seen[1:]) <= set(only.tolist()) and len(seen) > 2


@pytest.mark.parametrize(
    ("direction", "name"),
    [
        ((0, 0, 1), "front"),
        ((0, 0, -1), "back"),
        ((1, 0, 0), "right"),
        ((0, -1, 0), "bottom"),
        ((-1, 0.7, 1), "front-left-top"),
    ],
)
def test_view_names(direction, name):
    assert name_direction(np.array(direction, dtype=float)) == name


def test_seen_from_the_front_the_right_hand_side_is_plus_x(triangles):
    view = make_view(np.array([0.0, 0.0, 1.0]), triangles.reshape(-1, 3))
    assert np.allclose(view.right, [1, 0, 0]) and np.allclose(view.up, [0, 1, 0])


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda d: np.linalg.norm(d) > 0.1),
    st.integers(0, 2**31),
)
def test_any_view_holds_all_points(direction, seed):
    points = np.random.default_rng(seed).uniform(-0.5, 0.5, (20, 3))
    pixels = make_view(np.array(direction), points).project(points, SIZE)
    assert (pixels[:, :2] > 0).all() and (pixels[:, :2] < SIZE).all()
    assert (pixels[:, 2] > 0).all()
