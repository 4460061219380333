"""Masks to choose from hold every click; their features are right; the best score wins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.config import MaskProposalConfig, MaskSelectionConfig
from segvigen_model.interactive import mask_proposals, mask_selector
from segvigen_model.interactive.mask_features import (
    COLUMNS,
    NUM_MASK_FEATURES,
    compute_mask_features,
)
from segvigen_model.interactive.mask_proposals import (
    ClickPrediction,
    build_region_graph,
    compute_clicked_share,
    propose_masks,
)
from segvigen_model.interactive.mask_selector import (
    MaskSelector,
    has_mask_choice,
    load_mask_selector,
    select_mask,
)
from segvigen_model.surface.adjacency import Superfaces
from segvigen_model.surface.patch_features import SCALAR_COLUMNS, PatchFeatures
from segvigen_model.surface.region_merging import LEVEL_NAMES

NUM_LEVELS = len(LEVEL_NAMES)
PROPOSALS = MaskProposalConfig()
NONE = np.zeros(0, np.int64)
CROP_COLUMNS = COLUMNS.index("shared_mean_probability")  # first of what crops say together


def make_features(centers, normals, areas, levels) -> PatchFeatures:
    count = len(areas)
    ids = np.zeros(count, np.int32)
    distances = np.zeros((count, count), np.float32)
    scalars = np.zeros((count, len(SCALAR_COLUMNS)), np.float32)
    return PatchFeatures(centers, normals, areas, levels, ids, distances, scalars)


def make_object(rng: np.random.Generator, count: int):
    """A random object: patches on a line with some further contacts, in some connected
    components."""
    areas = rng.random(count) + 0.01
    line = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
    more = np.sort(rng.integers(0, count, (count // 3, 2)), axis=1)
    pairs = np.concatenate([line, more[more[:, 0] < more[:, 1]]]).astype(np.int64)
    same = np.ones(len(pairs))
    logits = rng.normal(0, 3, (count, count))
    together = 1 / (1 + np.exp(-(logits + logits.T)))
    superfaces = Superfaces(np.arange(count), areas / areas.sum(), pairs, same, same, "patches")
    levels = [rng.integers(0, rng.integers(1, count + 1), count) for _ in range(NUM_LEVELS)]
    centers, normals = rng.normal(0, 1, (2, count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return superfaces, together, make_features(centers, normals, superfaces.areas, np.stack(levels))


def make_whole_prediction(region_graph, logits, positive, negative=NONE) -> ClickPrediction:
    """Of the only look, which shows everything."""
    return ClickPrediction(
        region_graph, logits, positive, negative, logits, np.zeros(len(logits), bool), 1.0
    )


def make_prediction(seed: int, count: int) -> ClickPrediction:
    """A random answer of a crop."""
    rng = np.random.default_rng(seed)
    region_graph = build_region_graph(*make_object(rng, count), PROPOSALS)
    logits = rng.normal(0, 10.0 ** rng.integers(-2, 3), count)
    clicked = rng.permutation(count)[: rng.integers(1, min(count, 12) + 1)]
    split = rng.integers(1, len(clicked) + 1)
    shared = logits + rng.normal(0, 2, count)
    rim = rng.random(count) < 0.2
    clicks = clicked[:split], clicked[split:]
    return ClickPrediction(region_graph, logits, *clicks, shared, rim, float(rng.uniform(0.05, 1)))


def choose_mask(prediction: ClickPrediction):
    """What is chosen where there is one crop."""
    number, mask = select_mask([prediction])
    assert number == 0
    return mask


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_every_mask_holds_every_click_and_is_measured(seed, count):
    prediction = make_prediction(seed, count)
    found = propose_masks(prediction)
    assert (
        found.masks[:, prediction.positive].all() and not found.masks[:, prediction.negative].any()
    )
    assert len(np.unique(found.masks, axis=0)) == len(found.masks)
    mask_features = compute_mask_features(prediction, found)
    assert (
        mask_features.shape == (len(found.masks), NUM_MASK_FEATURES)
        and np.isfinite(mask_features).all()
    )
    assert (found.masks == choose_mask(prediction)).all(axis=1).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_touching_pieces_are_what_clicks_reach_inside_each_mask(seed, count):
    prediction = make_prediction(seed, count)
    masks = np.random.default_rng(seed).random((3, count)) < 0.6
    masks[:, prediction.positive] = True
    found = mask_proposals._keep_clicked_pieces(prediction.region_graph, masks, prediction.positive)
    for mask, reached in zip(masks, found, strict=True):
        expected = np.zeros(count, bool)
        expected[prediction.positive] = True
        for _ in range(count):
            for left, right in prediction.region_graph.pairs:
                if mask[left] and mask[right] and expected[left] != expected[right]:
                    expected[[left, right]] = True
        assert np.array_equal(reached, expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_plain_mask_is_first_and_cut_higher_in_pieces_that_nobody_clicked(seed, count):
    prediction = make_prediction(seed, count)
    plain = propose_masks(prediction).masks[0]
    chance = 1 / (1 + np.exp(-prediction.logits))
    pieces, clicked = (
        prediction.region_graph.components,
        set(prediction.region_graph.components[prediction.positive]),
    )
    for patch in range(count):
        cut = prediction.cut_probability if pieces[patch] in clicked else PROPOSALS.cut_elsewhere
        is_in = (
            chance[patch] > cut or patch in prediction.positive
        ) and patch not in prediction.negative
        assert plain[patch] == is_in
    assert prediction.cut_probability <= PROPOSALS.cut_elsewhere


def test_a_patch_that_is_both_counts_as_positive():
    prediction = make_prediction(5, 20)
    both = replace(prediction, positive=np.array([3, 4]), negative=np.array([4, 5]))
    masks = propose_masks(both).masks
    assert masks[:, [3, 4]].all() and not masks[:, 5].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_mask_features_have_their_named_meaning(seed, count):
    prediction = make_prediction(seed, count)
    region_graph, logits, cut = (
        prediction.region_graph,
        prediction.logits,
        prediction.cut_probability,
    )
    found = propose_masks(prediction)
    mask_features = compute_mask_features(prediction, found)
    chance = 1 / (1 + np.exp(-logits))
    for mask, row in zip(found.masks, mask_features, strict=True):
        ids, rest = np.flatnonzero(mask), np.flatnonzero(~mask)
        size = sum(region_graph.areas[i] for i in ids)
        hit = sum(region_graph.areas[i] * chance[i] for i in ids)
        claimed = float(region_graph.areas @ chance)
        assert row[:3] == pytest.approx([np.log(size), size, hit / size], abs=1e-4)
        assert row[4] == pytest.approx(hit / (size + claimed - hit), abs=1e-4)
        cut_once = logits > np.log(cut / (1 - cut))
        cut_once[prediction.positive] = True
        shared = region_graph.areas[mask & cut_once].sum()
        assert row[5 + 3] == pytest.approx(
            shared / region_graph.areas[mask | cut_once].sum(), abs=1e-4
        )
        border = [region_graph.affinity[i, j] for i, j in region_graph.pairs if mask[i] != mask[j]]
        assert row[12] == pytest.approx(np.mean(border) if border else 0.0, abs=1e-4)
        affinity = {
            i: sum(region_graph.areas[j] * region_graph.affinity[i, j] for j in ids)
            for i in range(count)
        }
        inner = sum(region_graph.areas[i] * affinity[i] for i in ids) / size**2
        assert row[20] == pytest.approx(inner, abs=1e-4)
        assert row[22] == pytest.approx(min(affinity[i] for i in ids) / size, abs=1e-4)
        nearest = max(affinity[i] for i in rest) / size if len(rest) else -1.0
        assert row[23] == pytest.approx(nearest, abs=1e-4)
        negative = prediction.negative
        refused = region_graph.affinity[negative].mean(axis=0) if len(negative) else np.zeros(count)
        inner = sum(region_graph.areas[i] * refused[i] for i in ids) / size
        assert row[24] == pytest.approx(inner, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_mask_features_measure_the_segments_that_a_mask_tears(seed, count):
    prediction = make_prediction(seed, count)
    region_graph, found = prediction.region_graph, propose_masks(prediction)
    for mask, row in zip(found.masks, compute_mask_features(prediction, found), strict=True):
        for number, level in enumerate((2, 4, 6, 7)):
            torn = 0.0
            for segment in set(region_graph.levels[level]):
                of = region_graph.areas * (region_graph.levels[level] == segment)
                torn += min(of[mask].sum(), of[~mask].sum())
            mask_features = row[CROP_COLUMNS - 8 + number]
            assert mask_features == pytest.approx(torn / region_graph.areas[mask].sum(), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_mask_features_measure_agreement_of_crops_and_area_cut_off(seed, count):
    prediction = make_prediction(seed, count)
    areas, found = prediction.region_graph.areas, propose_masks(prediction)
    chance = 1 / (1 + np.exp(-prediction.shared_logits))
    for mask, row in zip(found.masks, compute_mask_features(prediction, found), strict=True):
        size, claimed, hit = areas[mask].sum(), areas @ chance, areas[mask] @ chance[mask]
        mask_features = row[CROP_COLUMNS:]
        assert mask_features[0] == pytest.approx(hit / size, abs=1e-4)
        assert mask_features[2] == pytest.approx(hit / (size + claimed - hit), abs=1e-4)
        assert mask_features[3] == pytest.approx(np.log(size / claimed), abs=1e-4)
        pairs = prediction.region_graph.pairs
        step = [abs(chance[i] - chance[j]) for i, j in pairs if mask[i] != mask[j]]
        assert mask_features[4] == pytest.approx(np.mean(step) if step else 0.0, abs=1e-4)
        assert mask_features[6:9] == pytest.approx(
            [np.log(prediction.surface_share), 1.0, np.log(size * prediction.surface_share)],
            abs=1e-4,
        )
        assert mask_features[9] == pytest.approx(
            areas[mask & prediction.rim].sum() / size, abs=1e-4
        )


def test_masks_of_averaged_crops_are_proposed_too():
    """Logits that know nothing, and what all crops say together finds the half."""
    halves = np.arange(30) < 15
    prediction = make_prediction(3, 30)
    clicks = {"positive": np.array([2]), "negative": NONE}
    prediction = replace(
        prediction, logits=np.zeros(30), shared_logits=np.where(halves, 6.0, -6.0), **clicks
    )
    assert (propose_masks(prediction).masks == halves).all(axis=1).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_mask_features_measure_how_the_surface_folds_at_the_border_and_inside(seed, count):
    _, _, features = make_object(np.random.default_rng(seed), count)
    prediction = make_prediction(seed, count)
    region_graph, found = prediction.region_graph, propose_masks(prediction)
    for mask, row in zip(found.masks, compute_mask_features(prediction, found), strict=True):
        folds: dict[bool, list[float]] = {True: [], False: []}
        for i, j in region_graph.pairs:
            gap = features.centers[j] - features.centers[i]
            fold = (features.normals[i] - features.normals[j]) @ gap / np.linalg.norm(gap)
            if mask[i] or mask[j]:
                folds[bool(mask[i] != mask[j])].append(fold)
        mask_features = [
            np.mean(np.maximum(folds[where], least)) if folds[where] else 0.0
            for least in (-np.inf, 0)
            for where in (True, False)
        ]
        assert row[CROP_COLUMNS - 4 : CROP_COLUMNS] == pytest.approx(mask_features, abs=1e-4)


@pytest.mark.parametrize(("side", "sign"), [(1.0, 1.0), (-1.0, -1.0)])
def test_a_floor_and_a_wall_fold_inwards_from_inside_the_room(side, sign):
    centers = np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    normals = side * np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    pairs, one = np.array([[0, 1]]), np.ones(1)
    superfaces = Superfaces(np.arange(2), np.full(2, 0.5), pairs, one, one, "patches")
    features = make_features(
        centers, normals, superfaces.areas, np.zeros((NUM_LEVELS, 2), np.int64)
    )
    region_graph = build_region_graph(superfaces, np.full((2, 2), 0.5), features, PROPOSALS)
    assert region_graph.concavities == pytest.approx([sign * np.sqrt(2)])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_a_mask_is_chosen_where_the_clicked_pieces_hold_most(seed, count):
    prediction = make_prediction(seed, count)
    pieces = prediction.region_graph.components
    clicked = {pieces[patch] for patch in prediction.positive}
    share = sum(
        prediction.region_graph.areas[patch] for patch in range(count) if pieces[patch] in clicked
    )
    mask_features = compute_clicked_share(prediction.region_graph, prediction.positive)
    assert mask_features == pytest.approx(share)
    for least in (0.0, mask_features, 1.0):
        config = MaskSelectionConfig(min_clicked_share=min(least, 1.0))
        assert has_mask_choice(prediction.region_graph, prediction.positive, config) == (
            mask_features >= least
        )


def test_groups_are_nested_and_follow_what_belongs_together():
    region_graph = build_region_graph(*make_object(np.random.default_rng(3), 30), PROPOSALS)
    counts = [len(np.unique(ids)) for ids in region_graph.groups]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    for fine, coarse in zip(region_graph.groups, region_graph.groups[1:], strict=False):
        assert len(np.unique(np.stack([fine, coarse]), axis=1)[0]) == len(np.unique(fine))


def test_masks_are_proposed_as_configured():
    config = MaskProposalConfig(cut_drop=0.0, level_cuts=(0.5,), num_groups=3, smoothing=0.0)
    region_graph = build_region_graph(*make_object(np.random.default_rng(3), 30), config)
    assert region_graph.groups.shape == (3, 30)
    response = make_whole_prediction(region_graph, np.linspace(-4, 4, 30), np.array([29]))
    assert response.cut_probability == config.cut
    found = propose_masks(response)
    assert len(found.masks) <= 1 + 2 + 3 and set(found.levels) <= {0.4, 0.5, 0.97, 0.94, 0.91}


def test_the_order_of_patches_does_not_matter():
    prediction = make_prediction(11, 30)
    superfaces, together, features = make_object(np.random.default_rng(11), 30)
    mask = choose_mask(prediction)
    order = np.random.default_rng(0).permutation(30)
    place = np.argsort(order)
    pairs = np.sort(place[superfaces.pairs], axis=1)
    moved = make_features(
        features.centers[order],
        features.normals[order],
        features.areas[order],
        features.levels[:, order],
    )
    superfaces = replace(superfaces, areas=superfaces.areas[order], pairs=pairs)
    region_graph = build_region_graph(superfaces, together[np.ix_(order, order)], moved, PROPOSALS)
    again = replace(
        prediction,
        region_graph=region_graph,
        logits=prediction.logits[order],
        positive=place[prediction.positive],
        negative=place[prediction.negative],
        shared_logits=prediction.shared_logits[order],
        rim=prediction.rim[order],
    )
    assert (choose_mask(again) == mask[order]).all()


def test_the_best_score_of_all_crops_wins(monkeypatch):
    predictions = [make_prediction(seed, 30) for seed in (5, 6, 7)]

    class Largest(MaskSelector):
        def forward(self, features):
            return features[:, COLUMNS.index("area")]

    monkeypatch.setattr(mask_selector, "load_mask_selector", Largest)
    sizes = [(propose_masks(each).masks @ each.region_graph.areas).max() for each in predictions]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        number, mask = select_mask([predictions[crop] for crop in order])
        assert order[number] == int(np.argmax(sizes))
        assert mask @ predictions[order[number]].region_graph.areas == pytest.approx(max(sizes))


@pytest.mark.parametrize("is_separate", [False, True])
def test_the_shipped_network_prefers_the_clear_answer(is_separate):
    """Two halves that nothing joins, of a single shell or loose, and logits that say the same."""
    halves = np.arange(40) < 20
    pairs = np.stack([np.arange(39), np.arange(1, 40)], axis=1)
    same = np.ones(39)
    superfaces = Superfaces(np.arange(40), np.full(40, 1 / 40), pairs, same, same, "patches")
    levels = np.tile(halves, (NUM_LEVELS, 1)) if is_separate else np.zeros((NUM_LEVELS, 40), int)
    flat = np.zeros((40, 3))
    features = make_features(flat, flat, superfaces.areas, levels)
    region_graph = build_region_graph(
        superfaces, np.where(halves[:, None] == halves, 0.98, 0.02), features, PROPOSALS
    )
    prediction = make_whole_prediction(region_graph, np.where(halves, 4.0, -4.0), np.array([3]))
    assert (choose_mask(prediction) == halves).all()
    assert load_mask_selector().mean.any()
    weights = torch.cat([p.flatten() for p in load_mask_selector().parameters()])
    assert torch.isfinite(weights).all()
