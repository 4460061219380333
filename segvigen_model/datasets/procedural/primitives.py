"""Triangle primitives of the procedural shapes, each as (vertices, faces) with outward winding.

Everything round is a lathe (a profile turned about +Y) or a tube (a circle swept along points);
everything flat is an extruded polygon. Y is up. No vertex is shared between two primitives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segvigen_model.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Solid:
    """One closed or open surface.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64.
    """

    vertices: FloatArray
    faces: IntArray


def transform_solid(
    solid: Solid, matrix: FloatArray, offset: Sequence[float] | FloatArray
) -> Solid:
    """Apply x -> matrix @ x + offset; a mirroring matrix also flips the winding.

    Args:
        solid: what to move.
        matrix: (3, 3).
        offset: (3,).

    Returns:
        The moved solid.
    """
    faces = solid.faces[:, ::-1] if np.linalg.det(matrix) < 0 else solid.faces
    return Solid(solid.vertices @ np.asarray(matrix).T + np.asarray(offset, float), faces)


def make_grid_faces(num_rows: int, num_columns: int, *, closed: bool) -> IntArray:
    """Triangles of a (rows x columns) vertex grid; `closed` joins the last column to the first."""
    last = num_columns if closed else num_columns - 1
    row, column = np.meshgrid(np.arange(num_rows - 1), np.arange(last), indexing="ij")
    a = (row * num_columns + column).ravel()
    b = (row * num_columns + (column + 1) % num_columns).ravel()
    c, d = a + num_columns, b + num_columns
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def remove_slivers(vertices: FloatArray, faces: IntArray) -> Solid:
    """Drop triangles of (almost) no area, as the poles of a lathe make them."""
    tri = vertices[faces]
    area = np.linalg.norm(np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0]), axis=1)
    return Solid(vertices, faces[area > 1e-10 * max(float(np.ptp(vertices)), 1e-9) ** 2])


def make_box(size: Sequence[float], bevel: float = 0.0) -> Solid:
    """A cuboid about the origin, its vertical edges cut by `bevel` (length)."""
    half = np.asarray(size, float) / 2
    cut = min(bevel, 0.9 * half[0], 0.9 * half[2])
    if cut <= 0:
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float) * half[[0, 2]]
    else:
        x, z = half[0], half[2]
        corners = np.array(
            [
                *[[-x + cut, -z], [x - cut, -z], [x, -z + cut], [x, z - cut]],
                *[[x - cut, z], [-x + cut, z], [-x, z - cut], [-x, -z + cut]],
            ]
        )
    return make_prism(corners, float(size[1]))


def make_prism(polygon: FloatArray, height: float, taper: float = 1.0) -> Solid:
    """Extrude a star-shaped polygon of the XZ plane along Y, centred on the origin's height.

    Args:
        polygon: (K, 2) x and z; any turning sense.
        height: length along Y.
        taper: scale of the top polygon about its mean.

    Returns:
        A closed solid.
    """
    outline = np.asarray(polygon, float)
    nxt = np.roll(outline, -1, axis=0)
    if np.sum(outline[:, 0] * nxt[:, 1] - nxt[:, 0] * outline[:, 1]) > 0:
        outline = outline[::-1]
    mean, count = outline.mean(0), len(outline)
    top = mean + (outline - mean) * taper
    rings = [(outline, -height / 2), (top, height / 2)]
    layers = [np.insert(np.vstack([ring, mean]), 1, y, axis=1) for ring, y in rings]
    i = np.arange(count)
    j, low, high = (i + 1) % count, count, count + 1
    sides = [np.stack([i, j, i + high], 1), np.stack([j, j + high, i + high], 1)]
    bottom = np.stack([np.full(count, low), j, i], 1)
    lid = np.stack([np.full(count, low + high), i + high, j + high], 1)
    return Solid(np.concatenate(layers), np.concatenate([*sides, bottom, lid]))


def make_lathe(profile: Sequence[tuple[float, float]], segments: int = 16) -> Solid:
    """Turn a profile of (radius, y) about +Y. Rising profiles face outwards.

    Args:
        profile: points from bottom to top; start and end on radius 0 for a closed solid.
        segments: sides of each ring.

    Returns:
        The surface of revolution.
    """
    points = np.asarray(profile, float)
    angle = np.arange(segments) / segments * 2 * np.pi
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    radius = points[:, :1, None] * ring[None]
    height = np.broadcast_to(points[:, 1:2], (len(points), segments))
    vertices = np.stack([radius[..., 0], height, radius[..., 1]], -1).reshape(-1, 3)
    return remove_slivers(vertices, make_grid_faces(len(points), segments, closed=True))


def make_cone(bottom: float, top: float, height: float, segments: int = 16) -> Solid:
    """A closed cylinder or frustum about the origin."""
    half = height / 2
    return make_lathe([(0, -half), (bottom, -half), (top, half), (0, half)], segments)


def make_ball(radii: Sequence[float], segments: int = 16) -> Solid:
    """An ellipsoid about the origin."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, max(5, segments // 2 + 1))
    profile = [(float(np.cos(a)), float(np.sin(a))) for a in angle]
    return transform_solid(
        make_lathe(profile, segments), np.diag(np.asarray(radii, float)), (0, 0, 0)
    )


