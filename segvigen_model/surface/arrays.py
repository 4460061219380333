"""Array helpers: dense ids, connected components, sums by id, farthest-point sampling."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from segvigen_model.types import FloatArray, IntArray

TINY = float(np.finfo(np.float64).tiny)


def compute_cell_keys(cells: IntArray) -> IntArray:
    """(N, 3) non-negative int64 cells below 2^21 -> (N,) one int64 key each."""
    keys: IntArray = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
    return keys


def densify_ids(values: IntArray) -> IntArray:
    """Renumber arbitrary integers to 0..K-1 in ascending order of value."""
    ids: IntArray = np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return ids


def label_components(count: int, pairs: IntArray) -> IntArray:
    """Connected components of `count` nodes joined by (E, 2) pairs; (count,) int64 dense ids."""
    graph = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    ids: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)
    return ids


def select_farthest(points: FloatArray, count: int) -> IntArray:
    """Rows of points far from each other: each next one is the farthest from those before.

    Args:
        points: (N, 3), at least one; the first is taken first.
        count: at most so many.
    """
    rows = [0]
    gaps = np.linalg.norm(points - points[0], axis=1)
    while len(rows) < min(count, len(points)):
        rows.append(int(gaps.argmax()))
        gaps = np.minimum(gaps, np.linalg.norm(points - points[rows[-1]], axis=1))
    return np.array(rows)


def sum_by(ids: IntArray, weights: FloatArray, count: int) -> FloatArray:
    """Sum of weights for every id 0..count-1; (count,) float64."""
    sums: FloatArray = np.bincount(ids, weights=weights, minlength=count).astype(np.float64)
    return sums
