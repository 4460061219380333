"""Dual vertices of the active voxels: the point in each voxel that fits the surface best.

Minimises a quadric of three terms: planes of the triangles, lines of the boundary edges (weight
0.2), and a pull (0.01) towards the mean crossing. Sums are kept in float64 and in the voxel's own
coordinates (0..1), where the terms do not cancel as they do in scene coordinates.
"""

# Compiled kernels take what numba infers; their types stand in the docstrings.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, ANN202
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segvigen_model.ovoxel.compiled import compile_jit
from segvigen_model.ovoxel.dual_solve import solve
from segvigen_model.ovoxel.voxel_set import VoxelSet, find_rank, scan_axis
from segvigen_model.types import BoolArray, FloatArray, IntArray

BOUNDARY_WEIGHT = 0.2  # official default
REGULARIZATION = 1e-2  # official default
MIN_EDGE = 1e-6  # unit lengths; shorter boundary edges have no direction


def compute_dual_grid(
    triangles: FloatArray, faces: IntArray, voxels: VoxelSet
) -> tuple[FloatArray, BoolArray]:
    """Place the dual vertices and flag the crossed edges.

    Args:
        triangles: (F, 3, 3) float64, voxel units from the grid's lower corner.
        faces: (F, 3) int64 vertex numbers; edges of one face only are the boundary.
        voxels: the mesh's active voxels.

    Returns:
        (N, 3) float64 dual vertices in 0..1 of their voxel, and (N, 3) bool, far edge along each
        axis crossed.
    """
    num = len(voxels.coords)
    sums = np.zeros((num, 14), dtype=np.float64)
    flags = np.zeros((num, 3), dtype=np.bool_)
    _add_crossings(triangles, voxels.index, sums, flags)
    _add_faces(triangles, voxels.index, sums)
    segments = triangles.reshape(-1, 3)[_find_boundary_corners(faces)]
    _add_boundary(segments, voxels.index, sums, BOUNDARY_WEIGHT)
    dual = np.zeros((num, 3), dtype=np.float64)
    solve(sums, REGULARIZATION, dual)
    return dual, flags


def _find_boundary_corners(faces: IntArray) -> NDArray[np.int64]:
    """Edges used by exactly one face, as (E, 2) numbers of corners (face * 3 + corner)."""
    start = np.arange(faces.size, dtype=np.int64).reshape(-1, 3)
    ends = np.stack([start, np.roll(start, -1, axis=1)], axis=-1).reshape(-1, 2)
    vertices = faces.ravel()[ends]
    keys = vertices.min(axis=1) * (int(faces.max()) + 1) + vertices.max(axis=1)
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    is_new = np.ones(len(ranked) + 1, dtype=np.bool_)
    is_new[1:-1] = ranked[1:] != ranked[:-1]
    return ends[np.sort(order[is_new[:-1] & is_new[1:]])]


@compile_jit
def _add_plane(sums, row, normal, offset):
    sums[row, 4] += normal[0] * normal[0]
    sums[row, 5] += normal[0] * normal[1]
    sums[row, 6] += normal[0] * normal[2]
    sums[row, 7] += normal[1] * normal[1]
    sums[row, 8] += normal[1] * normal[2]
    sums[row, 9] += normal[2] * normal[2]
    sums[row, 10] += normal[0] * offset
    sums[row, 11] += normal[1] * offset
    sums[row, 12] += normal[2] * offset
    sums[row, 13] += offset * offset


@compile_jit
def dot3(a, b):
    """Give the dot product of two (3,) vectors; plain loops compile far faster than array code."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compile_jit
def compute_unit_normal(triangle, normal):
    """Write a triangle's unit normal; zero if it has no area. Gives its length before scaling."""
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        side0, side1 = triangle[1, i] - triangle[0, i], triangle[1, j] - triangle[0, j]
        side2, side3 = triangle[2, i] - triangle[0, i], triangle[2, j] - triangle[0, j]
        normal[k] = side0 * side3 - side1 * side2
    length = np.sqrt(dot3(normal, normal))
    if length > 0.0:
        for k in range(3):
            normal[k] /= length
    return length


@compile_jit
def _add_crossings(triangles, index, sums, flags):
    grid = index.grid
    cells = np.zeros((grid * grid, 3), dtype=np.int64)
    depths = np.zeros(grid * grid, dtype=np.float64)
    normal = np.zeros(3)
    cell = np.zeros(3, dtype=np.int64)
    point = np.zeros(3)
    for face in range(len(triangles)):
        triangle = triangles[face]
        compute_unit_normal(triangle, normal)
        plane = -dot3(normal, triangle[0])
        for axis in range(3):
            across, along = (axis + 1) % 3, (axis + 2) % 3
            for hit in range(scan_axis(triangle, axis, grid, cells, depths)):
                for k in range(3):
                    cell[k] = cells[hit, k]
                point[across] = cell[across] + 1.0
                point[along] = cell[along] + 1.0
                point[axis] = depths[hit]
                for corner in range(4):
                    cell[across] = cells[hit, across] + (corner & 1)
                    cell[along] = cells[hit, along] + (corner >> 1)
                    row = find_rank(index, cell)
                    offset = plane
                    for k in range(3):
                        sums[row, k] += point[k] - cell[k]
                        offset += normal[k] * cell[k]
                    sums[row, 3] += 1.0
                    _add_plane(sums, row, normal, offset)
                    if corner == 0:
                        flags[row, axis] = True


