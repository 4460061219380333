"""What loose pieces mean to clicks and to parts: those that nobody clicked need more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segvigen_model.atoms import patch_atoms
from segvigen_model.evidence import part_probability, read_patches, togetherness
from segvigen_model.geometry import surface_of
from segvigen_model.segments import segment_tree


@pytest.fixture
def read(two_boxes):
    """Surface, atoms and reading of two boxes; faces are patches, the first twelve one box."""
    surface = surface_of(two_boxes)
    tree = segment_tree(surface)
    atoms = patch_atoms(surface, tree)
    return surface, atoms, read_patches(surface, tree, atoms)


def test_pieces_that_nobody_clicked_are_cut_higher(read):
    surface, atoms, reading = read
    assert np.array_equal(reading.pieces == reading.pieces[0], np.arange(24) < 12)
    as_one = replace(reading, pieces=np.zeros(24, int))
    one_click = (np.array([0]), np.array([True]), None)
    probability = part_probability(reading, atoms, surface.areas, *one_click)
    if_one = part_probability(as_one, atoms, surface.areas, *one_click)
    assert np.allclose(probability[:12], if_one[:12])
    inside = (if_one[12:] > 0.0011) & (if_one[12:] < 0.998)  # not held by the range
    assert inside.any() and (probability[12:][inside] < if_one[12:][inside]).all()
    both = (np.array([0, 12]), np.array([True, True]), None)
    clicked = part_probability(reading, atoms, surface.areas, *both)
    assert np.allclose(clicked, part_probability(as_one, atoms, surface.areas, *both))


def test_a_reserve_counts_between_pieces_only(read):
    _, _, reading = read
    plain, reserved = (togetherness(reading, None, reserve=each) for each in (0.0, 0.6))
    is_same = reading.pieces[:, None] == reading.pieces
    assert np.array_equal(plain[is_same], reserved[is_same])
    odds = [np.log(table / (1 - table)) for table in (plain, reserved)]
    known = ~is_same & (np.abs(odds[0]) < 12)  # beyond, a probability has no digits left
    assert known.any() and np.allclose((odds[0] - odds[1])[known], 0.6, atol=1e-3)
