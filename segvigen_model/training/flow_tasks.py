"""Training tasks of the transformer: clicks and a mask, a palette, a painted view.

Every question is drawn from a labelled voxel sample; answers are colourings (colorings.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segvigen_model.datasets.voxel_samples import Sample
from segvigen_model.slat_flow.conditioning import (
    ClickTokens,
    Task,
    make_click_tokens,
    make_empty_clicks,
)
from segvigen_model.training.colorings import make_mask_features, make_palette_features
from segvigen_model.types import BoolArray, FloatArray, IntArray

MIN_PART_VOXELS = 6
CLICK_COUNTS = (1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 10)
NEGATIVE_SHARE = 0.3  # of interactive questions carry negative clicks too
ZERO_NOISE_SHARE = 0.75  # of interactive questions: t = 1 from zero noise, the one-step answer
CENTRAL_FIRST_CLICK = 0.3


@dataclass(frozen=True, slots=True)
class Question:
    """One training question.

    Attributes:
        task: its task.
        target: (N, 6) texture features of the answer.
        clicks: slots, or none.
        t: time of the flow, 0..1.
        is_noisy: False = the noise is zero.
        weight: (N,) float32, how much a voxel's cell counts.
        view: (3, S, S) painted view in 0..1 of a guided question.
    """

    task: Task
    target: Tensor
    clicks: ClickTokens
    t: float
    is_noisy: bool
    weight: FloatArray
    view: Tensor | None = None


def draw_late_time(rng: np.random.Generator) -> float:
    """Logit-normal time that favours noise, where the layout is decided."""
    return float(1 / (1 + np.exp(-rng.normal(1.0, 1.0))))


def choose_part(labels: IntArray, rng: np.random.Generator) -> int:
    """Draw a part; larger ones a little more often, tiny ones never."""
    sizes = np.bincount(labels).astype(float)
    weights = np.where(sizes >= MIN_PART_VOXELS, np.sqrt(sizes), 0)
    if weights.sum() == 0:
        return int(sizes.argmax())
    return int(rng.choice(len(sizes), p=weights / weights.sum()))


def draw_positive_clicks(
    mask: BoolArray, coords: IntArray, count: int, rng: np.random.Generator
) -> IntArray:
    """(count,) voxel rows on the part; the first is sometimes the one nearest its middle."""
    rows = np.flatnonzero(mask)
    picked = rng.choice(rows, count)
    if rng.random() < CENTRAL_FIRST_CLICK:
        middle = coords[rows].mean(0)
        picked[0] = rows[np.linalg.norm(coords[rows] - middle, axis=1).argmin()]
    return picked


def draw_negative_clicks(mask: BoolArray, coords: IntArray, rng: np.random.Generator) -> IntArray:
    """One to three voxel rows outside the part, most of them near it."""
    outside = np.flatnonzero(~mask)
    if len(outside) == 0:
        return outside
    count = int(rng.integers(1, 4))
    candidates = rng.choice(outside, 4 * count)
    near = np.linalg.norm(coords[candidates] - coords[mask].mean(0), axis=1)
    return candidates[np.argsort(near)[:count]]


def make_interactive_question(sample: Sample, factor: int, rng: np.random.Generator) -> Question:
    """Clicks on one part; the answer is white on black."""
    coords, labels = sample.coords.astype(np.int32), sample.labels.astype(int)
    mask = labels == choose_part(labels, rng)
    rows = draw_positive_clicks(mask, coords, int(rng.choice(CLICK_COUNTS)), rng)
    signs = np.ones(len(rows), bool)
    if rng.random() < NEGATIVE_SHARE:
        extra = draw_negative_clicks(mask, coords, rng)
        rows = np.concatenate([rows, extra])
        signs = np.concatenate([signs, np.zeros(len(extra), bool)])
    is_direct = rng.random() < ZERO_NOISE_SHARE
    return Question(
        Task.INTERACTIVE,
        make_mask_features(mask),
        make_click_tokens(coords[rows] // factor, signs),
        t=1.0 if is_direct else draw_late_time(rng),
        is_noisy=not is_direct,
        weight=np.where(mask, 2.0, 1.0).astype(np.float32),
    )


def make_full_question(sample: Sample, rng: np.random.Generator) -> Question:
    """No hint at all; the answer is a random well-separated palette."""
    target = make_palette_features(sample.labels.astype(int), rng)
    time = 1.0 if rng.random() < 0.1 else draw_late_time(rng)
    flat = np.ones(len(sample.labels), np.float32)
    return Question(Task.FULL, target, make_empty_clicks(), t=time, is_noisy=True, weight=flat)


def make_guided_question(sample: Sample, grid: int, rng: np.random.Generator) -> Question:
    """A painted front view; the answer uses its colours."""
    target = make_palette_features(sample.labels.astype(int), rng)
    colors = (target[:, :3].numpy() + 1) / 2
    view = paint_front_view(sample.coords.astype(np.int32), colors, grid)
    is_direct = rng.random() < 0.5
    return Question(
        Task.GUIDED,
        target,
        make_empty_clicks(),
        t=1.0 if is_direct else draw_late_time(rng),
        is_noisy=not is_direct,
        weight=np.ones(len(target), np.float32),
        view=view,
    )


def paint_front_view(coords: IntArray, colors: FloatArray, grid: int) -> Tensor:
    """Orthographic picture of coloured voxels as seen from +Z: right is +X, up is +Y.

    Args:
        coords: (N, 3) int voxels.
        colors: (N, 3) float, 0..1.
        grid: voxels along each axis = pixels along each side.

    Returns:
        (3, grid, grid) float32; black where nothing is.
    """
    order = np.argsort(coords[:, 2], kind="stable")  # later writes win: the nearest voxel
    picture = np.zeros((grid, grid, 3), np.float32)
    picture[grid - 1 - coords[order, 1], coords[order, 0]] = colors[order]
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()
