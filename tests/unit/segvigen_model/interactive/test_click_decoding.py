"""What loose pieces mean to clicks and to parts, and what the chosen mask decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segvigen_model.config import FusionWeights, SegmenterConfig
from segvigen_model.interactive import click_decoding
from segvigen_model.interactive.click_decoding import ask_looks, part_probability, togetherness
from segvigen_model.interactive.crops import Looks
from segvigen_model.surface.geometry import surface_of
from segvigen_model.surface.region_merging import segment_tree

CONFIG = SegmenterConfig()


def trusting(mask: float, decisive: float = CONFIG.fusion.decisive) -> SegmenterConfig:
    return replace(CONFIG, fusion=FusionWeights(mask=mask, decisive=decisive))


@pytest.fixture
def read(two_boxes):
    """The look at two boxes; faces are patches, the first twelve one box."""
    surface = surface_of(two_boxes)
    return Looks.of(surface, segment_tree(surface, CONFIG.regions), CONFIG).whole


def with_terrain(look, **changes):
    terrain = replace(look.reading.terrain, **changes)
    return replace(look, reading=replace(look.reading, terrain=terrain))


def as_one_piece(look):
    """The same look at an object that nobody knows to have loose pieces."""
    levels = look.reading.terrain.levels.copy()
    levels[-1] = 0
    return with_terrain(look, levels=levels)


def test_pieces_that_nobody_clicked_are_cut_higher(read):
    config = trusting(0.0, decisive=0.0)  # before any mask is chosen
    pieces = read.reading.terrain.pieces
    assert np.array_equal(pieces == pieces[0], np.arange(24) < 12)
    as_one = as_one_piece(read)
    one_click = (np.array([0]), np.array([True]), None, config)
    probability = part_probability([read], *one_click)
    if_one = part_probability([as_one], *one_click)
    assert np.allclose(probability[:12], if_one[:12])
    inside = (if_one[12:] > 0.0011) & (if_one[12:] < 0.998)  # not held by the range
    assert inside.any() and (probability[12:][inside] < if_one[12:][inside]).all()
    both = (np.array([0, 12]), np.array([True, True]), None, config)
    clicked = part_probability([read], *both)
    assert np.allclose(clicked, part_probability([as_one], *both))


@pytest.mark.parametrize("is_skin", [False, True])
def test_the_chosen_mask_decides_and_sure_odds_stay(is_skin, read, monkeypatch):
    """Of a skin everywhere, elsewhere in the clicked loose piece."""
    read = as_one_piece(read) if is_skin else read
    held = slice(None) if is_skin else slice(12)
    one_click = (np.array([0]), np.array([True]))
    told = []

    def every_third(answers):
        told.append(answers)
        return 0, np.arange(24) % 3 == 0

    monkeypatch.setattr(click_decoding, "chosen_mask", every_third)
    probability = part_probability([read], *one_click, None, CONFIG)
    ((answer,),) = told
    assert answer.terrain is read.reading.terrain
    assert list(answer.positive) == [0] and len(answer.negative) == 0
    blend = read.reading.blend
    chosen = blend @ (np.arange(24) % 3 == 0.0) > 0.5
    assert (chosen == (probability > 0.5))[held].all()
    firm = 1 / (1 + np.exp(-CONFIG.clicks.firm_logit))
    assert (np.maximum(probability, 1 - probability) > firm - 1e-3)[held].all()
    if not is_skin:
        elsewhere = CONFIG.clicks.careful_cut_elsewhere
        plain = blend @ answer.above_cut(answer.odds, elsewhere) > 0
        assert chosen[12:].any() and (plain == (probability > 0.5))[12:].all()


def closer(look, faces):
    """A look that shows some patches of another, cut as they were there."""
    faces = np.array(faces)
    atoms = replace(look.atoms, of_face=np.arange(len(faces)), areas=look.atoms.areas[faces])
    reading = look.reading
    terrain = replace(
        reading.terrain,
        areas=reading.terrain.areas[faces],
        groups=reading.terrain.groups[:, faces],
        levels=reading.terrain.levels[:, faces],
    )
    blend, together = reading.blend[faces][:, faces], reading.together[np.ix_(faces, faces)]
    seen = replace(reading, blend=blend, together=together, terrain=terrain)
    return replace(look, faces=faces, areas=look.areas[faces], atoms=atoms, reading=seen)


class Says:
    """A network that gives the same odds to every question."""

    def __init__(self, odds):
        self.odds = torch.tensor(odds, dtype=torch.float32)

    def ask(self, encoded, clicks):
        return self.odds[None].repeat(len(clicks), 1)


def saying(look, odds):
    return replace(look, reading=replace(look.reading, network=Says(odds)))


def test_what_a_closer_look_does_not_show_is_out_but_other_pieces_stay(read, monkeypatch):
    """The second box is likely; of the first, where the click is, only the look's faces count."""
    whole = with_terrain(read, areas=np.where(np.arange(24) < 12, 0.6, 0.4) / 12)
    whole = saying(whole, np.full(24, 3.0))
    look = saying(closer(whole, range(6)), np.full(6, 3.0))
    mask = np.arange(6) < 4
    monkeypatch.setattr(click_decoding, "chosen_mask", lambda answers: (1, mask))
    probability = part_probability([whole, look], np.array([0]), np.array([True]), None, CONFIG)
    assert (probability[6:12] < 0.5).all() and (probability[12:] > 0.5).all()
    blended = np.asarray(look.reading.blend @ np.where(mask, 3.0 - np.log(0.12 / 0.88), -0.5))
    assert ((probability[1:6] > 0.5) == (blended[1:] > 0)).all()


