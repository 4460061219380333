"""Tried clicks: what they take, and what their masks say of two patches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.config import SegmenterConfig
from segvigen_model.interactive.click_decoding import predict_clicks, predict_clicks_separately
from segvigen_model.interactive.crops import MultiScaleCrops, crop_around_clicks
from segvigen_model.interactive.mask_selector import select_best_masks, select_mask
from segvigen_model.partition.mask_voting import combine_mask_consensus, predict_click_masks
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.region_merging import build_segment_tree

CONFIG = SegmenterConfig()
VOTING, AT_ONCE = CONFIG.voting, CONFIG.limits.max_batch_questions


@pytest.fixture(scope="module")
def crops(sheet_of):
    """The whole of a sheet and two crops at its middle."""
    surface = measure_surface(sheet_of(30))
    whole = MultiScaleCrops.build(
        surface, build_segment_tree(surface, CONFIG.regions), CONFIG
    ).whole
    middle = np.linalg.norm(surface.centers - surface.centers.mean(axis=0), axis=1).argmin()
    return (whole, *crop_around_clicks(surface, whole, np.array([middle]), CONFIG))


@pytest.fixture(scope="module")
def clicked(crops):
    return crops[-1].faces[:: len(crops[-1].faces) // 3][:3]


def test_every_click_is_a_question_of_its_own(crops, clicked):
    assert len(crops) == 3
    for face, predictions in zip(
        clicked, predict_clicks_separately(crops, clicked, AT_ONCE), strict=True
    ):
        alone = predict_clicks(crops, np.array([face]), np.array([True]), CONFIG)
        for one, other in zip(predictions, alone, strict=True):
            assert np.allclose(one.logits, other.logits, atol=1e-4)
            assert np.allclose(one.shared_logits, other.shared_logits, atol=1e-4)
            assert np.array_equal(one.positive, other.positive) and not len(one.negative)


def test_a_click_takes_its_face_by_the_whole_and_by_the_best_crop(crops, clicked):
    found = list(predict_click_masks(crops, clicked, AT_ONCE))
    assert len(found) == 2 * len(clicked)
    predictions = predict_clicks_separately(crops, clicked, AT_ONCE)
    for row, face in enumerate(clicked):
        by_whole, by_best = found[2 * row : 2 * row + 2]
        assert by_whole[face] and by_best[face]
        whole, number = crops[0], select_mask(predictions[row])[0]
        assert np.array_equal(
            by_whole, select_best_masks(predictions[row])[0][1][whole.superfaces.of_face]
        )
        assert not by_best[np.setdiff1d(whole.faces, crops[number].faces)].any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 9))
def test_mask_consensus_is_symmetric_and_count_only_where_a_mask_is(seed, patches, masks):
    rng = np.random.default_rng(seed)
    affinity_logits = rng.normal(0, 3, (patches, patches))
    affinity_logits += affinity_logits.T
    cast = rng.random((masks, patches)) * (rng.random((masks, patches)) < 0.4)
    logits = combine_mask_consensus(affinity_logits, cast, VOTING)
    assert np.isfinite(logits).all() and np.allclose(logits, logits.T)
    held = (cast**2).sum(axis=0) >= VOTING.min_masks
    apart = ~(held[:, None] & held)
    assert np.array_equal(logits[apart], affinity_logits[apart])
    again = combine_mask_consensus(affinity_logits, cast[rng.permutation(masks)], VOTING)
    assert np.allclose(logits, again)


def test_patches_that_masks_take_together_are_nearer_than_those_that_they_part():
    cast = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1]], float)
    logits = combine_mask_consensus(np.zeros((4, 4)), cast, VOTING)
    share = np.array([[1, 2 / 3, 0, 0], [0, 1, 1 / 4, 1 / 4], [0, 0, 1, 1], [0, 0, 0, 1]])
    share = np.clip(share, *VOTING.share_range)
    expected = VOTING.weight * np.log(share / (1 - share)) + VOTING.bias
    assert np.allclose(np.triu(logits), np.triu(expected))
