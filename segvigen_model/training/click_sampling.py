"""Questions to the patch network in training: objects seen from elsewhere, clicks on parts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from torch import Tensor

from segvigen_model.datasets.procedural.builder import turn
from segvigen_model.interactive.patch_network import Encoded, PatchNetwork
from segvigen_model.surface.patch_features import FAR
from segvigen_model.training.patch_data import PatchExample
from segvigen_model.types import BoolArray, FloatArray, IntArray

CLICK_COUNTS = (1, 1, 1, 2, 3, 3, 5, 7, 10)
NEGATIVE_SHARE = 0.3
MIN_PART_SHARE = 0.001
LEAST_ERROR = 0.25  # share of a patch
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


def thinned(example: PatchExample, rng: np.random.Generator) -> PatchExample:
    """A stored example without up to 15 random patches, so that their number is round."""
    count = example.facts.count
    number = count - count % _ROUND_TO
    if number in (0, count):
        return example
    kept = np.sort(rng.choice(count, number, replace=False))
    facts = example.facts
    place = np.full(count, -1)
    place[kept] = np.arange(number)
    pairs = place[example.pairs.astype(np.int64)]
    fewer = replace(
        facts,
        centers=facts.centers[kept],
        normals=facts.normals[kept],
        areas=facts.areas[kept],
        levels=facts.levels[:, kept],
        materials=facts.materials[kept],
        ways=facts.ways[np.ix_(kept, kept)],
        scalars=facts.scalars[kept],
    )
    return PatchExample(fewer, pairs[(pairs >= 0).all(axis=1)], example.shares[kept])


def turned(example: PatchExample, rng: np.random.Generator) -> PatchExample:
    """A stored example seen from elsewhere: turned about Y, mirrored, sometimes another axis up."""
    matrix = turn((0, 1, 0), rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.5:
        matrix = np.diag([-1.0, 1.0, 1.0]) @ matrix
    if rng.random() < 0.25:
        matrix = turn(np.eye(3)[rng.integers(3)], rng.integers(1, 4) * np.pi / 2) @ matrix
    facts = example.facts
    normals = np.asarray(facts.normals, np.float32) @ matrix.T
    moved = replace(
        facts,
        centers=(facts.centers @ matrix.T).astype(np.float32),
        normals=normals.astype(np.float32),
        ways=facts.ways.astype(np.float32) * (FAR / 255),
    )
    return replace(example, facts=moved, shares=example.shares.astype(np.float32) / 255)


def draw_question(example: PatchExample, rng: np.random.Generator) -> Question:
    """Ask about a random part with random clicks."""
    areas, shares = example.facts.areas, example.shares
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
    outside = example.facts.areas * (1 - target)
    if outside.sum() <= 1e-4:
        return np.zeros(0, np.int64)
    middle = example.facts.centers[positive].mean(axis=0)
    gap = np.linalg.norm(example.facts.centers - middle, axis=1)
    chance = outside * (np.exp(-gap / rng.choice([0.05, 0.2, 3.0])) + 1e-9)
    return draw_patches(chance, int(rng.integers(1, 6)), rng)


def draw_patches(chance: FloatArray, count: int, rng: np.random.Generator) -> IntArray:
    """(count,) patches drawn by `chance`, which need not sum to 1; one may come twice."""
    chosen: IntArray = rng.choice(len(chance), count, p=chance / chance.sum())
    return chosen


@torch.no_grad()
def corrected(
    network: PatchNetwork,
    encoded: Encoded,
    questions: list[Question],
    areas: FloatArray,
    rng: np.random.Generator,
) -> list[Question]:
    """The same questions with up to three more clicks each where the first answer is wrong."""
    clicks = [click_tensors(question, network.mean.device) for question in questions]
    masks = network.ask(encoded, clicks).float().cpu().numpy() > 0
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


def correction(example: PatchExample, target: FloatArray, mask: BoolArray) -> int | None:
    """The patch in the middle of the largest wrong region, as `clicks.error_click` has it.

    Args:
        example: patches as they are seen.
        target: (A,) share of each patch in the part.
        mask: (A,) bool, what was answered.

    Returns:
        The patch; to be clicked positive where `mask` lacks it. None when little is wrong.
    """
    error = np.where(mask, 1 - target, target)
    is_wrong = error > LEAST_ERROR
    if not is_wrong.any():
        return None
    left, right = example.pairs.astype(np.int64).T
    is_inner = is_wrong[left] & is_wrong[right] & (mask[left] == mask[right])
    gaps = np.linalg.norm(example.facts.centers[left] - example.facts.centers[right], axis=1)
    inner = (np.maximum(gaps, 1e-9)[is_inner], (left[is_inner], right[is_inner]))
    graph = coo_matrix(inner, (len(mask), len(mask))).tocsr()
    regions = connected_components(graph, directed=False)[1]
    largest = int(np.bincount(regions, example.facts.areas * error * is_wrong).argmax())
    region = np.flatnonzero(regions == largest)
    is_border = np.zeros(len(mask), bool)
    is_border[np.concatenate([left[~is_inner], right[~is_inner]])] = True
    border = region[is_border[region]]
    if len(border) in (0, len(region)):
        return int(region[(example.facts.areas * error)[region].argmax()])
    depth = dijkstra(graph, directed=False, indices=border, min_only=True)[region]
    return int(region[depth.argmax()])


def click_tensors(question: Question, device: torch.device) -> tuple[Tensor, Tensor]:
    """Clicked patches as the network takes them: positive and negative."""
    pair = (question.positive, question.negative)
    return tuple(torch.from_numpy(ids).to(device) for ids in pair)  # type: ignore[return-value]
