"""What connected components mean to clicks and to parts, and what the chosen mask decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segvigen_model.config import FusionWeights, SegmenterConfig
from segvigen_model.interactive import click_decoding
from segvigen_model.interactive.click_decoding import (
    predict_clicks,
    predict_part_probability,
    same_part_affinity,
)
from segvigen_model.interactive.crops import MultiScaleCrops
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.region_merging import build_segment_tree

CONFIG = SegmenterConfig()


def trusting(mask: float, decisive: float = CONFIG.fusion.decisive) -> SegmenterConfig:
    return replace(CONFIG, fusion=FusionWeights(mask=mask, decisive=decisive))


@pytest.fixture
def embedding(two_boxes):
    """The look at two boxes; faces are patches, the first twelve one box."""
    surface = measure_surface(two_boxes)
    return MultiScaleCrops.build(surface, build_segment_tree(surface, CONFIG.regions), CONFIG).whole


def replace_region_graph(crop, **changes):
    region_graph = replace(crop.embedding.region_graph, **changes)
    return replace(crop, embedding=replace(crop.embedding, region_graph=region_graph))


def make_single_component(crop):
    """The same look at an object that nobody knows to have connected components."""
    levels = crop.embedding.region_graph.levels.copy()
    levels[-1] = 0
    return replace_region_graph(crop, levels=levels)


def test_pieces_that_nobody_clicked_are_cut_higher(embedding):
    config = trusting(0.0, decisive=0.0)  # before any mask is chosen
    pieces = embedding.embedding.region_graph.components
    assert np.array_equal(pieces == pieces[0], np.arange(24) < 12)
    as_one = make_single_component(embedding)
    one_click = (np.array([0]), np.array([True]), None, config)
    probability = predict_part_probability([embedding], *one_click)
    if_one = predict_part_probability([as_one], *one_click)
    assert np.allclose(probability[:12], if_one[:12])
    inside = (if_one[12:] > 0.0011) & (if_one[12:] < 0.998)  # not held by the range
    assert inside.any() and (probability[12:][inside] < if_one[12:][inside]).all()
    both = (np.array([0, 12]), np.array([True, True]), None, config)
    clicked = predict_part_probability([embedding], *both)
    assert np.allclose(clicked, predict_part_probability([as_one], *both))


@pytest.mark.parametrize("is_single_shell", [False, True])
def test_the_chosen_mask_decides_and_decided_logits_stay(is_single_shell, embedding, monkeypatch):
    """Of a single shell everywhere, elsewhere in the clicked connected component."""
    embedding = make_single_component(embedding) if is_single_shell else embedding
    held = slice(None) if is_single_shell else slice(12)
    one_click = (np.array([0]), np.array([True]))
    decided_faces = []

    def every_third(predictions):
        decided_faces.append(predictions)
        return 0, np.arange(24) % 3 == 0

    monkeypatch.setattr(click_decoding, "select_mask", every_third)
    probability = predict_part_probability([embedding], *one_click, None, CONFIG)
    ((prediction,),) = decided_faces
    assert prediction.region_graph is embedding.embedding.region_graph
    assert list(prediction.positive) == [0] and len(prediction.negative) == 0
    blend = embedding.embedding.blend
    chosen = blend @ (np.arange(24) % 3 == 0.0) > 0.5
    assert (chosen == (probability > 0.5))[held].all()
    decided = 1 / (1 + np.exp(-CONFIG.clicks.firm_logit))
    assert (np.maximum(probability, 1 - probability) > decided - 1e-3)[held].all()
    if not is_single_shell:
        elsewhere = CONFIG.clicks.careful_cut_elsewhere
        plain = blend @ prediction.subtract_cut(prediction.logits, elsewhere) > 0
        assert chosen[12:].any() and (plain == (probability > 0.5))[12:].all()


def make_closer_crop(crop, faces):
    """A look that shows some patches of another, cut as they were there."""
    faces = np.array(faces)
    superfaces = replace(
        crop.superfaces, of_face=np.arange(len(faces)), areas=crop.superfaces.areas[faces]
    )
    embedding = crop.embedding
    region_graph = replace(
        embedding.region_graph,
        areas=embedding.region_graph.areas[faces],
        groups=embedding.region_graph.groups[:, faces],
        levels=embedding.region_graph.levels[:, faces],
    )
    blend, together = (
        embedding.blend[faces][:, faces],
        embedding.affinity_logits[np.ix_(faces, faces)],
    )
    cropped_embedding = replace(
        embedding, blend=blend, affinity_logits=together, region_graph=region_graph
    )
    return replace(
        crop,
        faces=faces,
        areas=crop.areas[faces],
        superfaces=superfaces,
        embedding=cropped_embedding,
    )


class FixedNetwork:
    """A network that gives the same logits to every question."""

    def __init__(self, logits):
        self.logits = torch.tensor(logits, dtype=torch.float32)

    def predict_clicks(self, encoded, clicks):
        return self.logits[None].repeat(len(clicks), 1)


def make_fixed_crop(crop, logits):
    return replace(crop, embedding=replace(crop.embedding, network=FixedNetwork(logits)))


def test_what_a_closer_crop_does_not_show_is_out_but_other_pieces_stay(embedding, monkeypatch):
    """The second box is likely; of the first, where the click is, only the crop's faces count."""
    whole = replace_region_graph(embedding, areas=np.where(np.arange(24) < 12, 0.6, 0.4) / 12)
    whole = make_fixed_crop(whole, np.full(24, 3.0))
    crop = make_fixed_crop(make_closer_crop(whole, range(6)), np.full(6, 3.0))
    mask = np.arange(6) < 4
    monkeypatch.setattr(click_decoding, "select_mask", lambda predictions: (1, mask))
    probability = predict_part_probability(
        [whole, crop], np.array([0]), np.array([True]), None, CONFIG
    )
    assert (probability[6:12] < 0.5).all() and (probability[12:] > 0.5).all()
    blended = np.asarray(crop.embedding.blend @ np.where(mask, 3.0 - np.log(0.12 / 0.88), -0.5))
    assert ((probability[1:6] > 0.5) == (blended[1:] > 0)).all()


