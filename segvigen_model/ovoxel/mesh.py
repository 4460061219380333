"""From a dual grid back to triangles: one quad round every crossed grid edge, split in two or four.

Faces come in the official order (voxel row, then axis, then half) and are not oriented: the flags
carry no sign.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from segvigen_model.types import FloatArray, IntArray, OVoxel

# The four voxels round the far edge along x, y, z, in the official order.
QUAD_OFFSETS = np.array(
    [
        [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]],
        [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]],
        [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]],
    ],
    dtype=np.int64,
)
SPLIT_02 = np.array([0, 1, 2, 0, 2, 3])
SPLIT_13 = np.array([0, 1, 3, 3, 1, 2])


class Split(StrEnum):
    """How a quad becomes triangles."""

    ANGLE = "angle"  # two, along the diagonal that bends less
    # Two, along 0-2: where the official code lands without weights. It means to choose by angle,
    # but compares each half with itself, so only a degenerate first half changes the diagonal.
    FIXED = "fixed"
    WEIGHT = "weight"  # two, along the diagonal of larger split weights
    TRAIN = "train"  # four round a mid vertex, differentiable in the weights


def ovoxel_to_mesh(
    ovoxel: OVoxel, split_weight: FloatArray | None = None, split: Split = Split.ANGLE
) -> tuple[FloatArray, IntArray]:
    """Extract the surface of an O-Voxel.

    Args:
        ovoxel: coordinates, dual vertices and flags are used.
        split_weight: (N,) float32 > 0 for WEIGHT and TRAIN.
        split: how quads are split.

    Returns:
        (V, 3) float32 vertices, unit frame, and (F, 3) int64 faces. V = N, and one more vertex per
        quad with TRAIN.
    """
    dual = ovoxel.dual.astype(np.float32) / np.float32(255.0)
    return dual_grid_to_mesh(
        ovoxel.coords, dual, ovoxel.intersected, ovoxel.grid, split_weight, split
    )


# The arrays of a dual grid, and how quads are split.
def dual_grid_to_mesh(
    coords: IntArray,
    dual: FloatArray,
    intersected: NDArray[np.bool_],
    grid: int,
    split_weight: FloatArray | None = None,
    split: Split = Split.ANGLE,
) -> tuple[FloatArray, IntArray]:
    """Extract the surface of a dual grid with rows in any order; see `ovoxel_to_mesh`.

    Args:
        coords: (N, 3) int, 0..grid-1, no row twice.
        dual: (N, 3) float32, dual vertex in its voxel, usually 0..1.
        intersected: (N, 3) bool, far edge along each axis crossed.
        grid: voxels along each axis.
        split_weight: (N,) float32, for WEIGHT and TRAIN.
        split: how quads are split.
    """
    vertices = (coords.astype(np.float32) + dual.astype(np.float32)) * np.float32(
        1.0 / grid
    ) - np.float32(0.5)
    quads = find_quads(coords, intersected, grid)
    if split is Split.ANGLE:
        return vertices, _split_by(quads, _is_flatter_along_02(vertices[quads]))
    if split is Split.FIXED:
        return vertices, _split_by(quads, _has_area(vertices[quads]))
    if split_weight is None:
        raise ValueError(f"split {split.value!r} needs split_weight")
    weight = np.asarray(split_weight, dtype=np.float32).reshape(-1)[quads]
    if split is Split.WEIGHT:
        return vertices, _split_by(quads, weight[:, 0] * weight[:, 2] > weight[:, 1] * weight[:, 3])
    return _split_in_four(vertices, quads, weight)


def find_quads(coords: IntArray, intersected: NDArray[np.bool_], grid: int) -> IntArray:
    """List the complete quads: (Q, 4) int64 rows, by voxel row and then axis."""
    cells = np.asarray(coords, dtype=np.int64)
    keys = (cells[:, 0] * grid + cells[:, 1]) * grid + cells[:, 2]
    order = np.argsort(keys)
    ranked = keys[order]
    rows, axes = np.nonzero(intersected)
    corners = cells[rows][:, None, :] + QUAD_OFFSETS[axes]  # (Q, 4, 3)
    wanted = (corners[..., 0] * grid + corners[..., 1]) * grid + corners[..., 2]
    places = np.minimum(np.searchsorted(ranked, wanted), max(len(ranked) - 1, 0))
    is_there = (ranked[places] == wanted) & (corners < grid).all(axis=-1)
    quads: IntArray = order[places][is_there.all(axis=1)]
    return quads


def _split_by(quads: IntArray, is_along_02: NDArray[np.bool_]) -> IntArray:
    faces = np.where(is_along_02[:, None], quads[:, SPLIT_02], quads[:, SPLIT_13])
    return faces.reshape(-1, 3)


def _has_area(corners: FloatArray) -> NDArray[np.bool_]:
    first = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    same = np.cross(corners[:, 2] - corners[:, 1], corners[:, 0] - corners[:, 1])
    is_large: NDArray[np.bool_] = np.abs((first * same).sum(axis=-1)) > 0
    return is_large


def _is_flatter_along_02(corners: FloatArray) -> NDArray[np.bool_]:
    def alignment(split: NDArray[np.int64]) -> FloatArray:
        a, b, c = (corners[:, split[0:3]][:, k] for k in range(3))
        d, e, f = (corners[:, split[3:6]][:, k] for k in range(3))
        first, second = np.cross(b - a, c - a), np.cross(e - d, f - d)
        lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        dots: FloatArray = np.abs((first * second).sum(axis=-1)) / np.maximum(lengths, 1e-30)
        return dots

    is_along: NDArray[np.bool_] = alignment(SPLIT_02) >= alignment(SPLIT_13)
    return is_along


def _split_in_four(
    vertices: FloatArray, quads: IntArray, weight: FloatArray
) -> tuple[FloatArray, IntArray]:
    corners = vertices[quads]
    share_02, share_13 = weight[:, 0] * weight[:, 2], weight[:, 1] * weight[:, 3]
    middle_02 = (corners[:, 0] + corners[:, 2]) * np.float32(0.5)
    middle_13 = (corners[:, 1] + corners[:, 3]) * np.float32(0.5)
    total = (share_02 + share_13)[:, None]
    middle = (share_02[:, None] * middle_02 + share_13[:, None] * middle_13) / total
    hub = len(vertices) + np.arange(len(quads))
    faces = np.stack(
        [np.stack([quads[:, k], quads[:, (k + 1) % 4], hub], axis=1) for k in range(4)], axis=1
    )
    return np.concatenate([vertices, middle]), faces.reshape(-1, 3)