@compile_jit
def _add_faces(triangles, index, sums):
    """Add each triangle's plane once to every active voxel whose closed box it overlaps.

    Conservative separating-axis test: plane against box, then the three projections' edge
    functions. Columns run along the plane's steepest axis, so a column holds few candidates.
    """
    normal = np.zeros(3)
    low, high = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    edge = np.zeros((3, 3, 3))  # projection (by dropped axis), edge, (slope0, slope1, offset)
    cell = np.zeros(3, dtype=np.int64)
    for face in range(len(triangles)):
        triangle = triangles[face]
        if compute_unit_normal(triangle, normal) == 0.0:
            continue
        plane = -dot3(normal, triangle[0])
        near = plane
        far = plane
        deep = 0
        for k in range(3):
            least = min(triangle[0, k], triangle[1, k], triangle[2, k])
            most = max(triangle[0, k], triangle[1, k], triangle[2, k])
            low[k] = max(int(np.floor(least)), 0)
            high[k] = min(int(np.floor(most)), index.grid - 1)
            near += min(normal[k], 0.0)
            far += max(normal[k], 0.0)
            if abs(normal[k]) > abs(normal[deep]):
                deep = k
            _compute_edge_functions(triangle, normal, k, edge[k])
        across, along = (deep + 1) % 3, (deep + 2) % 3
        for i in range(low[across], high[across] + 1):
            for j in range(low[along], high[along] + 1):
                if not _is_inside(edge[deep], i, j):
                    continue
                slope = normal[across] * i + normal[along] * j
                # The plane meets the column between these depths; one cell of slack for rounding.
                end0 = -(slope + near) / normal[deep]
                end1 = -(slope + far) / normal[deep]
                first = max(int(np.floor(min(end0, end1))) - 1, low[deep])
                last = min(int(np.floor(max(end0, end1))) + 1, high[deep])
                for k in range(first, last + 1):
                    level = slope + normal[deep] * k
                    if (level + near) * (level + far) > 0.0:
                        continue
                    if not _is_inside(edge[across], j, k) or not _is_inside(edge[along], k, i):
                        continue
                    cell[across], cell[along], cell[deep] = i, j, k
                    row = find_rank(index, cell)
                    if row >= 0:
                        _add_plane(sums, row, normal, level + plane)


@compile_jit
def _compute_edge_functions(triangle, normal, dropped, edge):
    """Inward edge functions of the projection that drops one axis, grown by a voxel's extent."""
    u, v = (dropped + 1) % 3, (dropped + 2) % 3
    sign = 1.0 if normal[dropped] >= 0 else -1.0
    for start in range(3):
        end = (start + 1) % 3
        slope0 = -(triangle[end, v] - triangle[start, v]) * sign
        slope1 = (triangle[end, u] - triangle[start, u]) * sign
        edge[start, 0] = slope0
        edge[start, 1] = slope1
        inner = slope0 * triangle[start, u] + slope1 * triangle[start, v]
        edge[start, 2] = max(slope0, 0.0) + max(slope1, 0.0) - inner


@compile_jit
def _is_inside(edge, i, j):
    inner0 = edge[0, 0] * i + edge[0, 1] * j + edge[0, 2]
    inner1 = edge[1, 0] * i + edge[1, 1] * j + edge[1, 2]
    inner2 = edge[2, 0] * i + edge[2, 1] * j + edge[2, 2]
    return inner0 >= 0.0 and inner1 >= 0.0 and inner2 >= 0.0


@compile_jit
def _add_boundary(segments, index, sums, weight):
    """Walk each boundary edge through the grid and add its line's quadric to active voxels."""
    cell = np.zeros(3, dtype=np.int64)
    step = np.zeros(3, dtype=np.int64)
    ahead, stride = np.zeros(3), np.zeros(3)
    direction, local = np.zeros(3), np.zeros(3)
    grid = index.grid
    for number in range(len(segments)):
        start, end = segments[number, 0], segments[number, 1]
        for k in range(3):
            direction[k] = end[k] - start[k]
        length = np.sqrt(dot3(direction, direction))
        if length < MIN_EDGE * grid:
            continue
        for k in range(3):
            direction[k] /= length
            cell[k] = int(np.floor(start[k]))
            step[k] = 1 if direction[k] > 0 else -1
            ahead[k], stride[k] = np.inf, np.inf
            if direction[k] != 0.0:
                wall = cell[k] + (1.0 if direction[k] > 0 else 0.0)
                ahead[k] = (wall - start[k]) / direction[k]
                stride[k] = abs(1.0 / direction[k])
        while True:
            is_inside = True
            for k in range(3):
                is_inside = is_inside and 0 <= cell[k] < grid
                local[k] = start[k] - cell[k]
            row = find_rank(index, cell) if is_inside else -1
            if row >= 0:
                _add_line(sums, row, direction, local, weight)
            k = 0
            if ahead[1] < ahead[0]:
                k = 1
            if ahead[2] < ahead[k]:
                k = 2
            if ahead[k] > length:
                break
            cell[k] += step[k]
            ahead[k] += stride[k]


@compile_jit
def _add_line(sums, row, direction, start, weight):
    along = dot3(direction, start)
    entry = 4
    for i in range(3):
        for j in range(i, 3):
            unit = 1.0 if i == j else 0.0
            sums[row, entry] += weight * (unit - direction[i] * direction[j])
            entry += 1
        sums[row, 10 + i] -= weight * (start[i] - direction[i] * along)
    sums[row, 13] += weight * (dot3(start, start) - along * along)
