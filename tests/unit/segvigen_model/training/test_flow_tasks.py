"""Questions and colourings that training draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segvigen_model.datasets import voxel_samples
from segvigen_model.slat_flow.conditioning import NUM_CLICK_SLOTS, Task
from segvigen_model.training import colorings, flow_tasks

GRID = 24


@pytest.fixture(scope="module")
def sample():
    made = voxel_samples.make_sample(5, 0, GRID, None, "train")
    assert made is not None
    return made


@pytest.mark.parametrize("count", [2, 8, 27, 40])
def test_palettes_are_far_apart_and_random(count):
    one = colorings.draw_separated_colors(count, np.random.default_rng(0))
    two = colorings.draw_separated_colors(count, np.random.default_rng(1))
    assert one.shape == (count, 3) and (one >= 0).all() and (one <= 1).all()
    assert not np.allclose(one, two)
    gaps = np.linalg.norm(one[:, None] - one[None], axis=2) + 9 * np.eye(count)
    if count <= 8:
        assert gaps.min() > 0.5


def test_mask_is_white_on_black(sample):
    mask = sample.labels == 0
    feats = colorings.make_mask_features(mask)
    assert torch.equal(feats[:, 0] > 0, torch.from_numpy(mask))
    assert feats.shape == (len(mask), 6)


def test_clicks_of_a_question_carry_their_signs(sample):
    rng = np.random.default_rng(0)
    for _ in range(20):
        question = flow_tasks.make_interactive_question(sample, 4, rng)
        white = question.target[:, 0].numpy() > 0
        inside = {tuple(c) for c in (sample.coords[white] // 4).tolist()}
        outside = {tuple(c) for c in (sample.coords[~white] // 4).tolist()}
        assert question.clicks.counts == (NUM_CLICK_SLOTS,)
        for cell, sign in zip(
            question.clicks.coords.tolist(), question.clicks.labels.tolist(), strict=True
        ):
            assert sign == 0 or tuple(cell) in (inside if sign > 0 else outside)
        assert question.is_noisy or question.t == 1.0


def test_full_and_guided_questions_paint_every_part(sample):
    rng = np.random.default_rng(1)
    full = flow_tasks.make_full_question(sample, rng)
    guided = flow_tasks.make_guided_question(sample, GRID, rng)
    assert full.task is Task.FULL and guided.task is Task.GUIDED
    for question in (full, guided):
        colors = np.unique(question.target[:, :3].numpy(), axis=0)
        assert len(colors) == min(27, len(np.unique(sample.labels)))
    assert guided.view is not None and guided.view.shape == (3, GRID, GRID)


def test_front_view_shows_the_nearest_voxel_upright():
    coords = np.array([[2, 5, 1], [2, 5, 7], [0, 0, 3]])
    colors = np.eye(3)
    picture = flow_tasks.paint_front_view(coords, colors, 8)
    assert picture[:, 8 - 1 - 5, 2].tolist() == [0, 1, 0]
    assert picture[:, 7, 0].tolist() == [0, 0, 1]
    assert picture.sum() == 2