def test_crops_share_the_mean_of_those_that_show_a_face(embedding):
    whole = make_fixed_crop(embedding, np.full(24, 1.0))
    crop = make_fixed_crop(make_closer_crop(whole, range(12)), np.full(12, 5.0))
    whole_weight = np.asarray(crop.embedding.blend.sum(axis=1)).reshape(-1)
    faces, signs = np.array([0, 20]), np.array([True, False])
    first, second = predict_clicks([whole, crop], faces, signs, CONFIG)
    assert (first.logits == 1.0).all() and (second.logits == 5.0).all()
    assert first.shared_logits[12:] == pytest.approx(1.0)
    assert first.shared_logits[:12] == pytest.approx((1.0 + 5.0 * whole_weight) / 2)
    assert second.shared_logits == pytest.approx(first.shared_logits[:12])
    assert list(first.negative) == [20] and len(second.negative) == 0
    assert first.surface_share == 1.0 and not first.rim.any()


def test_one_crop_shares_its_own_logits(embedding):
    (prediction,) = predict_clicks([embedding], np.array([0]), np.array([True]), CONFIG)
    assert (prediction.shared_logits == prediction.logits).all()


def test_a_small_component_needs_no_choice(embedding, monkeypatch):
    requested = []
    monkeypatch.setattr(
        click_decoding,
        "select_mask",
        lambda predictions: requested.append(1) or (0, predictions[0].logits > 0),
    )
    pieces = embedding.embedding.region_graph.components
    small = replace_region_graph(embedding, areas=np.where(pieces == pieces[0], 0.4, 0.6) / 12)
    for clicked, is_predicted in ((0, False), (12, True)):
        predict_part_probability([small], np.array([clicked]), np.array([True]), None, CONFIG)
        assert bool(requested) == is_predicted


def test_other_pieces_must_be_surer_where_only_the_network_answers(embedding):
    """The logits are 0: a chance of .5, above .4 and below .6."""
    pieces = embedding.embedding.region_graph.components
    small = replace_region_graph(embedding, areas=np.where(pieces == pieces[0], 0.4, 0.6) / 12)
    predict = (
        [make_fixed_crop(small, np.full(24, 0.0))],
        np.array([0]),
        np.array([True]),
        np.full(24, 0.5),
    )
    alone = predict_part_probability(*predict, CONFIG)
    assert (alone[:12] > 0.5).all() and (alone[12:] < 0.5).all()
    assert (predict_part_probability(*predict, trusting(CONFIG.fusion.decisive)) > 0.5).all()


def test_a_trusted_flow_mask_needs_no_choice(embedding, monkeypatch):
    requested = []
    monkeypatch.setattr(
        click_decoding,
        "select_mask",
        lambda predictions: requested.append(1) or (0, predictions[0].logits > 0),
    )
    flow = np.where(np.arange(24) < 12, 0.9, 0.1)
    predict = ([embedding], np.array([0]), np.array([True]), flow)
    predict_part_probability(*predict, trusting(CONFIG.fusion.decisive))
    assert not requested
    predict_part_probability(*predict, trusting(CONFIG.fusion.decisive - 0.1))
    assert requested


def test_a_reserve_counts_between_pieces_only(embedding):
    plain, reserved = (
        same_part_affinity(embedding.embedding.affinity_matrix, component_penalty=each)
        for each in (0.0, 0.6)
    )
    pieces = embedding.embedding.region_graph.components
    is_same = pieces[:, None] == pieces
    assert np.array_equal(plain[is_same], reserved[is_same])
    logits = [np.log(table / (1 - table)) for table in (plain, reserved)]
    known = ~is_same & (np.abs(logits[0]) < 12)  # beyond, a probability has no digits left
    assert known.any() and np.allclose((logits[0] - logits[1])[known], 0.6, atol=1e-3)
