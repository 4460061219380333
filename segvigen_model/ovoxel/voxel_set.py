"""Which voxels a triangle mesh touches, and a compact set of them with constant-time lookup.

A voxel is active when one of the four grid edges' cells round a crossing is it: each triangle is
scanned along the three axes, line by line, exactly as the official converter does, in double
precision and voxel units. The set is one bit per voxel plus a running count per word, so rows
come out in ascending (x, y, z) order without sorting and a 1024 grid fits in 270 MB.
"""

# Compiled kernels take what numba infers; their types stand in the docstrings.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, ANN202
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.ovoxel.compiled import compile_jit
from segvigen_model.types import (
    BoolArray,
    ByteArray,
    FloatArray,
    IntArray,
)

MAX_CROSSINGS = 400_000_000  # about a minute of work; layered meshes stay far below


class VoxelIndex(NamedTuple):
    """A set of voxels as the kernels read it (numba takes named tuples, not dataclasses).

    Attributes:
        grid: voxels along each axis.
        words: (W,) uint32 bit set, 32 voxels a word, linear index (x * grid + y) * grid + z.
        before: (W,) int32, active voxels before each word.
    """

    grid: int
    words: NDArray[np.uint32]
    before: NDArray[np.int32]


@compile_jit
def _interpolate(start, end, at, low, high):
    if start == end:
        return low
    share = (at - start) / (end - start)
    return (1.0 - share) * low + share * high


@compile_jit
def scan_axis(triangle, axis, grid, cells, depths):
    """List where a triangle crosses the grid edges along one axis.

    Args:
        triangle: (3, 3) float64, voxel units from the grid's lower corner.
        axis: 0..2, direction of the edges.
        grid: voxels along each axis.
        cells: (grid^2, 3) int64 out, the lowest of the four voxels round each crossed edge.
        depths: (grid^2,) float64 out, the crossing's coordinate along `axis`.

    Returns:
        Number of crossings.
    """
    across, along = (axis + 1) % 3, (axis + 2) % 3
    a, b, c = 0, 1, 2  # corners by rising coordinate `along`
    if triangle[a, along] > triangle[b, along]:
        a, b = b, a
    if triangle[b, along] > triangle[c, along]:
        b, c = c, b
        if triangle[a, along] > triangle[b, along]:
            a, b = b, a
    last = grid - 1
    first_row = min(max(int(triangle[a, along]), 0), last)
    middle_row = min(max(int(triangle[b, along]), 0), last)
    last_row = min(max(int(triangle[c, along]), 0), last)
    count = 0
    for row in range(first_row, last_row):
        line = row + 1.0
        # Below the middle corner both sides start at the lowest corner, above it at the highest.
        tip, far = (a, c) if row < middle_row else (c, a)
        y0, y1, y2 = triangle[tip, along], triangle[b, along], triangle[far, along]
        x0 = _interpolate(y0, y1, line, triangle[tip, across], triangle[b, across])
        x1 = _interpolate(y0, y2, line, triangle[tip, across], triangle[far, across])
        z0 = _interpolate(y0, y1, line, triangle[tip, axis], triangle[b, axis])
        z1 = _interpolate(y0, y2, line, triangle[tip, axis], triangle[far, axis])
        if x0 > x1:
            x0, x1, z0, z1 = x1, x0, z1, z0
        first = min(max(int(x0), 0), last)
        stop = min(max(int(x1), 0), last)
        for column in range(first, stop):
            depth = _interpolate(x0, x1, column + 1.0, z0, z1)
            cell = int(depth)
            if 0 <= cell < grid:
                cells[count, across] = column
                cells[count, along] = row
                cells[count, axis] = cell
                depths[count] = depth
                count += 1
    return count


