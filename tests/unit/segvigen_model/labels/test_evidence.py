"""What loose pieces mean to clicks and to parts, and what the chosen mask decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segvigen_model import evidence
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


def as_one_piece(reading):
    """The same reading of an object that nobody knows to have loose pieces."""
    levels = reading.terrain.levels.copy()
    levels[-1] = 0
    return replace(reading, terrain=replace(reading.terrain, levels=levels))


def test_pieces_that_nobody_clicked_are_cut_higher(read, monkeypatch):
    monkeypatch.setattr(evidence, "TRUSTED", 0.0)  # before any mask is chosen
    surface, atoms, reading = read
    pieces = reading.terrain.pieces
    assert np.array_equal(pieces == pieces[0], np.arange(24) < 12)
    as_one = as_one_piece(reading)
    one_click = (np.array([0]), np.array([True]), None)
    probability = part_probability(reading, atoms, surface.areas, *one_click)
    if_one = part_probability(as_one, atoms, surface.areas, *one_click)
    assert np.allclose(probability[:12], if_one[:12])
    inside = (if_one[12:] > 0.0011) & (if_one[12:] < 0.998)  # not held by the range
    assert inside.any() and (probability[12:][inside] < if_one[12:][inside]).all()
    both = (np.array([0, 12]), np.array([True, True]), None)
    clicked = part_probability(reading, atoms, surface.areas, *both)
    assert np.allclose(clicked, part_probability(as_one, atoms, surface.areas, *both))


def test_the_chosen_mask_decides_and_sure_odds_stay(read, monkeypatch):
    surface, atoms, reading = read
    one_click = (np.array([0]), np.array([True]))
    told = []

    def every_third(answer):
        told.append(answer)
        return np.arange(24) % 3 == 0

    monkeypatch.setattr(evidence, "chosen_mask", every_third)
    probability = part_probability(reading, atoms, surface.areas, *one_click, None)
    assert told[0].terrain is reading.terrain
    assert list(told[0].positive) == [0] and len(told[0].negative) == 0
    assert ((reading.blend @ (np.arange(24) % 3 == 0.0) > 0.5) == (probability > 0.5)).all()
    firm = 1 / (1 + np.exp(-evidence.FIRM))
    assert (np.maximum(probability, 1 - probability) > firm - 1e-3).all()


def test_a_small_loose_piece_needs_no_choice(read, monkeypatch):
    surface, atoms, reading = read
    asked = []
    monkeypatch.setattr(evidence, "chosen_mask", lambda answer: asked.append(1) or answer.odds > 0)
    areas = np.where(reading.terrain.pieces == reading.terrain.pieces[0], 0.4, 0.6) / 12
    small = replace(reading, terrain=replace(reading.terrain, areas=areas))
    for clicked, is_asked in ((0, False), (12, True)):
        part_probability(small, atoms, surface.areas, np.array([clicked]), np.array([True]), None)
        assert bool(asked) == is_asked


def test_a_trusted_flow_mask_needs_no_choice(read, monkeypatch):
    surface, atoms, reading = read
    asked = []
    monkeypatch.setattr(evidence, "chosen_mask", lambda answer: asked.append(1) or answer.odds > 0)
    flow = np.where(np.arange(24) < 12, 0.9, 0.1)
    ask = (reading, atoms, surface.areas, np.array([0]), np.array([True]), flow)
    part_probability(*ask, trust=evidence.TRUSTED)
    assert not asked
    part_probability(*ask, trust=evidence.TRUSTED - 0.1)
    assert asked


def test_a_reserve_counts_between_pieces_only(read):
    _, _, reading = read
    plain, reserved = (togetherness(reading, None, reserve=each) for each in (0.0, 0.6))
    pieces = reading.terrain.pieces
    is_same = pieces[:, None] == pieces
    assert np.array_equal(plain[is_same], reserved[is_same])
    odds = [np.log(table / (1 - table)) for table in (plain, reserved)]
    known = ~is_same & (np.abs(odds[0]) < 12)  # beyond, a probability has no digits left
    assert known.any() and np.allclose((odds[0] - odds[1])[known], 0.6, atol=1e-3)
