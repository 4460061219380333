"""Where a patch answer is corrected: in the middle of what is most wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segvigen_model.training import patch_data
from segvigen_model.training.click_sampling import MIN_ERROR_SHARE, find_correction

TARGET = np.repeat([0.0, 1.0], [8, 12])  # of a row of twenty patches


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """Twenty patches of one area in a row."""
    path = tmp_path_factory.mktemp("patches") / "train-00000.npz"
    patch_data.make_file(path, range(1), patch_data.ExampleOptions(counts=(30, 40)))
    example = next(iter(patch_data.read_file(path)))
    centers = np.stack([np.arange(20.0), np.zeros(20), np.zeros(20)], axis=1)
    features = replace(example.features, centers=centers, areas=np.ones(20))
    pairs = np.stack([np.arange(19), np.arange(1, 20)], axis=1)
    return replace(example, features=features, pairs=pairs.astype(np.uint16))


def mask_of(*ids):
    return np.isin(np.arange(20), ids)


def test_the_middle_of_what_is_missing(row):
    # patches 12 to 19 are missing; 19 is the end of the row and furthest from the border
    assert find_correction(row, TARGET, mask_of(*range(8, 12))) == 19
    # 10 to 16 are missing, with a right patch on either side
    assert find_correction(row, TARGET, mask_of(8, 9, 17, 18, 19)) == 13


def test_the_larger_wrong_region_is_first_and_kinds_do_not_join(row):
    # 5, 6, 7 are too much; 8, 9 beside them are missing
    assert find_correction(row, TARGET, mask_of(5, 6, 7, *range(10, 20))) == 6
    small = replace(row, features=replace(row.features, areas=np.where(TARGET > 0, 5.0, 1.0)))
    assert find_correction(small, TARGET, mask_of(5, 6, 7, *range(10, 20))) in (8, 9)


def test_nothing_to_correct(row):
    assert find_correction(row, TARGET, TARGET > 0) is None
    nearly = np.where(TARGET > 0, 1 - 0.9 * MIN_ERROR_SHARE, 0.9 * MIN_ERROR_SHARE)
    assert find_correction(row, nearly, TARGET > 0) is None


def test_all_missing_is_clicked_where_the_most_is(row):
    areas = np.ones(20)
    areas[15] = 2.0
    large = replace(row, features=replace(row.features, areas=areas))
    assert find_correction(large, np.ones(20), mask_of()) == 15