def make_capsule(radius: float, height: float, segments: int = 14) -> Solid:
    """A cylinder of `height` between the centres of two half balls, about the origin."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 8)
    sign = np.where(angle < 0, -1, 1)
    y = radius * np.sin(angle) + sign * height / 2
    pairs = zip(radius * np.cos(angle), y, strict=True)
    return make_lathe([(float(r), float(v)) for r, v in pairs], segments)


def make_torus(major: float, minor: float, segments: int = 20, sides: int = 10) -> Solid:
    """A ring about +Y."""
    angle = np.arange(segments) / segments * 2 * np.pi
    points = np.stack([major * np.cos(angle), np.zeros(segments), major * np.sin(angle)], 1)
    return make_tube(points, minor, sides=sides, closed=True)


def make_tube(points: FloatArray, radius: float, *, sides: int = 8, closed: bool = False) -> Solid:
    """Sweep a circle along a polyline (a bent pipe; ends are capped).

    Args:
        points: (K, 3) centre line.
        radius: of the pipe.
        sides: of the circle.
        closed: join the last point to the first.

    Returns:
        The pipe.
    """
    line = np.asarray(points, float)
    around = np.roll(line, -1, 0) - np.roll(line, 1, 0)
    tangent = around if closed else np.gradient(line, axis=0)
    frames = [make_axis_frame(t) for t in tangent]
    for i in range(1, len(frames)):
        frames[i] = untwist_frame(frames[i], frames[i - 1])
    angle = np.arange(sides) / sides * 2 * np.pi
    circle = np.stack([np.cos(angle), np.zeros(sides), np.sin(angle)], 1) * radius
    rings = np.stack([p + circle @ f.T for p, f in zip(line, frames, strict=True)])
    if closed:
        rings = np.concatenate([rings, rings[:1]])
    else:
        ends = [np.repeat(p[None], sides, 0) for p in (line[0], line[-1])]
        rings = np.concatenate([ends[0][None], rings, ends[1][None]])
    return remove_slivers(rings.reshape(-1, 3), make_grid_faces(len(rings), sides, closed=True))


def untwist_frame(frame: FloatArray, previous: FloatArray) -> FloatArray:
    """Turn a frame about its own Y so that its X follows the previous frame's X."""
    y = frame[:, 1]
    x = previous[:, 0] - y * (previous[:, 0] @ y)
    x = x / (np.linalg.norm(x) + 1e-12)
    return np.stack([x, y, np.cross(x, y)], 1)


def make_axis_frame(direction: Sequence[float] | FloatArray) -> FloatArray:
    """(3, 3) rotation that takes +Y to `direction`."""
    y = np.asarray(direction, float)
    y = y / (np.linalg.norm(y) + 1e-12)
    helper = np.array([1.0, 0, 0]) if abs(y[0]) < 0.9 else np.array([0, 0, 1.0])
    x = np.cross(y, helper)
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)], 1)
