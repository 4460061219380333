from __future__ import annotations

import numpy as np
import pytest

from tasks.rendering.contact_sheet import render_sheet
from tasks.review.scripted_reviewer import compute_sheet_ious, find_wrong_spots


@pytest.fixture
def shown(table):
    """Sheet of other labels than the true ones, and the truth."""

    def show(labels):
        return render_sheet(table[0], np.asarray(labels, dtype=np.int32), width=384).buffers

    return show


def test_a_right_sheet_needs_no_click_whatever_the_numbers(table, shown):
    renamed = np.array([2, 0, 1])[table[1]]
    buffers = shown(renamed)
    assert (compute_sheet_ious(buffers, table[1]) == 1).all()
    assert find_wrong_spots(buffers, table[1], 10) == []


def test_a_missing_part_is_requested_as_new(table, shown):
    truth = table[1]
    buffers = shown(np.where(truth == 2, 0, truth))
    (spot,) = find_wrong_spots(buffers, truth, 10)
    assert spot.label == "new part"
    assert truth[buffers.face[spot.row, spot.column]] == 2


def test_a_part_cut_in_two_is_joined(table, shown):
    truth = table[1]
    halves = truth.copy()
    halves[np.flatnonzero(truth == 0)[:6]] = 3
    buffers = shown(halves)
    spots = find_wrong_spots(buffers, truth, 10)
    assert len(spots) == 1 and spots[0].label in ("part 0", "part 3")
    message = int(spots[0].label.split()[1])
    assert buffers.part[spots[0].row, spots[0].column] in {0, 3} - {message}


def test_swallowed_faces_are_given_back(table, shown):
    truth = table[1]
    leak = truth.copy()
    leak[np.flatnonzero(truth == 1)[:4]] = 0
    buffers = shown(leak)
    spots = find_wrong_spots(buffers, truth, 10)
    assert [spot.label for spot in spots] == ["part 1"]
    assert truth[buffers.face[spots[0].row, spots[0].column]] == 1


def test_several_missing_parts_get_different_labels_and_the_limit_holds(table, shown):
    truth = table[1]
    buffers = shown(np.zeros_like(truth))
    labels = [spot.label for spot in find_wrong_spots(buffers, truth, 10)]
    assert labels == ["new part", "new part 2"]
    assert len(find_wrong_spots(buffers, truth, 1)) == 1
