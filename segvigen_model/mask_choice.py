"""Which mask clicks mean, chosen among many by a small network.

Odds say how likely each patch is part of what was clicked; where to cut them, and whether a group
of patches that belong together should come as a whole, differs from object to object. So masks
are proposed (level sets of the odds, their touching pieces, nested groups that hold the clicks),
each is measured, and the one that promises the greatest IoU is taken. Trained on objects whose
sources the patch network had not seen, because it is too sure of those that it has
(training/choice_fit.py).

Departs from paper: SegviGen cuts its mask at one threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import expit
from torch import Tensor, nn

from segvigen_model.agglomeration import PartMerger
from segvigen_model.atoms import Atoms
from segvigen_model.geometry import TINY
from segvigen_model.types import BoolArray, FloatArray, IntArray

WEIGHTS_FILE = Path(__file__).parent / "weights" / "choice.safetensors"
GROUP_LEVELS = tuple(
    0.97 - 0.03 * step for step in range(32)
)  # togetherness down to which groups join
CUTS = (0.06, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
WIDTH = 48
_SMOOTH = 0.35  # share of the groups' mean odds in the smoothed odds
_SMOOTH_EVERY = 3  # of the group levels
_NEARBY_CUTS = (0.25, 0.5, 0.75, 1.0, 1.4, 2.0, 3.0)  # times the plain cut
_KINDS = range(5)  # plain, smoothed, group, level set, its touching piece
NUM_MEASURES = 5 + len(_NEARBY_CUTS) + 6 + 6 + 2 + 5 + len(_KINDS) + 1
EXPECTED = 4  # the measure that is the IoU to be expected of the odds
_LEAST = 1e-6  # share of the surface
_LIMIT = 5.0  # spreads: what is further out is not told apart


@dataclass(frozen=True, slots=True)
class Terrain:
    """What choosing a mask needs to know of an object, before any click.

    Attributes:
        areas: (A,) float64 shares of the surface.
        pairs: (B, 2) int64 touching patches.
        together: (A, A) float64 probability that two patches are of one part.
        groups: (L, A) int64, nested groups by falling togetherness.
    """

    areas: FloatArray
    pairs: IntArray
    together: FloatArray
    groups: IntArray


@dataclass(frozen=True, slots=True)
class Masks:
    """Proposed masks of one question; the first is the plain one.

    Attributes:
        masks: (C, A) bool, all different.
        kinds: (C,) int, which of `_KINDS`.
        levels: (C,) float, cut or togetherness that made it.
    """

    masks: BoolArray
    kinds: IntArray
    levels: FloatArray


class ChoiceNetwork(nn.Module):
    """Measures of a mask to a score; of one question's masks the highest is best."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUM_MEASURES))
        self.register_buffer("scale", torch.ones(NUM_MEASURES))
        self.layers = nn.Sequential(
            *(nn.Linear(NUM_MEASURES, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU()),
            nn.Linear(WIDTH, 1),
        )

    def forward(self, measures: Tensor) -> Tensor:
        """(..., M) measures -> (...) scores."""
        known = ((measures - self.mean) / self.scale).clamp(-_LIMIT, _LIMIT)
        score: Tensor = self.layers(known)[..., 0]
        return score


@lru_cache(maxsize=1)
def load_choice_network(path: Path = WEIGHTS_FILE) -> ChoiceNetwork:
    """Read weights once, for use."""
    network = ChoiceNetwork()
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return network.eval().requires_grad_(False)


def terrain_of(atoms: Atoms, together: FloatArray) -> Terrain:
    """Join patches level by level.

    Args:
        atoms: the patches.
        together: (A, A) probability that two of them are of one part.
    """
    merger = PartMerger(atoms, together)
    groups = []
    for level in GROUP_LEVELS:
        merger.merge_above(level)
        groups.append(merger.labels)
    return Terrain(atoms.areas, atoms.pairs, together, np.stack(groups))


def chosen_mask(
    terrain: Terrain, odds: FloatArray, cut: float, positive: IntArray, negative: IntArray
) -> BoolArray:
    """The mask that promises the greatest IoU with what was clicked.

    Args:
        terrain: of the object.
        odds: (A,) log odds of each patch.
        cut: 0..1, where they are cut when nothing better is known.
        positive, negative: clicked patches; a patch that is both counts as positive.

    Returns:
        (A,) bool, with the positive patches and without the others.
    """
    found = propose_masks(terrain, odds, cut, positive, negative)
    told = measure_masks(terrain, odds, cut, positive, negative, found)
    with torch.no_grad():
        scores = load_choice_network()(torch.from_numpy(told))
    mask: BoolArray = found.masks[int(scores.argmax())]
    return mask


def propose_masks(
    terrain: Terrain, odds: FloatArray, cut: float, positive: IntArray, negative: IntArray
) -> Masks:
    """Masks to choose from; every one has the positive patches and lacks the negative ones."""
    smooth = _smoothed(terrain, odds)
    refused = np.zeros(len(odds), bool)
    refused[negative] = True
    refused[positive] = False
    kept: dict[bytes, tuple[BoolArray, int, float]] = {}

    def add(mask: BoolArray, kind: int, level: float) -> None:
        mask = mask & ~refused
        mask[positive] = True
        kept.setdefault(mask.tobytes(), (mask, kind, level))

    for kind, each in enumerate((odds, smooth)):
        add(each > _odds(cut), kind, cut)
    for level, ids in zip(GROUP_LEVELS, terrain.groups, strict=True):
        add(np.isin(ids, ids[positive]), 2, level)
    for level in CUTS:
        likely = smooth > _odds(level)
        likely[positive] = True
        add(likely, 3, level)
        add(_touching(terrain, likely & ~refused, positive), 4, level)
    masks, kinds, levels = zip(*kept.values(), strict=True)
    return Masks(np.stack(masks), np.array(kinds), np.array(levels))


def measure_masks(
    terrain: Terrain,
    odds: FloatArray,
    cut: float,
    positive: IntArray,
    negative: IntArray,
    found: Masks,
) -> FloatArray:
    """What is told of each mask: (C, NUM_MEASURES) float32.

    Args:
        terrain, odds, cut, positive, negative: as for `chosen_mask`.
        found: the masks.
    """
    areas, masks = np.maximum(terrain.areas, _LEAST), found.masks
    chance = expit(odds)
    claimed = float(areas @ chance)
    size = masks @ areas
    hit = masks @ (areas * chance)
    context = (
        np.log(claimed),
        1.0 / np.sqrt(len(positive)),
        1.0 / np.sqrt(1 + len(negative)),
        float(areas @ chance**2) / claimed,
    )
    columns = [
        *(np.log(size), size, hit / size, (claimed - hit) / _rest(size)),
        hit / (size + claimed - hit),
        *_overlaps(masks, areas, odds, cut, positive).T,
        *_borders(terrain, masks, chance),
        *_bonds(terrain, masks, areas, positive),
        *_bond_with(terrain, masks, areas, negative),
        np.log(size / claimed),
        *(np.full(len(size), value) for value in context),
        *(found.kinds == kind for kind in _KINDS),
        found.levels,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _overlaps(
    masks: BoolArray, areas: FloatArray, odds: FloatArray, cut: float, positive: IntArray
) -> FloatArray:
    """(C, len(_NEARBY_CUTS)) IoU of each mask with the odds cut lower and higher."""
    others = np.stack([odds > _odds(min(cut * factor, 0.95)) for factor in _NEARBY_CUTS])
    others[:, positive] = True
    shared = (masks * areas) @ others.T.astype(np.float64)
    iou: FloatArray = shared / ((masks @ areas)[:, None] + others @ areas - shared)
    return iou


def _borders(terrain: Terrain, masks: BoolArray, chance: FloatArray) -> list[FloatArray]:
    """Togetherness and step of the chance over the mask's border and inside it; its length."""
    left, right = terrain.pairs.T
    is_border = masks[:, left] != masks[:, right]
    is_inside = masks[:, left] & masks[:, right]
    bond = terrain.together[left, right]
    step = np.abs(chance[left] - chance[right])
    length, inside = is_border.sum(axis=1) + TINY, is_inside.sum(axis=1) + TINY
    return [
        *(is_border @ bond / length, is_border @ step / length),
        *(is_inside @ bond / inside, is_inside @ step / inside),
        *(np.sqrt(length) / 10.0, length / np.sqrt(masks.sum(axis=1)) / 10.0),
    ]


def _bonds(
    terrain: Terrain, masks: BoolArray, areas: FloatArray, positive: IntArray
) -> list[FloatArray]:
    """Togetherness with the clicks, within the mask, across it; its loosest and nearest patch."""
    size = masks @ areas
    rest = _rest(size)
    to_mask = (masks * areas) @ terrain.together
    mean = to_mask / size[:, None]
    return [
        *_bond_with(terrain, masks, areas, positive),
        *((to_mask * masks) @ areas / size**2, (to_mask * ~masks) @ areas / (size * rest)),
        np.where(masks, mean, 2.0).min(axis=1),
        np.where(masks, -1.0, mean).max(axis=1),
    ]


def _bond_with(
    terrain: Terrain, masks: BoolArray, areas: FloatArray, clicked: IntArray
) -> list[FloatArray]:
    """Mean togetherness with clicked patches inside each mask and outside; 0 without any."""
    size = masks @ areas
    bond = terrain.together[clicked].sum(axis=0) * areas / max(len(clicked), 1)
    return [masks @ bond / size, ~masks @ bond / _rest(size)]


def _smoothed(terrain: Terrain, odds: FloatArray) -> FloatArray:
    """Odds drawn towards their mean in the groups of several levels."""
    areas = np.maximum(terrain.areas, _LEAST)
    levels = terrain.groups[::_SMOOTH_EVERY]
    mean = np.zeros(len(odds))
    for ids in levels:
        mean += (np.bincount(ids, areas * odds) / np.bincount(ids, areas))[ids] / len(levels)
    smooth: FloatArray = (1.0 - _SMOOTH) * odds + _SMOOTH * mean
    return smooth


def _touching(terrain: Terrain, mask: BoolArray, positive: IntArray) -> BoolArray:
    """The pieces of a mask that hold a click."""
    left, right = terrain.pairs[mask[terrain.pairs].all(axis=1)].T
    graph = coo_matrix((np.ones(len(left)), (left, right)), (len(mask), len(mask)))
    piece = connected_components(graph, directed=False)[1]
    reached: BoolArray = mask & np.isin(piece, piece[positive])
    return reached


def _rest(size: FloatArray) -> FloatArray:
    """Share of the surface outside masks; never 0."""
    rest: FloatArray = np.maximum(1.0 - size, _LEAST)
    return rest


def _odds(chance: float) -> float:
    return math.log(chance / (1.0 - chance))
