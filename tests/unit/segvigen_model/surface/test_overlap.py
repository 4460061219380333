"""Shared areas of two labelings, their IoU, and who stands for whom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segvigen_model.surface.overlap import measure_overlap

labelings = hnp.arrays(np.int64, 30, elements=st.integers(-1, 6))
areas = hnp.arrays(float, 30, elements=st.sampled_from([0.0, 0.5, 1.0, 3.0]))


@settings(max_examples=60, deadline=None)
@given(labels=labelings, others=labelings, areas=areas)
def test_iou_is_shared_area_by_joint_area(labels, others, areas):
    overlap = measure_overlap(labels, others, areas)
    assert overlap.rows.tolist() == sorted(set(labels.tolist()))
    assert overlap.columns.tolist() == sorted(set(others.tolist()))
    for row, part in enumerate(overlap.rows):
        for column, other in enumerate(overlap.columns):
            shared = areas[(labels == part) & (others == other)].sum()
            joint = areas[(labels == part) | (others == other)].sum()
            assert overlap.shared[row, column] == pytest.approx(shared)
            assert overlap.iou[row, column] == pytest.approx(shared / joint if joint else 0.0)
    kept = overlap.drop_empty_rows()
    assert set(kept.rows) == {part for part in overlap.rows if areas[labels == part].sum() > 0}
    ious = overlap.compute_matched_ious()
    assert ious.sum() == pytest.approx(overlap.iou[overlap.match_parts()].sum())


def test_a_partner_lies_mostly_inside_or_covers_most():
    """Part 1 has a new part of its own beside a large rest that overlaps it by chance."""
    truth = np.array([0] * 10 + [1] * 6)
    shown = np.array([0] * 10 + [0] * 4 + [2] * 2)
    overlap = measure_overlap(truth, shown, np.ones(16))
    assert overlap.find_partners() == {0: 0, 1: 2}, "2 of 6 faces, all of them inside"
    assert measure_overlap(truth, np.zeros(16, int), np.ones(16)).find_partners() == {0: 0, 1: None}


def test_partners_are_one_to_one():
    truth = np.array([0, 0, 1, 1])
    overlap = measure_overlap(truth, np.array([5, 5, 5, 7]), np.ones(4))
    assert overlap.find_partners() == {0: 5, 1: 7}
    assert overlap.compute_matched_ious() == pytest.approx([2 / 3, 0.5])
