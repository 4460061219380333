"""Masks to choose from hold every click; what is told of them is right; the best score wins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.config import MaskProposalConfig, MaskSelectionConfig
from segvigen_model.interactive import mask_proposals, mask_selector
from segvigen_model.interactive.mask_features import NUM_MEASURES, measure_masks
from segvigen_model.interactive.mask_proposals import (
    Answer,
    clicked_share,
    propose_masks,
    terrain_of,
)
from segvigen_model.interactive.mask_selector import (
    ChoiceNetwork,
    chosen_mask,
    is_choice,
    load_choice_network,
)
from segvigen_model.surface.adjacency import Atoms
from segvigen_model.surface.patch_features import PatchFacts

NUM_LEVELS = 9
PROPOSALS = MaskProposalConfig()
NONE = np.zeros(0, np.int64)
LOOKING = NUM_MEASURES - 10  # first measure of what looks say together


def facts_of(centers, normals, areas, levels) -> PatchFacts:
    count = len(areas)
    ids = np.zeros(count, np.int32)
    ways, scalars = np.zeros((count, count), np.float32), np.zeros((count, 34), np.float32)
    return PatchFacts(centers, normals, areas, levels, ids, ways, scalars)


def object_by(rng: np.random.Generator, count: int):
    """A random object: patches on a line with some further contacts, in some loose pieces."""
    areas = rng.random(count) + 0.01
    line = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
    more = np.sort(rng.integers(0, count, (count // 3, 2)), axis=1)
    pairs = np.concatenate([line, more[more[:, 0] < more[:, 1]]]).astype(np.int64)
    same = np.ones(len(pairs))
    odds = rng.normal(0, 3, (count, count))
    together = 1 / (1 + np.exp(-(odds + odds.T)))
    atoms = Atoms(np.arange(count), areas / areas.sum(), pairs, same, same, "patches")
    levels = [rng.integers(0, rng.integers(1, count + 1), count) for _ in range(NUM_LEVELS)]
    centers, normals = rng.normal(0, 1, (2, count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return atoms, together, facts_of(centers, normals, atoms.areas, np.stack(levels))


def whole_answer(terrain, odds, positive, negative=NONE) -> Answer:
    """Of the only look, which shows everything."""
    return Answer(terrain, odds, positive, negative, odds, np.zeros(len(odds), bool), 1.0)


def answer_by(seed: int, count: int) -> Answer:
    """A random answer of a closer look."""
    rng = np.random.default_rng(seed)
    terrain = terrain_of(*object_by(rng, count), PROPOSALS)
    odds = rng.normal(0, 10.0 ** rng.integers(-2, 3), count)
    clicked = rng.permutation(count)[: rng.integers(1, min(count, 12) + 1)]
    split = rng.integers(1, len(clicked) + 1)
    shared = odds + rng.normal(0, 2, count)
    rim = rng.random(count) < 0.2
    clicks = clicked[:split], clicked[split:]
    return Answer(terrain, odds, *clicks, shared, rim, float(rng.uniform(0.05, 1)))


def chosen(answer: Answer):
    """What is chosen where there is one look."""
    number, mask = chosen_mask([answer])
    assert number == 0
    return mask


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_every_mask_holds_every_click_and_is_measured(seed, count):
    answer = answer_by(seed, count)
    found = propose_masks(answer)
    assert found.masks[:, answer.positive].all() and not found.masks[:, answer.negative].any()
    assert len(np.unique(found.masks, axis=0)) == len(found.masks)
    told = measure_masks(answer, found)
    assert told.shape == (len(found.masks), NUM_MEASURES) and np.isfinite(told).all()
    assert (found.masks == chosen(answer)).all(axis=1).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_touching_pieces_are_what_clicks_reach_inside_each_mask(seed, count):
    answer = answer_by(seed, count)
    masks = np.random.default_rng(seed).random((3, count)) < 0.6
    masks[:, answer.positive] = True
    found = mask_proposals._touching(answer.terrain, masks, answer.positive)
    for mask, reached in zip(masks, found, strict=True):
        expected = np.zeros(count, bool)
        expected[answer.positive] = True
        for _ in range(count):
            for left, right in answer.terrain.pairs:
                if mask[left] and mask[right] and expected[left] != expected[right]:
                    expected[[left, right]] = True
        assert np.array_equal(reached, expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_plain_mask_is_first_and_cut_higher_in_pieces_that_nobody_clicked(seed, count):
    answer = answer_by(seed, count)
    plain = propose_masks(answer).masks[0]
    chance = 1 / (1 + np.exp(-answer.odds))
    pieces, clicked = answer.terrain.pieces, set(answer.terrain.pieces[answer.positive])
    for patch in range(count):
        cut = answer.cut if pieces[patch] in clicked else PROPOSALS.cut_elsewhere
        is_in = (chance[patch] > cut or patch in answer.positive) and patch not in answer.negative
        assert plain[patch] == is_in
    assert answer.cut <= PROPOSALS.cut_elsewhere


def test_a_patch_that_is_both_counts_as_positive():
    answer = answer_by(5, 20)
    both = replace(answer, positive=np.array([3, 4]), negative=np.array([4, 5]))
    masks = propose_masks(both).masks
    assert masks[:, [3, 4]].all() and not masks[:, 5].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_measures_are_what_they_are_called(seed, count):
    answer = answer_by(seed, count)
    terrain, odds, cut = answer.terrain, answer.odds, answer.cut
    found = propose_masks(answer)
    told = measure_masks(answer, found)
    chance = 1 / (1 + np.exp(-odds))
    for mask, row in zip(found.masks, told, strict=True):
        ids, rest = np.flatnonzero(mask), np.flatnonzero(~mask)
        size = sum(terrain.areas[i] for i in ids)
        hit = sum(terrain.areas[i] * chance[i] for i in ids)
        claimed = float(terrain.areas @ chance)
        assert row[:3] == pytest.approx([np.log(size), size, hit / size], abs=1e-4)
        assert row[4] == pytest.approx(hit / (size + claimed - hit), abs=1e-4)
        cut_once = odds > np.log(cut / (1 - cut))
        cut_once[answer.positive] = True
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
        negative = answer.negative
        refused = terrain.together[negative].mean(axis=0) if len(negative) else np.zeros(count)
        inner = sum(terrain.areas[i] * refused[i] for i in ids) / size
        assert row[24] == pytest.approx(inner, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_measures_know_the_segments_that_a_mask_tears(seed, count):
    answer = answer_by(seed, count)
    terrain, found = answer.terrain, propose_masks(answer)
    for mask, row in zip(found.masks, measure_masks(answer, found), strict=True):
        for number, level in enumerate((2, 4, 6, 7)):
            torn = 0.0
            for segment in set(terrain.levels[level]):
                of = terrain.areas * (terrain.levels[level] == segment)
                torn += min(of[mask].sum(), of[~mask].sum())
            told = row[LOOKING - 8 + number]
            assert told == pytest.approx(torn / terrain.areas[mask].sum(), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_measures_know_what_all_looks_say_and_what_a_look_cuts_off(seed, count):
    answer = answer_by(seed, count)
    areas, found = answer.terrain.areas, propose_masks(answer)
    chance = 1 / (1 + np.exp(-answer.shared))
    for mask, row in zip(found.masks, measure_masks(answer, found), strict=True):
        size, claimed, hit = areas[mask].sum(), areas @ chance, areas[mask] @ chance[mask]
        told = row[LOOKING:]
        assert told[0] == pytest.approx(hit / size, abs=1e-4)
        assert told[2] == pytest.approx(hit / (size + claimed - hit), abs=1e-4)
        assert told[3] == pytest.approx(np.log(size / claimed), abs=1e-4)
        pairs = answer.terrain.pairs
        step = [abs(chance[i] - chance[j]) for i, j in pairs if mask[i] != mask[j]]
        assert told[4] == pytest.approx(np.mean(step) if step else 0.0, abs=1e-4)
        assert told[6:9] == pytest.approx(
            [np.log(answer.share), 1.0, np.log(size * answer.share)], abs=1e-4
        )
        assert told[9] == pytest.approx(areas[mask & answer.rim].sum() / size, abs=1e-4)


def test_what_all_looks_say_is_proposed_too():
    """Odds that know nothing, and what all looks say together finds the half."""
    halves = np.arange(30) < 15
    answer = answer_by(3, 30)
    clicks = {"positive": np.array([2]), "negative": NONE}
    answer = replace(answer, odds=np.zeros(30), shared=np.where(halves, 6.0, -6.0), **clicks)
    assert (propose_masks(answer).masks == halves).all(axis=1).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_measures_know_how_the_surface_folds_at_the_border_and_inside(seed, count):
    _, _, facts = object_by(np.random.default_rng(seed), count)
    answer = answer_by(seed, count)
    terrain, found = answer.terrain, propose_masks(answer)
    for mask, row in zip(found.masks, measure_masks(answer, found), strict=True):
        folds: dict[bool, list[float]] = {True: [], False: []}
        for i, j in terrain.pairs:
            gap = facts.centers[j] - facts.centers[i]
            fold = (facts.normals[i] - facts.normals[j]) @ gap / np.linalg.norm(gap)
            if mask[i] or mask[j]:
                folds[bool(mask[i] != mask[j])].append(fold)
        told = [
            np.mean(np.maximum(folds[where], least)) if folds[where] else 0.0
            for least in (-np.inf, 0)
            for where in (True, False)
        ]
        assert row[LOOKING - 4 : LOOKING] == pytest.approx(told, abs=1e-4)


@pytest.mark.parametrize(("side", "sign"), [(1.0, 1.0), (-1.0, -1.0)])
def test_a_floor_and_a_wall_fold_inwards_from_inside_the_room(side, sign):
    centers = np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    normals = side * np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    pairs, one = np.array([[0, 1]]), np.ones(1)
    atoms = Atoms(np.arange(2), np.full(2, 0.5), pairs, one, one, "patches")
    facts = facts_of(centers, normals, atoms.areas, np.zeros((NUM_LEVELS, 2), np.int64))
    terrain = terrain_of(atoms, np.full((2, 2), 0.5), facts, PROPOSALS)
    assert terrain.hollows == pytest.approx([sign * np.sqrt(2)])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_a_mask_is_chosen_where_the_clicked_pieces_hold_most(seed, count):
    answer = answer_by(seed, count)
    pieces = answer.terrain.pieces
    clicked = {pieces[patch] for patch in answer.positive}
    share = sum(answer.terrain.areas[patch] for patch in range(count) if pieces[patch] in clicked)
    told = clicked_share(answer.terrain, answer.positive)
    assert told == pytest.approx(share)
    for least in (0.0, told, 1.0):
        config = MaskSelectionConfig(min_clicked_share=min(least, 1.0))
        assert is_choice(answer.terrain, answer.positive, config) == (told >= least)


def test_groups_are_nested_and_follow_what_belongs_together():
    terrain = terrain_of(*object_by(np.random.default_rng(3), 30), PROPOSALS)
    counts = [len(np.unique(ids)) for ids in terrain.groups]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    for fine, coarse in zip(terrain.groups, terrain.groups[1:], strict=False):
        assert len(np.unique(np.stack([fine, coarse]), axis=1)[0]) == len(np.unique(fine))


def test_masks_are_proposed_as_configured():
    config = MaskProposalConfig(cut_drop=0.0, level_cuts=(0.5,), num_groups=3, smoothing=0.0)
    terrain = terrain_of(*object_by(np.random.default_rng(3), 30), config)
    assert terrain.groups.shape == (3, 30)
    answer = whole_answer(terrain, np.linspace(-4, 4, 30), np.array([29]))
    assert answer.cut == config.cut
    found = propose_masks(answer)
    assert len(found.masks) <= 1 + 2 + 3 and set(found.levels) <= {0.4, 0.5, 0.97, 0.94, 0.91}


def test_the_order_of_patches_does_not_matter():
    answer = answer_by(11, 30)
    atoms, together, facts = object_by(np.random.default_rng(11), 30)
    mask = chosen(answer)
    order = np.random.default_rng(0).permutation(30)
    place = np.argsort(order)
    pairs = np.sort(place[atoms.pairs], axis=1)
    moved = facts_of(
        facts.centers[order], facts.normals[order], facts.areas[order], facts.levels[:, order]
    )
    atoms = replace(atoms, areas=atoms.areas[order], pairs=pairs)
    terrain = terrain_of(atoms, together[np.ix_(order, order)], moved, PROPOSALS)
    again = replace(
        answer,
        terrain=terrain,
        odds=answer.odds[order],
        positive=place[answer.positive],
        negative=place[answer.negative],
        shared=answer.shared[order],
        rim=answer.rim[order],
    )
    assert (chosen(again) == mask[order]).all()


def test_the_best_score_of_all_looks_wins(monkeypatch):
    answers = [answer_by(seed, 30) for seed in (5, 6, 7)]

    class Largest(ChoiceNetwork):
        def forward(self, measures):
            return measures[:, 1]

    monkeypatch.setattr(mask_selector, "load_choice_network", Largest)
    sizes = [(propose_masks(each).masks @ each.terrain.areas).max() for each in answers]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        number, mask = chosen_mask([answers[look] for look in order])
        assert order[number] == int(np.argmax(sizes))
        assert mask @ answers[order[number]].terrain.areas == pytest.approx(max(sizes))


@pytest.mark.parametrize("is_loose", [False, True])
def test_the_shipped_network_prefers_the_clear_answer(is_loose):
    """Two halves that nothing joins, of one skin or loose, and odds that say the same."""
    halves = np.arange(40) < 20
    pairs = np.stack([np.arange(39), np.arange(1, 40)], axis=1)
    same = np.ones(39)
    atoms = Atoms(np.arange(40), np.full(40, 1 / 40), pairs, same, same, "patches")
    levels = np.tile(halves, (NUM_LEVELS, 1)) if is_loose else np.zeros((NUM_LEVELS, 40), int)
    flat = np.zeros((40, 3))
    facts = facts_of(flat, flat, atoms.areas, levels)
    terrain = terrain_of(atoms, np.where(halves[:, None] == halves, 0.98, 0.02), facts, PROPOSALS)
    answer = whole_answer(terrain, np.where(halves, 4.0, -4.0), np.array([3]))
    assert (chosen(answer) == halves).all()
    assert load_choice_network().mean.any()
    weights = torch.cat([p.flatten() for p in load_choice_network().parameters()])
    assert torch.isfinite(weights).all()