def test_looks_share_the_mean_of_those_that_show_a_face(read):
    whole = saying(read, np.full(24, 1.0))
    look = saying(closer(whole, range(12)), np.full(12, 5.0))
    whole_weight = np.asarray(look.reading.blend.sum(axis=1)).reshape(-1)
    faces, signs = np.array([0, 20]), np.array([True, False])
    first, second = ask_looks([whole, look], faces, signs, CONFIG)
    assert (first.odds == 1.0).all() and (second.odds == 5.0).all()
    assert first.shared[12:] == pytest.approx(1.0)
    assert first.shared[:12] == pytest.approx((1.0 + 5.0 * whole_weight) / 2)
    assert second.shared == pytest.approx(first.shared[:12])
    assert list(first.negative) == [20] and len(second.negative) == 0
    assert first.share == 1.0 and not first.rim.any()


def test_one_look_shares_its_own_odds(read):
    (answer,) = ask_looks([read], np.array([0]), np.array([True]), CONFIG)
    assert (answer.shared == answer.odds).all()


def test_a_small_loose_piece_needs_no_choice(read, monkeypatch):
    asked = []
    monkeypatch.setattr(
        click_decoding, "chosen_mask", lambda answers: asked.append(1) or (0, answers[0].odds > 0)
    )
    pieces = read.reading.terrain.pieces
    small = with_terrain(read, areas=np.where(pieces == pieces[0], 0.4, 0.6) / 12)
    for clicked, is_asked in ((0, False), (12, True)):
        part_probability([small], np.array([clicked]), np.array([True]), None, CONFIG)
        assert bool(asked) == is_asked


def test_other_pieces_must_be_surer_where_only_the_network_answers(read):
    """The odds are 0: a chance of .5, above .4 and below .6."""
    pieces = read.reading.terrain.pieces
    small = with_terrain(read, areas=np.where(pieces == pieces[0], 0.4, 0.6) / 12)
    ask = ([saying(small, np.full(24, 0.0))], np.array([0]), np.array([True]), np.full(24, 0.5))
    alone = part_probability(*ask, CONFIG)
    assert (alone[:12] > 0.5).all() and (alone[12:] < 0.5).all()
    assert (part_probability(*ask, trusting(CONFIG.fusion.decisive)) > 0.5).all()


def test_a_trusted_flow_mask_needs_no_choice(read, monkeypatch):
    asked = []
    monkeypatch.setattr(
        click_decoding, "chosen_mask", lambda answers: asked.append(1) or (0, answers[0].odds > 0)
    )
    flow = np.where(np.arange(24) < 12, 0.9, 0.1)
    ask = ([read], np.array([0]), np.array([True]), flow)
    part_probability(*ask, trusting(CONFIG.fusion.decisive))
    assert not asked
    part_probability(*ask, trusting(CONFIG.fusion.decisive - 0.1))
    assert asked


def test_a_reserve_counts_between_pieces_only(read):
    plain, reserved = (togetherness(read.reading.bonds, reserve=each) for each in (0.0, 0.6))
    pieces = read.reading.terrain.pieces
    is_same = pieces[:, None] == pieces
    assert np.array_equal(plain[is_same], reserved[is_same])
    odds = [np.log(table / (1 - table)) for table in (plain, reserved)]
    known = ~is_same & (np.abs(odds[0]) < 12)  # beyond, a probability has no digits left
    assert known.any() and np.allclose((odds[0] - odds[1])[known], 0.6, atol=1e-3)
