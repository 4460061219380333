"""Tried clicks: what they take, and what their masks say of two patches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.config import SegmenterConfig
from segvigen_model.interactive.click_decoding import ask_each, ask_looks
from segvigen_model.interactive.crops import Looks, closer_looks
from segvigen_model.interactive.mask_selector import best_masks, chosen_mask
from segvigen_model.partition.mask_voting import taken, with_votes
from segvigen_model.surface.arrays import farthest
from segvigen_model.surface.geometry import surface_of
from segvigen_model.surface.region_merging import segment_tree

CONFIG = SegmenterConfig()
VOTING, AT_ONCE = CONFIG.voting, CONFIG.limits.max_batch_questions


@pytest.fixture(scope="module")
def looks(sheet_of):
    """The whole of a sheet and two closer looks at its middle."""
    surface = surface_of(sheet_of(30))
    whole = Looks.of(surface, segment_tree(surface, CONFIG.regions), CONFIG).whole
    middle = np.linalg.norm(surface.centers - surface.centers.mean(axis=0), axis=1).argmin()
    return (whole, *closer_looks(surface, whole, np.array([middle]), CONFIG))


@pytest.fixture(scope="module")
def clicked(looks):
    return looks[-1].faces[:: len(looks[-1].faces) // 3][:3]


def test_every_click_is_a_question_of_its_own(looks, clicked):
    assert len(looks) == 3
    for face, answers in zip(clicked, ask_each(looks, clicked, AT_ONCE), strict=True):
        alone = ask_looks(looks, np.array([face]), np.array([True]), CONFIG)
        for one, other in zip(answers, alone, strict=True):
            assert np.allclose(one.odds, other.odds, atol=1e-4)
            assert np.allclose(one.shared, other.shared, atol=1e-4)
            assert np.array_equal(one.positive, other.positive) and not len(one.negative)


def test_a_click_takes_its_face_by_the_whole_and_by_the_best_look(looks, clicked):
    found = list(taken(looks, clicked, AT_ONCE))
    assert len(found) == 2 * len(clicked)
    answers = ask_each(looks, clicked, AT_ONCE)
    for row, face in enumerate(clicked):
        by_whole, by_best = found[2 * row : 2 * row + 2]
        assert by_whole[face] and by_best[face]
        whole, number = looks[0], chosen_mask(answers[row])[0]
        assert np.array_equal(by_whole, best_masks(answers[row])[0][1][whole.atoms.of_face])
        assert not by_best[np.setdiff1d(whole.faces, looks[number].faces)].any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 9))
def test_votes_are_symmetric_and_count_only_where_a_mask_is(seed, patches, masks):
    rng = np.random.default_rng(seed)
    read = rng.normal(0, 3, (patches, patches))
    read += read.T
    cast = rng.random((masks, patches)) * (rng.random((masks, patches)) < 0.4)
    odds = with_votes(read, cast, VOTING)
    assert np.isfinite(odds).all() and np.allclose(odds, odds.T)
    held = (cast**2).sum(axis=0) >= VOTING.min_masks
    apart = ~(held[:, None] & held)
    assert np.array_equal(odds[apart], read[apart])
    again = with_votes(read, cast[rng.permutation(masks)], VOTING)
    assert np.allclose(odds, again)


def test_patches_that_masks_take_together_are_nearer_than_those_that_they_part():
    cast = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1]], float)
    odds = with_votes(np.zeros((4, 4)), cast, VOTING)
    share = np.array([[1, 2 / 3, 0, 0], [0, 1, 1 / 4, 1 / 4], [0, 0, 1, 1], [0, 0, 0, 1]])
    share = np.clip(share, *VOTING.share_range)
    expected = VOTING.weight * np.log(share / (1 - share)) + VOTING.bias
    assert np.allclose(np.triu(odds), np.triu(expected))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 50))
def test_farthest_points_are_further_from_each_other_than_others_from_them(seed, points, count):
    at = np.random.default_rng(seed).random((points, 3))
    rows = farthest(at, count)
    assert rows[0] == 0 and len(np.unique(rows)) == len(rows) == min(points, count)
    gaps = np.linalg.norm(at[:, None] - at[rows], axis=2)
    if len(rows) > 1:
        between = gaps[rows] + 1e9 * np.eye(len(rows))
        assert gaps.min(axis=1).max() <= between.min() + 1e-12
