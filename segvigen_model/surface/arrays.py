"""Array helpers: dense ids, connected components, sums by id, farthest-point sampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from segvigen_model.types import FloatArray, IntArray

TINY = float(np.finfo(np.float64).tiny)


KEY_LIMIT = 2**21  # cells along each axis that one key holds


def compute_cell_keys(cells: IntArray) -> IntArray:
    """(N, 3) non-negative int64 cells below KEY_LIMIT -> (N,) one int64 key each."""
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


def select_farthest(
    points: FloatArray,
    count: int,
    first: int = 0,
    weigh: Callable[[FloatArray], FloatArray] | None = None,
) -> IntArray:
    """Rows of points far from each other: each next one is the farthest from those before.

    Args:
        points: (N, D), at least one.
        count: at most so many.
        first: row that is taken first.
        weigh: (N,) distances to those taken -> what the next one is the greatest of.
    """

    def distances(row: int) -> FloatArray:
        gaps: FloatArray = np.linalg.norm(points - points[row], axis=1)
        return gaps

    others = take_farthest(distances(first), min(count, len(points)) - 1, distances, weigh)
    return np.array([first, *others])


def take_farthest(
    gaps: FloatArray,
    count: int,
    distances: Callable[[int], FloatArray],
    weigh: Callable[[FloatArray], FloatArray] | None = None,
) -> list[int]:
    """Farthest-point sampling in any metric.

    Args:
        gaps: (N,) distance of each point to the nearest of those that are taken already.
        count: rows wanted.
        distances: row -> (N,) distances to it.
        weigh: as in `select_farthest`.

    Returns:
        Rows in the order taken.
    """
    rows: list[int] = []
    for _ in range(count):
        rows.append(int((gaps if weigh is None else weigh(gaps)).argmax()))
        gaps = np.minimum(gaps, distances(rows[-1]))
    return rows


def find_typical_size(sizes: FloatArray) -> float:
    """Return the size of the pieces that make up the middle of the whole.

    Args:
        sizes: (N,) sizes >= 0 of all pieces.

    Returns:
        The largest size such that half of the whole lies in pieces at least that large; 0 for none.
    """
    if not len(sizes):
        return 0.0
    descending = np.sort(sizes)[::-1]
    held = np.cumsum(descending)
    return float(descending[min(int(np.searchsorted(held, held[-1] / 2)), len(sizes) - 1)])


def sum_by(ids: IntArray, weights: FloatArray, count: int) -> FloatArray:
    """Sum of weights for every id 0..count-1; (count,) float64."""
    sums: FloatArray = np.bincount(ids, weights=weights, minlength=count).astype(np.float64)
    return sums
