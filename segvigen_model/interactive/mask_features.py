"""What is told of a proposed mask: how it lies to the odds, to what belongs together, and to the
segments that geometry gives. mask_choice.py judges by these numbers alone.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from segvigen_model.interactive.mask_proposals import (
    KINDS,
    LEAST_AREA,
    Answer,
    Masks,
    Terrain,
    log_odds,
)
from segvigen_model.surface.arrays import TINY
from segvigen_model.types import BoolArray, FloatArray, IntArray

_NEARBY_CUTS = (0.25, 0.5, 0.75, 1.0, 1.4, 2.0, 3.0)  # times the plain cut
_SEGMENT_LEVELS = (-7, -5, -3, -2)  # 80, 20, 5 segments; regions of one material and piece
_NUM_LOOKING = 10
_NUM_OWN = 5 + len(_NEARBY_CUTS) + 6 + 6 + 2 + 5 + len(KINDS) + 1 + len(_SEGMENT_LEVELS) + 4
NUM_MEASURES = _NUM_OWN + _NUM_LOOKING
EXPECTED = 4  # the measure that is the IoU to be expected of the odds


def measure_masks(answer: Answer, found: Masks) -> FloatArray:
    """What is told of each mask: (C, NUM_MEASURES) float32.

    Args:
        answer: of the network.
        found: the masks proposed for it.
    """
    terrain, masks = answer.terrain, found.masks
    areas = np.maximum(terrain.areas, LEAST_AREA)
    chance = expit(answer.odds)
    claimed = float(areas @ chance)
    size = masks @ areas
    hit = masks @ (areas * chance)
    context = (
        np.log(claimed),
        1.0 / np.sqrt(len(answer.positive)),
        1.0 / np.sqrt(1 + len(answer.negative)),
        float(areas @ chance**2) / claimed,
    )
    columns = [
        *(np.log(size), size, hit / size, (claimed - hit) / _rest(size)),
        hit / (size + claimed - hit),
        *_overlaps(answer, masks, areas).T,
        *_borders(terrain, masks, chance),
        *_bonds(terrain, masks, areas, answer.positive),
        *_bond_with(terrain, masks, areas, answer.negative),
        np.log(size / claimed),
        *(np.full(len(size), value) for value in context),
        *(found.kinds == kind for kind in KINDS),
        found.levels,
        *(_torn(terrain.levels[level], masks, areas) / size for level in _SEGMENT_LEVELS),
        *_folds(terrain, masks),
        *_looking(answer, masks, areas),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _looking(answer: Answer, masks: BoolArray, areas: FloatArray) -> list[FloatArray]:
    """What all looks say of each mask together; how much the look shows and what it cuts off."""
    left, right = answer.terrain.pairs.T
    chance, size = expit(answer.shared), masks @ areas
    claimed, hit = float(areas @ chance), masks @ (areas * chance)
    is_border = masks[:, left] != masks[:, right]
    plain = answer.obeying(answer.above_cut(answer.shared) > 0)
    both = masks @ (areas * plain)
    return [
        *(hit / size, (claimed - hit) / _rest(size), hit / (size + claimed - hit)),
        np.log(size / claimed),
        is_border @ np.abs(chance[left] - chance[right]) / (is_border.sum(axis=1) + TINY),
        both / (size + float(areas @ plain) - both),
        *(np.full(len(size), value) for value in (np.log(answer.share), answer.share < 1.0)),
        np.log(size * answer.share),
        masks @ (areas * answer.rim) / size,
    ]


def _overlaps(answer: Answer, masks: BoolArray, areas: FloatArray) -> FloatArray:
    """(C, len(_NEARBY_CUTS)) IoU of each mask with the odds cut lower and higher."""
    cuts = [log_odds(min(answer.cut * factor, 0.95)) for factor in _NEARBY_CUTS]
    others = np.stack([answer.odds > cut for cut in cuts])
    others[:, answer.positive] = True
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


def _folds(terrain: Terrain, masks: BoolArray) -> list[FloatArray]:
    """How much the surface folds inwards at the mask's border and inside, with and without what
    folds outwards: parts tend to meet in hollows (the minima rule of Hoffman and Richards, 1984).
    """
    left, right = terrain.pairs.T
    is_border = masks[:, left] != masks[:, right]
    is_inside = masks[:, left] & masks[:, right]
    length, inside = is_border.sum(axis=1) + TINY, is_inside.sum(axis=1) + TINY
    return [
        where @ fold / count
        for fold in (terrain.hollows, np.maximum(terrain.hollows, 0.0))
        for where, count in ((is_border, length), (is_inside, inside))
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


def _torn(ids: IntArray, masks: BoolArray, areas: FloatArray) -> FloatArray:
    """(C,) area of the lesser side of every segment that a mask's border runs through."""
    member = np.zeros((len(ids), int(ids.max()) + 1))
    member[np.arange(len(ids)), ids] = areas
    held, size = masks @ member, member.sum(axis=0)
    torn: FloatArray = np.minimum(held, size - held).sum(axis=1)
    return torn


def _rest(size: FloatArray) -> FloatArray:
    """Share of the surface outside masks; never 0."""
    rest: FloatArray = np.maximum(1.0 - size, LEAST_AREA)
    return rest
