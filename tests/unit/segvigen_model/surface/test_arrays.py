"""Array helpers that everything else is built on."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.surface.arrays import select_farthest, take_farthest


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 50), st.integers(0, 39))
def test_farthest_points_are_further_from_each_other_than_others_from_them(
    seed, points, count, first
):
    at = np.random.default_rng(seed).random((points, 3))
    rows = select_farthest(at, count, first % points)
    assert rows[0] == first % points and len(np.unique(rows)) == len(rows) == min(points, count)
    gaps = np.linalg.norm(at[:, None] - at[rows], axis=2)
    if len(rows) > 1:
        between = gaps[rows] + 1e9 * np.eye(len(rows))
        assert gaps.min(axis=1).max() <= between.min() + 1e-12


def test_distances_may_be_weighed_before_the_next_is_taken():
    line = np.array([[0.0], [1.0], [2.0], [10.0]])
    assert select_farthest(line, 2).tolist() == [0, 3]
    weigh = np.array([1.0, 9.0, 9.0, 1.0])
    assert select_farthest(line, 2, weigh=lambda gaps: gaps * weigh).tolist() == [0, 2]


def test_any_metric_continues_from_what_is_taken():
    """On a ring of 8 of which row 0 is taken: the other side first."""
    ring = np.arange(8)

    def distances(row):
        gap = np.abs(ring - row)
        return np.minimum(gap, 8 - gap).astype(float)

    assert take_farthest(distances(0), 3, distances) == [4, 2, 6]
