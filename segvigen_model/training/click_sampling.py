"""Questions to the patch network in training: objects seen from elsewhere, clicks on parts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from segvigen_model.datasets.procedural.builder import make_rotation
from segvigen_model.interactive.patch_network import EncodedPatches, PatchNetwork
from segvigen_model.surface.patch_features import FAR
from segvigen_model.training.patch_data import PatchExample
from segvigen_model.types import FloatArray, IntArray

CLICK_COUNTS = (1, 1, 1, 2, 3, 3, 5, 7, 10)
NEGATIVE_SHARE = 0.3
MIN_PART_SHARE = 0.001
_ROUND_TO = 16  # few sizes: a CPU's matrix kernels are made for each size anew


@dataclass(frozen=True, slots=True)
class Question:
    """Clicks on one part.

    Attributes:
        positive, negative: (K,), (N,) int64 clicked patches.
        target: (A,) float32 share of each patch's area in the part.
    """

    positive: IntArray
    negative: IntArray
    target: FloatArray


def thin_example(example: PatchExample, rng: np.random.Generator) -> PatchExample:
    """A stored example without up to 15 random patches, so that their number is round."""
    count = example.features.count
    number = count - count % _ROUND_TO
    if number in (0, count):
        return example
    kept = np.sort(rng.choice(count, number, replace=False))
    features = example.features
    place = np.full(count, -1)
    place[kept] = np.arange(number)
    pairs = place[example.pairs.astype(np.int64)]
    fewer = replace(
        features,
        centers=features.centers[kept],
        normals=features.normals[kept],
        areas=features.areas[kept],
        levels=features.levels[:, kept],
        materials=features.materials[kept],
        geodesic_distances=features.geodesic_distances[np.ix_(kept, kept)],
        scalars=features.scalars[kept],
    )
    return PatchExample(fewer, pairs[(pairs >= 0).all(axis=1)], example.shares[kept])


def rotate_example(example: PatchExample, rng: np.random.Generator) -> PatchExample:
    """A stored example seen from elsewhere: turned about Y, mirrored, sometimes another axis up."""
    matrix = make_rotation((0, 1, 0), rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.5:
        matrix = np.diag([-1.0, 1.0, 1.0]) @ matrix
    if rng.random() < 0.25:
        matrix = make_rotation(np.eye(3)[rng.integers(3)], rng.integers(1, 4) * np.pi / 2) @ matrix
    features = example.features
    normals = np.asarray(features.normals, np.float32) @ matrix.T
    moved = replace(
        features,
        centers=(features.centers @ matrix.T).astype(np.float32),
        normals=normals.astype(np.float32),
        geodesic_distances=features.geodesic_distances.astype(np.float32) * (FAR / 255),
    )
    return replace(example, features=moved, shares=example.shares.astype(np.float32) / 255)


def draw_question(example: PatchExample, rng: np.random.Generator) -> Question:
    """Ask about a random part with random clicks."""
    areas, shares = example.features.areas, example.shares
    totals = areas @ shares
    part = int(rng.choice(np.flatnonzero(totals > MIN_PART_SHARE * totals.sum())))
    target = shares[:, part]
    positive = draw_patches(areas * target, int(rng.choice(CLICK_COUNTS)), rng)
    negative: IntArray = np.zeros(0, np.int64)
    if rng.random() < NEGATIVE_SHARE:
        negative = draw_negative(example, positive, target, rng)
    return Question(positive, negative, target)


def draw_negative(
    example: PatchExample, positive: IntArray, target: FloatArray, rng: np.random.Generator
) -> IntArray:
    """(0 to 5,) patches outside a part, near the positive clicks or anywhere."""
    outside = example.features.areas * (1 - target)
    if outside.sum() <= 1e-4:
        return np.zeros(0, np.int64)
    middle = example.features.centers[positive].mean(axis=0)
    gap = np.linalg.norm(example.features.centers - middle, axis=1)
    chance = outside * (np.exp(-gap / rng.choice([0.05, 0.2, 3.0])) + 1e-9)
    return draw_patches(chance, int(rng.integers(1, 6)), rng)


def draw_patches(chance: FloatArray, count: int, rng: np.random.Generator) -> IntArray:
    """(count,) patches drawn by `chance`, which need not sum to 1; one may come twice."""
    chosen: IntArray = rng.choice(len(chance), count, p=chance / chance.sum())
    return chosen


@torch.no_grad()
def add_corrections(
    network: PatchNetwork,
    encoded: EncodedPatches,
    questions: list[Question],
    areas: FloatArray,
    rng: np.random.Generator,
) -> list[Question]:
    """The same questions with up to three more clicks each where the first answer is wrong."""
    clicks = [make_click_tensors(question, network.mean.device) for question in questions]
    masks = network.predict_clicks(encoded, clicks).float().cpu().numpy() > 0
    longer = []
    for question, mask in zip(questions, masks, strict=True):
        error = areas * np.abs(question.target - mask)
        if error.sum() > 1e-4:
            ids = draw_patches(error, int(rng.integers(1, 4)), rng)
            inside = question.target[ids] > 0.5
            question = Question(
                np.concatenate([question.positive, ids[inside]]),
                np.concatenate([question.negative, ids[~inside]]),
                question.target,
            )
        longer.append(question)
    return longer


def make_click_tensors(question: Question, device: torch.device) -> tuple[Tensor, Tensor]:
    """Clicked patches as the network takes them: positive and negative."""
    pair = (question.positive, question.negative)
    return tuple(torch.from_numpy(ids).to(device) for ids in pair)  # type: ignore[return-value]