@compile_jit
def _mark_voxels(triangles, grid, words, limit):
    cells = np.zeros((grid * grid, 3), dtype=np.int64)
    depths = np.zeros(grid * grid, dtype=np.float64)
    steps = np.array([grid * grid, grid, 1], dtype=np.int64)
    total = 0
    for face in range(len(triangles)):
        for axis in range(3):
            count = scan_axis(triangles[face], axis, grid, cells, depths)
            total += count
            step0, step1 = steps[(axis + 1) % 3], steps[(axis + 2) % 3]
            for row in range(count):
                base = cells[row, 0] * steps[0] + cells[row, 1] * steps[1] + cells[row, 2]
                for corner in range(4):
                    voxel = base + (corner & 1) * step0 + (corner >> 1) * step1
                    words[voxel >> 5] |= np.uint32(1) << np.uint32(voxel & 31)
        if total > limit:
            return -1
    return total


@compile_jit
def _count_bits(word):
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) & 0xFFFFFFFF) >> 24


@compile_jit
def find_rank(index, cell):
    """Give the row of the voxel with coordinates `cell` (3,), or -1 if it is not active."""
    voxel = (cell[0] * index.grid + cell[1]) * index.grid + cell[2]
    word = np.int64(index.words[voxel >> 5])
    bit = voxel & 31
    if (word >> bit) & 1 == 0:
        return -1
    return np.int64(index.before[voxel >> 5]) + _count_bits(word & ((1 << bit) - 1))


@compile_jit
def _count_before(words, before):
    total = 0
    for index in range(len(words)):
        before[index] = total
        total += _count_bits(np.int64(words[index]))
    return total


@compile_jit
def _list_coords(words, grid, coords):
    row = 0
    for index in range(len(words)):
        word = np.int64(words[index])
        if word == 0:
            continue
        for bit in range(32):
            if (word >> bit) & 1:
                voxel = index * 32 + bit
                coords[row, 0] = voxel // (grid * grid)
                coords[row, 1] = (voxel // grid) % grid
                coords[row, 2] = voxel % grid
                row += 1


@dataclass(frozen=True, slots=True)
class VoxelSet:
    """The active voxels of one mesh.

    Attributes:
        index: look-up from voxel to row.
        coords: (N, 3) int32, ascending (x, y, z).
    """

    index: VoxelIndex
    coords: IntArray


def find_voxels(triangles: FloatArray, grid: int, max_crossings: int = MAX_CROSSINGS) -> VoxelSet:
    """Find the active voxels.

    Args:
        triangles: (F, 3, 3) float64, voxel units from the grid's lower corner.
        grid: voxels along each axis, 1..1024.
        max_crossings: refuse a mesh that crosses more grid edges.
    """
    check_grid(grid)
    num_words = (grid**3 + 31) // 32
    words = np.zeros(num_words, dtype=np.uint32)
    before = np.zeros(num_words, dtype=np.int32)
    if _mark_voxels(triangles, grid, words, max_crossings) < 0:
        raise make_too_dense_error(grid, max_crossings)
    coords = np.zeros((_count_before(words, before), 3), dtype=np.int32)
    _list_coords(words, grid, coords)
    return VoxelSet(VoxelIndex(grid, words, before), coords)


def check_grid(grid: int) -> None:
    """Raise ValueError for a grid that the index cannot hold."""
    if not 1 <= grid <= 1024:
        raise ValueError(f"grid {grid} is not in 1..1024")


def make_too_dense_error(grid: int, max_crossings: int) -> AssetRejected:
    """Make the error for a mesh that would take too long."""
    return AssetRejected(
        "too_dense",
        f"the mesh crosses a {grid}^3 grid more than {max_crossings} times; remove hidden "
        "layers or decimate it",
    )


class VoxelAttributes(NamedTuple):
    """What both backends give.

    Attributes:
        coords: (N, 3) int32, ascending (x, y, z).
        dual: (N, 3) float64, 0..1 of the voxel.
        intersected: (N, 3) bool.
        attributes: base_color, emissive, normal: (N, 3) uint8; metallic, roughness, alpha: (N,).
    """

    coords: IntArray
    dual: FloatArray
    intersected: BoolArray
    attributes: dict[str, ByteArray]
