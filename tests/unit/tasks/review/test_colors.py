from __future__ import annotations

import numpy as np
import pytest

from tasks.review.colors import (
    NEW_PART_COLOR,
    NOT_OBJECT_COLOR,
    color_distances,
    hex_color,
    part_colors,
)


def test_a_part_keeps_its_colour_whatever_the_number_of_parts():
    assert np.array_equal(part_colors(50)[:7], part_colors(7))
    assert part_colors(0).shape == (0, 3)
    assert np.array_equal(part_colors(300)[256], part_colors(1)[0])


# CIE76: 2.3 is the smallest difference that people see side by side.
@pytest.mark.parametrize(("num_parts", "least"), [(2, 40), (8, 16), (16, 12), (50, 7)])
def test_colours_are_told_apart_by_every_kind_of_eyes(num_parts, least):
    gaps = color_distances(part_colors(num_parts))
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() > least


def test_special_labels_look_like_no_part():
    special = np.array([NEW_PART_COLOR, NOT_OBJECT_COLOR], dtype=np.uint8)
    gaps = color_distances(np.concatenate([special, part_colors(50)]))
    assert gaps[:2, 2:].min() > 10


def test_hex():
    assert hex_color((255, 0, 16)) == "#ff0010"
