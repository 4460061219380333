"""Polygons to triangles, shared by every format that has polygons.

A polygon of n corners becomes n - 2 triangles, one after the other, with its winding. Where the fan
of its first corner covers it, that fan is used: the triangles that other readers make, too. That
holds for all convex polygons without corners in line. Else the fan of another corner is taken, or
ears are clipped in the plane that fits best; no corner is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segvigen_model.mesh.formats.ear_clipping import clip_ears
from segvigen_model.types import BoolArray, FloatArray, IntArray

# A triangle with less than this share of its polygon's area has none: its corners are in line.
FLAT_SHARE = 1e-10
MAX_HUBS = 32  # corners whose fans are tried; polygons of more corners rarely are a fan


@dataclass(frozen=True, slots=True)
class Triangles:
    """Triangles of polygons.

    Attributes:
        corners: (F, 3) int64 rows of the list of corners, so that attributes of corners can follow.
        polygons: (F,) int32 number of each triangle's polygon, ascending.
        num_crossed: polygons that cut themselves; their triangles overlap or leave gaps.
    """

    corners: IntArray
    polygons: IntArray
    num_crossed: int


def triangulate_polygons(vertices: FloatArray, corners: IntArray, sizes: IntArray) -> Triangles:
    """Cut polygons into triangles.

    Args:
        vertices: (V, 3) float64.
        corners: (C,) int64 vertices of all polygons, one polygon after the other.
        sizes: (P,) int corners of each polygon. Those with fewer than 3 give no triangle; the
            caller counts them.

    Returns:
        sum(max(sizes - 2, 0)) triangles, in the order of the polygons.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    counts = np.maximum(sizes - 2, 0)
    polygons = np.repeat(np.arange(len(sizes), dtype=np.int32), counts)
    first_rows = np.cumsum(counts) - counts
    # The fan of every polygon: first corner, k-th and the one after it.
    step = np.arange(len(polygons)) - first_rows[polygons]
    hub = starts[polygons]
    fans: IntArray = np.stack([hub, hub + step + 1, hub + step + 2], axis=1)
    num_crossed = 0
    for size in np.unique(sizes[sizes > 3]).tolist():
        members = np.flatnonzero(sizes == size)
        local = vertices[corners[starts[members, None] + np.arange(size)]]
        hubs = _find_hubs(local)
        if size == 4:  # neither diagonal: it crosses itself, and there is no other way to cut it
            num_crossed += int((hubs < 0).sum())
            hubs = np.where(hubs < 0, _find_small_fan(local), hubs)
        turned = members[hubs > 0]
        rows = first_rows[turned, None] + np.arange(size - 2)
        fan = (fans[rows] - starts[turned, None, None] + hubs[hubs > 0, None, None]) % size
        fans[rows] = starts[turned, None, None] + fan
        for place in np.flatnonzero(hubs < 0).tolist():
            triangles, is_exact = _cut_polygon(local[place])
            num_crossed += not is_exact
            member = members[place]
            row = first_rows[member]
            fans[row : row + size - 2] = starts[member] + np.array(triangles)
    return Triangles(fans, polygons, num_crossed)


def _find_hubs(polygons: FloatArray) -> IntArray:
    """(P, N, 3) polygons -> (P,) the first corner whose fan covers the polygon, -1 = none."""
    hubs: IntArray = np.full(len(polygons), -1)
    open_ones: IntArray = np.arange(len(polygons))
    for hub in range(min(polygons.shape[1], MAX_HUBS)):
        is_enough = _is_fan_enough(np.roll(polygons[open_ones], -hub, axis=1))
        hubs[open_ones[is_enough]] = hub
        open_ones = open_ones[~is_enough]
        if not len(open_ones):
            break
    return hubs


def _is_fan_enough(polygons: FloatArray) -> BoolArray:
    """(P, N, 3) polygons -> (P,) whether every triangle of the first corner's fan faces forward."""
    spokes = polygons[:, 1:] - polygons[:, :1]
    crosses = np.cross(spokes[:, :-1], spokes[:, 1:])  # (P, N - 2, 3), twice the areas
    normals = crosses.sum(axis=1)
    turns = (crosses * normals[:, None]).sum(axis=-1)
    least = FLAT_SHARE * (normals * normals).sum(axis=-1)
    is_flat = np.abs(crosses).max(axis=(1, 2)) == 0
    is_enough: BoolArray = (turns > least[:, None]).all(axis=1) | is_flat
    return is_enough


def _find_small_fan(quads: FloatArray) -> IntArray:
    """(P, 4, 3) quads -> (P,) 0 or 1: the corner whose two triangles have less area."""
    areas = []
    for hub in (0, 1):
        spokes = np.roll(quads, -hub, axis=1)[:, 1:] - quads[:, hub : hub + 1]
        crosses = np.cross(spokes[:, :-1], spokes[:, 1:])
        areas.append(np.linalg.norm(crosses, axis=-1).sum(axis=1))
    return np.where(areas[1] < areas[0], 1, 0)


def _cut_polygon(points: FloatArray) -> tuple[list[tuple[int, int, int]], bool]:
    """Cut one (N, 3) polygon; the plane of two axes keeps numbers exact, the fitted one is last."""
    spokes = points[1:] - points[0]
    normal = np.cross(spokes[:-1], spokes[1:]).sum(axis=0)
    fan = [(0, k, k + 1) for k in range(1, len(points) - 1)]
    if not normal.any():
        return fan, False
    axis = int(np.abs(normal).argmax())
    first, second = (axis + 1) % 3, (axis + 2) % 3
    order = [first, second] if normal[axis] > 0 else [second, first]
    tried = [fan]
    for flat in (points[:, order], _project(points, normal)):
        triangles, is_exact = clip_ears(flat)
        if is_exact:
            return triangles, True
        tried.append(triangles)
    return min(tried, key=lambda each: _measure_area(points[np.array(each)])), False


def _measure_area(triangles: FloatArray) -> float:
    """Twice the area of (F, 3, 3) triangles: the less, the less they overlap."""
    sides = triangles[:, 1:] - triangles[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=-1).sum())


def _project(points: FloatArray, normal: FloatArray) -> FloatArray:
    """(N, 2) coordinates in the plane across `normal`, which then points at the viewer."""
    unit = normal / np.linalg.norm(normal)
    helper = np.eye(3)[np.abs(unit).argmin()]
    right = np.cross(helper, unit)
    right /= np.linalg.norm(right)
    flat: FloatArray = (points - points[0]) @ np.stack([right, np.cross(unit, right)], axis=1)
    return flat
