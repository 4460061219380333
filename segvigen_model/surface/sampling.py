"""Sample points on faces, and find groups of faces that touch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segvigen_model.surface.arrays import compute_cell_keys, densify_ids
from segvigen_model.types import FloatArray, IntArray

MAX_SAMPLES = 2_000_000  # bound on sample points of one asset, 48 MB of positions


# R2 low-discrepancy steps (plastic number), so that samples of one face are well spread.
_STEP_U, _STEP_V = 0.7548776662466927, 0.5698402909980532


def sample_faces(triangles: FloatArray, areas: FloatArray, spacing: float) -> SamplePoints:
    """Spread points over every face, about one per spacing^2, at least one per face.

    The points do not depend on any random state. The spacing is widened where more than
    MAX_SAMPLES points would result.

    Args:
        triangles: (F, 3, 3) float64 corners.
        areas: (F,) float64 face areas in the same frame.
        spacing: wanted distance between points, > 0.

    Returns:
        The sample points with their faces and area weights.
    """
    counts = np.ones(len(areas), np.int64)
    while True:
        wanted = np.maximum(np.ceil(areas / spacing**2), 1)
        if wanted.sum() <= max(MAX_SAMPLES, len(areas)) or spacing**2 > areas.sum():
            counts = wanted.astype(np.int64)
            break
        spacing *= 1.5
    face = np.repeat(np.arange(len(areas)), counts)
    rank = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    u, v = _spread(rank, np.repeat(counts, counts))
    weights = np.stack([1 - u - v, u, v], axis=1)
    xyz = np.einsum("sc,scd->sd", weights, triangles[face])
    return SamplePoints(face=face, xyz=xyz, weight=(areas / counts)[face])


@dataclass(frozen=True, slots=True)
class SamplePoints:
    """Points on a surface.

    Attributes:
        face: (S,) int64 face of each point, ascending.
        xyz: (S, 3) float64 position, frame of the triangles.
        weight: (S,) float64 area that the point stands for.
    """

    face: IntArray
    xyz: FloatArray
    weight: FloatArray


def find_contacts(
    points: SamplePoints, groups: IntArray, cell: float
) -> tuple[IntArray, FloatArray]:
    """Find groups of faces that come within about a cell of each other.

    Args:
        points: surface samples, denser than `cell`.
        groups: (F,) int64 group of every face.
        cell: edge of the hashing cell, frame of the points.

    Returns:
        (C, 2) int64 pairs of groups, lower id first, and (C,) float64 shared length, estimated
        as one cell edge for every cell that both groups occupy.
    """
    found: list[IntArray] = []
    low = points.xyz.min(axis=0)
    owner = groups[points.face]
    count = int(groups.max(initial=0)) + 1
    for shift in (0.0, 0.5):  # two staggered hashes: a contact on a cell wall is seen by one
        cells = np.floor((points.xyz - low) / cell + shift).astype(np.int64)
        found.append(_find_shared_cells(compute_cell_keys(cells), owner, count))
    keys, times = np.unique(np.concatenate(found), return_counts=True)
    return np.stack([keys // count, keys % count], axis=1), times * (0.5 * cell)


def _find_shared_cells(cell: IntArray, group: IntArray, count: int) -> IntArray:
    """Keys low * count + high of the groups that share a cell, once per cell."""
    rows = np.unique(densify_ids(cell) * count + group)
    cells, groups = rows // count, rows % count  # ascending, so pairs come out low id first
    shared_keys = [np.zeros(0, np.int64)]
    for step in (1, 2, 3):  # up to four groups of one cell are all paired
        same = cells[step:] == cells[:-step]
        shared_keys.append(groups[:-step][same] * count + groups[step:][same])
    return np.concatenate(shared_keys)


def _spread(rank: IntArray, count: IntArray) -> tuple[FloatArray, FloatArray]:
    """Barycentric (u, v) of sample `rank` of `count`; a single sample is the centroid."""
    u, v = (0.5 + rank * _STEP_U) % 1.0, (0.5 + rank * _STEP_V) % 1.0
    beyond = u + v > 1
    u, v = np.where(beyond, 1 - u, u), np.where(beyond, 1 - v, v)
    single = count == 1
    return np.where(single, 1 / 3, u), np.where(single, 1 / 3, v)
