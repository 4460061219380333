from __future__ import annotations

import numpy as np
import pytest

from tasks.labelling.part_colors import (
    NEW_PART_COLOR,
    NOT_OBJECT_COLOR,
    assign_part_colors,
    compute_color_distances,
    find_part_neighbours,
    format_hex_color,
    spread_slots,
)


def test_a_part_keeps_its_colour_whatever_the_number_of_parts():
    assert np.array_equal(assign_part_colors(50)[:7], assign_part_colors(7))
    assert assign_part_colors(0).shape == (0, 3)
    assert np.array_equal(assign_part_colors(300)[256], assign_part_colors(1)[0])


# CIE76: 2.3 is the smallest difference that people see side by side.
@pytest.mark.parametrize(("num_parts", "least"), [(2, 40), (8, 16), (16, 12), (50, 7)])
def test_colours_can_be_distinguished_by_every_kind_of_eyes(num_parts, least):
    gaps = compute_color_distances(assign_part_colors(num_parts))
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() > least


@pytest.fixture(scope="module")
def wall(make_mesh):
    """49 touching boxes in a square."""
    return make_mesh([((1, 1, 1), (x, y, 0)) for x in range(7) for y in range(7)])


def test_neighbours_in_space_get_clearly_different_colours(wall):
    mesh, labels = wall
    near = find_part_neighbours(mesh, labels)
    assert near[24] >= {17, 23, 25, 31}, "the middle box touches four"
    assert 48 not in near[0]

    def least(slots) -> float:
        gaps = compute_color_distances(assign_part_colors(49, slots))
        return min(gaps[part, other] for part in range(49) for other in near[part])

    slots = spread_slots(mesh, labels, [-1] * 49)
    assert sorted(slots) == list(range(49))
    assert least(slots) > 18 > 1.5 * least(range(49))


def test_chosen_colours_stay_and_new_parts_get_free_ones(wall):
    mesh, labels = wall
    slots = spread_slots(mesh, labels, [-1] * 49)
    slots[10] = slots[30] = -1
    again = spread_slots(mesh, labels, slots)
    assert [slot for slot, old in zip(again, slots, strict=True) if old >= 0] == [
        old for old in slots if old >= 0
    ]
    assert len(set(again)) == 49
    assert spread_slots(mesh, np.minimum(labels, 4), [-1] * 5) == [0, 1, 2, 3, 4]


def test_more_parts_than_colours_start_over(make_mesh):
    mesh, labels = make_mesh([((0.5, 0.5, 0.5), (x, 0, 0)) for x in range(300)])
    slots = spread_slots(mesh, labels, [-1] * 300)
    assert sorted(slots) == list(range(300))
    assert assign_part_colors(300, slots).shape == (300, 3)


def test_special_labels_resemble_no_part():
    special = np.array([NEW_PART_COLOR, NOT_OBJECT_COLOR], dtype=np.uint8)
    gaps = compute_color_distances(np.concatenate([special, assign_part_colors(50)]))
    assert gaps[:2, 2:].min() > 10


def test_hex():
    assert format_hex_color((255, 0, 16)) == "#ff0010"
