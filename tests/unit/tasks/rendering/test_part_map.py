"""The part map's z-buffer: right faces, right order, no matter how they are given."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from tasks.rendering.part_map import GuideCamera, guide_cameras, render_face_map, render_part_map

FRONT = GuideCamera(0.0, 0.0)


def square(z: float, half: float = 0.2) -> np.ndarray:
    a, b, c, d = (np.array([x, y, z]) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
    corners = np.array([[a, b, c], [a, c, d]])
    corners[..., :2] *= half
    return corners


def test_the_nearer_face_wins_in_any_order() -> None:
    near, far = square(0.3, 0.1), square(-0.3, 0.2)
    for triangles, front in ((np.concatenate([near, far]), 0), (np.concatenate([far, near]), 2)):
        seen = render_face_map(triangles, FRONT, 64)
        assert seen[32, 32] in (front, front + 1)
        assert seen[0, 0] == -1


def test_size_follows_perspective() -> None:
    near, far = (render_face_map(square(z), FRONT, 128) >= 0 for z in (0.5, -0.5))
    ratio = near.sum() / far.sum()
    assert ratio == pytest.approx((2.5 / 1.5) ** 2, rel=0.1)


def test_up_is_up_and_right_is_right() -> None:
    triangles = square(0.0, 0.1) + np.array([0.2, 0.2, 0.0])
    rows, columns = np.nonzero(render_face_map(triangles, FRONT, 64) >= 0)
    assert rows.max() < 32
    assert columns.min() >= 32
    rows, columns = np.nonzero(render_face_map(triangles, GuideCamera(180.0, 0.0), 64) >= 0)
    assert rows.max() < 32
    assert columns.max() < 32


def first_hits(eye: np.ndarray, rays: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(N,) nearest face of each ray from one eye, by the rule of Moeller and Trumbore, or -1."""
    corner, one, two = triangles[:, 0], *(triangles[:, k] - triangles[:, 0] for k in (1, 2))
    across = np.cross(rays[:, None], two)
    scale = np.einsum("nfk,fk->nf", across, one)
    u = np.einsum("nfk,fk->nf", across, eye - corner) / scale
    turned = np.cross(eye - corner, one)
    v = rays @ turned.T / scale
    depth = np.einsum("fk,fk->f", turned, two) / scale
    depth = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (depth > 0), depth, np.inf)
    return np.where(np.isfinite(depth.min(axis=1)), depth.argmin(axis=1), -1)


def test_it_agrees_with_ray_casting() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.4)
    mesh.apply_translation([0.05, -0.02, 0.03])
    camera = GuideCamera(30.0, 20.0)
    size = 48
    seen = render_face_map(mesh.triangles, camera, size)
    azimuth, elevation = np.radians([30.0, 20.0])
    back = np.array(
        [
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
            np.cos(elevation) * np.cos(azimuth),
        ]
    )
    right = np.array([np.cos(azimuth), 0, -np.sin(azimuth)])
    up = np.cross(back, right)
    rows, columns = np.mgrid[:size, :size] + 0.5
    reach = np.tan(np.radians(camera.field_of_view_deg / 2))
    across, upward = (columns / size * 2 - 1) * reach, (1 - rows / size * 2) * reach
    rays = (-back + across[..., None] * right + upward[..., None] * up).reshape(-1, 3)
    hit = first_hits(back * camera.distance, rays, mesh.triangles).reshape(size, size)
    assert (hit == seen).mean() > 0.995


def test_degenerate_faces_and_black_are_harmless() -> None:
    triangles = np.concatenate([np.zeros((1, 3, 3)), square(0.0)])
    colors = np.array([[1, 1, 1], [9, 8, 7], [9, 8, 7]], np.uint8)
    picture = render_part_map(triangles, colors, FRONT, 32)
    assert {tuple(c) for c in picture.reshape(-1, 3).tolist()} == {(0, 0, 0), (9, 8, 7)}


def test_cameras_are_a_fixed_sequence() -> None:
    assert guide_cameras(5)[:2] == guide_cameras(2)
    assert len(set(guide_cameras(16))) == 16
