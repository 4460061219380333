"""Masks to choose from hold every click; what is told of them is right; the best score wins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model import mask_choice
from segvigen_model.atoms import Atoms
from segvigen_model.mask_choice import (
    NUM_MEASURES,
    ChoiceNetwork,
    chosen_mask,
    load_choice_network,
    measure_masks,
    propose_masks,
    terrain_of,
)

NONE = np.zeros(0, np.int64)


def terrain_by(rng: np.random.Generator, count: int):
    """A random object: patches on a line with some further contacts."""
    areas = rng.random(count) + 0.01
    line = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
    more = np.sort(rng.integers(0, count, (count // 3, 2)), axis=1)
    pairs = np.concatenate([line, more[more[:, 0] < more[:, 1]]]).astype(np.int64)
    same = np.ones(len(pairs))
    odds = rng.normal(0, 3, (count, count))
    together = 1 / (1 + np.exp(-(odds + odds.T)))
    atoms = Atoms(np.arange(count), areas / areas.sum(), pairs, same, same, "patches")
    return terrain_of(atoms, together)


def question(seed: int, count: int):
    """Terrain, odds, cut, positive and negative patches."""
    rng = np.random.default_rng(seed)
    terrain = terrain_by(rng, count)
    odds = rng.normal(0, 10.0 ** rng.integers(-2, 3), count)
    clicked = rng.permutation(count)[: rng.integers(1, min(count, 12) + 1)]
    split = rng.integers(1, len(clicked) + 1)
    return terrain, odds, float(rng.uniform(0.1, 0.4)), clicked[:split], clicked[split:]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_every_mask_holds_every_click_and_is_measured(seed, count):
    terrain, odds, cut, positive, negative = question(seed, count)
    found = propose_masks(terrain, odds, cut, positive, negative)
    assert found.masks[:, positive].all() and not found.masks[:, negative].any()
    assert len(np.unique(found.masks, axis=0)) == len(found.masks)
    plain = odds > np.log(cut / (1 - cut))
    plain[positive], plain[negative] = True, False
    assert (found.masks[0] == plain).all()
    told = measure_masks(terrain, odds, cut, positive, negative, found)
    assert told.shape == (len(found.masks), NUM_MEASURES) and np.isfinite(told).all()
    mask = chosen_mask(terrain, odds, cut, positive, negative)
    assert (found.masks == mask).all(axis=1).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_measures_are_what_they_are_called(seed, count):
    terrain, odds, cut, positive, negative = question(seed, count)
    found = propose_masks(terrain, odds, cut, positive, negative)
    told = measure_masks(terrain, odds, cut, positive, negative, found)
    chance = 1 / (1 + np.exp(-odds))
    for mask, row in zip(found.masks, told, strict=True):
        ids, rest = np.flatnonzero(mask), np.flatnonzero(~mask)
        size = sum(terrain.areas[i] for i in ids)
        hit = sum(terrain.areas[i] * chance[i] for i in ids)
        claimed = float(terrain.areas @ chance)
        assert row[:3] == pytest.approx([np.log(size), size, hit / size], abs=1e-4)
        assert row[4] == pytest.approx(hit / (size + claimed - hit), abs=1e-4)
        cut_once = odds > np.log(cut / (1 - cut))
        cut_once[positive] = True
        shared = terrain.areas[mask & cut_once].sum()
        assert row[5 + 3] == pytest.approx(shared / terrain.areas[mask | cut_once].sum(), abs=1e-4)
        border = [terrain.together[i, j] for i, j in terrain.pairs if mask[i] != mask[j]]
        assert row[12] == pytest.approx(np.mean(border) if border else 0.0, abs=1e-4)
        bond = {
            i: sum(terrain.areas[j] * terrain.together[i, j] for j in ids) for i in range(count)
        }
        inner = sum(terrain.areas[i] * bond[i] for i in ids) / size**2
        assert row[20] == pytest.approx(inner, abs=1e-4)
        assert row[22] == pytest.approx(min(bond[i] for i in ids) / size, abs=1e-4)
        nearest = max(bond[i] for i in rest) / size if len(rest) else -1.0
        assert row[23] == pytest.approx(nearest, abs=1e-4)
        refused = terrain.together[negative].mean(axis=0) if len(negative) else np.zeros(count)
        inner = sum(terrain.areas[i] * refused[i] for i in ids) / size
        assert row[24] == pytest.approx(inner, abs=1e-4)


def test_groups_are_nested_and_follow_what_belongs_together():
    terrain = terrain_by(np.random.default_rng(3), 30)
    counts = [len(np.unique(ids)) for ids in terrain.groups]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    for fine, coarse in zip(terrain.groups, terrain.groups[1:], strict=False):
        assert len(np.unique(np.stack([fine, coarse]), axis=1)[0]) == len(np.unique(fine))


def test_the_order_of_patches_does_not_matter():
    terrain, odds, cut, positive, negative = question(11, 30)
    mask = chosen_mask(terrain, odds, cut, positive, negative)
    order = np.random.default_rng(0).permutation(30)
    place = np.argsort(order)
    same = np.ones(len(terrain.pairs))
    pairs = np.sort(place[terrain.pairs], axis=1)
    atoms = Atoms(np.arange(30), terrain.areas[order], pairs, same, same, "patches")
    moved = terrain_of(atoms, terrain.together[np.ix_(order, order)])
    again = chosen_mask(moved, odds[order], cut, place[positive], place[negative])
    assert (again == mask[order]).all()


def test_the_best_score_wins(monkeypatch):
    terrain, odds, cut, positive, _ = question(5, 30)

    class Largest(ChoiceNetwork):
        def forward(self, measures):
            return measures[:, 1]

    monkeypatch.setattr(mask_choice, "load_choice_network", Largest)
    found = propose_masks(terrain, odds, cut, positive, NONE)
    mask = chosen_mask(terrain, odds, cut, positive, NONE)
    assert mask @ terrain.areas == pytest.approx((found.masks @ terrain.areas).max())


def test_the_shipped_network_prefers_the_clear_answer():
    """Two halves that nothing joins, and odds that say the same."""
    halves = np.arange(40) < 20
    pairs = np.stack([np.arange(39), np.arange(1, 40)], axis=1)
    same = np.ones(39)
    atoms = Atoms(np.arange(40), np.full(40, 1 / 40), pairs, same, same, "patches")
    terrain = terrain_of(atoms, np.where(halves[:, None] == halves, 0.98, 0.02))
    odds = np.where(halves, 4.0, -4.0)
    assert (chosen_mask(terrain, odds, 0.12, np.array([3]), NONE) == halves).all()
    assert load_choice_network().mean.any()
    assert torch.isfinite(
        torch.cat([p.flatten() for p in load_choice_network().parameters()])
    ).all()
