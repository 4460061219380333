"""Features of a proposed mask: its relation to the logits, to the affinity of patches, and to the
geometric segments. The mask selector sees these numbers only.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from segvigen_model.interactive.mask_proposals import (
    KINDS,
    MIN_AREA,
    ClickPrediction,
    MaskProposals,
    RegionGraph,
    logit,
)
from segvigen_model.surface.arrays import TINY
from segvigen_model.types import BoolArray, FloatArray, IntArray

_NEARBY_CUTS = (0.25, 0.5, 0.75, 1.0, 1.4, 2.0, 3.0)  # times the plain cut
_SEGMENT_LEVELS = (-7, -5, -3, -2)  # 80, 20, 5 segments; regions of one material and piece
_NUM_CROP_FEATURES = 10
_NUM_MASK_FEATURES = (
    5 + len(_NEARBY_CUTS) + 6 + 6 + 2 + 5 + len(KINDS) + 1 + len(_SEGMENT_LEVELS) + 4
)
NUM_MASK_FEATURES = _NUM_MASK_FEATURES + _NUM_CROP_FEATURES
EXPECTED_IOU_COLUMN = 4  # the measure that is the IoU to be expected of the logits


def compute_mask_features(prediction: ClickPrediction, proposals: MaskProposals) -> FloatArray:
    """Features of each mask: (C, NUM_MASK_FEATURES) float32.

    Args:
        prediction: of the network.
        proposals: the masks proposed for it.
    """
    region_graph, masks = prediction.region_graph, proposals.masks
    areas = np.maximum(region_graph.areas, MIN_AREA)
    chance = expit(prediction.logits)
    claimed = float(areas @ chance)
    size = masks @ areas
    hit = masks @ (areas * chance)
    context = (
        np.log(claimed),
        1.0 / np.sqrt(len(prediction.positive)),
        1.0 / np.sqrt(1 + len(prediction.negative)),
        float(areas @ chance**2) / claimed,
    )
    columns = [
        *(np.log(size), size, hit / size, (claimed - hit) / _compute_rest(size)),
        hit / (size + claimed - hit),
        *_compute_overlaps(prediction, masks, areas).T,
        *_compute_border_features(region_graph, masks, chance),
        *_compute_affinity_features(region_graph, masks, areas, prediction.positive),
        *_compute_click_affinity(region_graph, masks, areas, prediction.negative),
        np.log(size / claimed),
        *(np.full(len(size), value) for value in context),
        *(proposals.kinds == kind for kind in KINDS),
        proposals.levels,
        *(
            _compute_cut_area(region_graph.levels[level], masks, areas) / size
            for level in _SEGMENT_LEVELS
        ),
        *_compute_fold_features(region_graph, masks),
        *_compute_crop_features(prediction, masks, areas),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _compute_crop_features(
    prediction: ClickPrediction, masks: BoolArray, areas: FloatArray
) -> list[FloatArray]:
    """Average logits of all crops in each mask; what the crop shows and what it cuts off."""
    left, right = prediction.region_graph.pairs.T
    chance, size = expit(prediction.shared_logits), masks @ areas
    claimed, hit = float(areas @ chance), masks @ (areas * chance)
    is_border = masks[:, left] != masks[:, right]
    plain = prediction.enforce_clicks(prediction.subtract_cut(prediction.shared_logits) > 0)
    both = masks @ (areas * plain)
    return [
        *(hit / size, (claimed - hit) / _compute_rest(size), hit / (size + claimed - hit)),
        np.log(size / claimed),
        is_border @ np.abs(chance[left] - chance[right]) / (is_border.sum(axis=1) + TINY),
        both / (size + float(areas @ plain) - both),
        *(
            np.full(len(size), value)
            for value in (np.log(prediction.surface_share), prediction.surface_share < 1.0)
        ),
        np.log(size * prediction.surface_share),
        masks @ (areas * prediction.rim) / size,
    ]


def _compute_overlaps(
    prediction: ClickPrediction, masks: BoolArray, areas: FloatArray
) -> FloatArray:
    """(C, len(_NEARBY_CUTS)) IoU of each mask with the logits cut lower and higher."""
    cuts = [logit(min(prediction.cut_probability * factor, 0.95)) for factor in _NEARBY_CUTS]
    others = np.stack([prediction.logits > cut for cut in cuts])
    others[:, prediction.positive] = True
    shared = (masks * areas) @ others.T.astype(np.float64)
    iou: FloatArray = shared / ((masks @ areas)[:, None] + others @ areas - shared)
    return iou


def _compute_border_features(
    region_graph: RegionGraph, masks: BoolArray, chance: FloatArray
) -> list[FloatArray]:
    """Affinity and probability step over the mask's border and inside it; the border's length."""
    left, right = region_graph.pairs.T
    is_border = masks[:, left] != masks[:, right]
    is_inside = masks[:, left] & masks[:, right]
    affinity = region_graph.affinity[left, right]
    step = np.abs(chance[left] - chance[right])
    length, inside = is_border.sum(axis=1) + TINY, is_inside.sum(axis=1) + TINY
    return [
        *(is_border @ affinity / length, is_border @ step / length),
        *(is_inside @ affinity / inside, is_inside @ step / inside),
        *(np.sqrt(length) / 10.0, length / np.sqrt(masks.sum(axis=1)) / 10.0),
    ]


def _compute_fold_features(region_graph: RegionGraph, masks: BoolArray) -> list[FloatArray]:
    """How much the surface folds inwards at the mask's border and inside, with and without what
    folds outwards: parts tend to meet in concavities (the minima rule of Hoffman and Richards,
        1984).
    """
    left, right = region_graph.pairs.T
    is_border = masks[:, left] != masks[:, right]
    is_inside = masks[:, left] & masks[:, right]
    length, inside = is_border.sum(axis=1) + TINY, is_inside.sum(axis=1) + TINY
    return [
        where @ fold / count
        for fold in (region_graph.concavities, np.maximum(region_graph.concavities, 0.0))
        for where, count in ((is_border, length), (is_inside, inside))
    ]


def _compute_affinity_features(
    region_graph: RegionGraph, masks: BoolArray, areas: FloatArray, positive: IntArray
) -> list[FloatArray]:
    """Affinity with the clicks, within the mask, across its border; its extreme patches."""
    size = masks @ areas
    rest = _compute_rest(size)
    to_mask = (masks * areas) @ region_graph.affinity
    mean = to_mask / size[:, None]
    return [
        *_compute_click_affinity(region_graph, masks, areas, positive),
        *((to_mask * masks) @ areas / size**2, (to_mask * ~masks) @ areas / (size * rest)),
        np.where(masks, mean, 2.0).min(axis=1),
        np.where(masks, -1.0, mean).max(axis=1),
    ]


def _compute_click_affinity(
    region_graph: RegionGraph, masks: BoolArray, areas: FloatArray, clicked: IntArray
) -> list[FloatArray]:
    """Mean affinity with clicked patches inside each mask and outside; 0 without any."""
    size = masks @ areas
    affinity = region_graph.affinity[clicked].sum(axis=0) * areas / max(len(clicked), 1)
    return [masks @ affinity / size, ~masks @ affinity / _compute_rest(size)]


def _compute_cut_area(ids: IntArray, masks: BoolArray, areas: FloatArray) -> FloatArray:
    """(C,) area of the lesser side of every segment that a mask's border runs through."""
    member = np.zeros((len(ids), int(ids.max()) + 1))
    member[np.arange(len(ids)), ids] = areas
    held, size = masks @ member, member.sum(axis=0)
    cut_area: FloatArray = np.minimum(held, size - held).sum(axis=1)
    return cut_area


def _compute_rest(size: FloatArray) -> FloatArray:
    """Share of the surface outside masks; never 0."""
    rest: FloatArray = np.maximum(1.0 - size, MIN_AREA)
    return rest
