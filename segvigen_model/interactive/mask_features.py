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
from segvigen_model.surface.feature_schema import order_columns
from segvigen_model.surface.region_merging import LEVEL_NAMES
from segvigen_model.types import BoolArray, FloatArray, IntArray

_NEARBY_CUTS = (0.25, 0.5, 0.75, 1.0, 1.4, 2.0, 3.0)  # times the plain cut
_TORN_LEVELS = ("n80", "n20", "n5", "region")
EXPECTED_IOU = "expected_iou"  # the column that is the IoU expected under the logits
COLUMNS = (
    *("log_area", "area", "mean_probability", "mean_probability_outside", EXPECTED_IOU),
    *(f"iou_at_cut_{factor}" for factor in _NEARBY_CUTS),
    *("border_affinity", "border_step", "inside_affinity", "inside_step"),
    *("border_length", "border_over_size"),
    *("positive_affinity", "positive_affinity_outside", "affinity_within", "affinity_across"),
    *("least_affinity", "most_affinity_outside"),
    *("negative_affinity", "negative_affinity_outside"),
    *("log_area_over_claimed", "log_claimed", "positive_scarcity", "negative_scarcity"),
    "certainty",
    *(f"is_{kind}" for kind in KINDS),
    "level",
    *(f"torn_{name}" for name in _TORN_LEVELS),
    *("border_fold", "inside_fold", "border_concavity", "inside_concavity"),
    *("shared_mean_probability", "shared_mean_probability_outside", "shared_expected_iou"),
    *("shared_log_area_over_claimed", "shared_border_step", "shared_plain_iou"),
    *("log_crop_share", "is_crop", "log_asset_area", "rim_share"),
)
NUM_MASK_FEATURES = len(COLUMNS)


def compute_mask_features(prediction: ClickPrediction, proposals: MaskProposals) -> FloatArray:
    """Features of each mask: (C, M) float32, one column per `COLUMNS`.

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
    columns = {
        "log_area": np.log(size),
        "area": size,
        "mean_probability": hit / size,
        "mean_probability_outside": (claimed - hit) / _compute_rest(size),
        EXPECTED_IOU: hit / (size + claimed - hit),
        **_compute_overlaps(prediction, masks, areas),
        **_compute_border_features(region_graph, masks, chance),
        **_compute_affinity_features(region_graph, masks, areas, prediction.positive),
        **_compute_click_affinity("negative", region_graph, masks, areas, prediction.negative),
        "log_area_over_claimed": np.log(size / claimed),
        **_context(prediction, areas, chance, len(size)),
        **{f"is_{kind}": proposals.kinds == number for number, kind in enumerate(KINDS)},
        "level": proposals.levels,
        **{
            f"torn_{name}": _compute_cut_area(
                region_graph.levels[LEVEL_NAMES.index(name)], masks, areas
            )
            / size
            for name in _TORN_LEVELS
        },
        **_compute_fold_features(region_graph, masks),
        **_compute_crop_features(prediction, masks, areas),
    }
    return np.stack(order_columns(columns, COLUMNS), axis=1).astype(np.float32)


def _context(
    response: ClickPrediction, areas: FloatArray, chance: FloatArray, count: int
) -> dict[str, FloatArray]:
    """What is the same for all masks of a question."""
    claimed = float(areas @ chance)
    values = {
        "log_claimed": np.log(claimed),
        "positive_scarcity": 1.0 / np.sqrt(len(response.positive)),
        "negative_scarcity": 1.0 / np.sqrt(1 + len(response.negative)),
        "certainty": float(areas @ chance**2) / claimed,
    }
    return {name: np.full(count, value) for name, value in values.items()}


def _compute_crop_features(
    prediction: ClickPrediction, masks: BoolArray, areas: FloatArray
) -> dict[str, FloatArray]:
    """Average logits of all crops in each mask; what the crop shows and what it cuts off."""
    left, right = prediction.region_graph.pairs.T
    chance, size = expit(prediction.shared_logits), masks @ areas
    claimed, hit = float(areas @ chance), masks @ (areas * chance)
    is_border = masks[:, left] != masks[:, right]
    plain = prediction.enforce_clicks(prediction.subtract_cut(prediction.shared_logits) > 0)
    both = masks @ (areas * plain)
    step = is_border @ np.abs(chance[left] - chance[right]) / (is_border.sum(axis=1) + TINY)
    return {
        "shared_mean_probability": hit / size,
        "shared_mean_probability_outside": (claimed - hit) / _compute_rest(size),
        "shared_expected_iou": hit / (size + claimed - hit),
        "shared_log_area_over_claimed": np.log(size / claimed),
        "shared_border_step": step,
        "shared_plain_iou": both / (size + float(areas @ plain) - both),
        "log_crop_share": np.full(len(size), np.log(prediction.surface_share)),
        "is_crop": np.full(len(size), prediction.surface_share < 1.0),
        "log_asset_area": np.log(size * prediction.surface_share),
        "rim_share": masks @ (areas * prediction.rim) / size,
    }


def _compute_overlaps(
    prediction: ClickPrediction, masks: BoolArray, areas: FloatArray
) -> dict[str, FloatArray]:
    """IoU of each mask with the logits cut lower and higher."""
    cuts = [logit(min(prediction.cut_probability * factor, 0.95)) for factor in _NEARBY_CUTS]
    others = np.stack([prediction.logits > cut for cut in cuts])
    others[:, prediction.positive] = True
    shared = (masks * areas) @ others.T.astype(np.float64)
    iou = shared / ((masks @ areas)[:, None] + others @ areas - shared)
    return {f"iou_at_cut_{cut}": each for cut, each in zip(_NEARBY_CUTS, iou.T, strict=True)}


def _compute_border_features(
    region_graph: RegionGraph, masks: BoolArray, chance: FloatArray
) -> dict[str, FloatArray]:
    """Affinity and probability step over the mask's border and inside it; the border's length."""
    left, right = region_graph.pairs.T
    is_border = masks[:, left] != masks[:, right]
    is_inside = masks[:, left] & masks[:, right]
    affinity = region_graph.affinity[left, right]
    step = np.abs(chance[left] - chance[right])
    length, inside = is_border.sum(axis=1) + TINY, is_inside.sum(axis=1) + TINY
    return {
        "border_affinity": is_border @ affinity / length,
        "border_step": is_border @ step / length,
        "inside_affinity": is_inside @ affinity / inside,
        "inside_step": is_inside @ step / inside,
        "border_length": np.sqrt(length) / 10.0,
        "border_over_size": length / np.sqrt(masks.sum(axis=1)) / 10.0,
    }


def _compute_fold_features(region_graph: RegionGraph, masks: BoolArray) -> dict[str, FloatArray]:
    """How much the surface folds inwards at the mask's border and inside, with and without what
    folds outwards: parts tend to meet in concavities (the minima rule of Hoffman and Richards,
        1984).
    """
    left, right = region_graph.pairs.T
    is_border = masks[:, left] != masks[:, right]
    is_inside = masks[:, left] & masks[:, right]
    length, inside = is_border.sum(axis=1) + TINY, is_inside.sum(axis=1) + TINY
    inwards = np.maximum(region_graph.concavities, 0.0)
    return {
        "border_fold": is_border @ region_graph.concavities / length,
        "inside_fold": is_inside @ region_graph.concavities / inside,
        "border_concavity": is_border @ inwards / length,
        "inside_concavity": is_inside @ inwards / inside,
    }


def _compute_affinity_features(
    region_graph: RegionGraph, masks: BoolArray, areas: FloatArray, positive: IntArray
) -> dict[str, FloatArray]:
    """Affinity with the clicks, within the mask, across its border; its extreme patches."""
    size = masks @ areas
    rest = _compute_rest(size)
    to_mask = (masks * areas) @ region_graph.affinity
    mean = to_mask / size[:, None]
    return {
        **_compute_click_affinity("positive", region_graph, masks, areas, positive),
        "affinity_within": (to_mask * masks) @ areas / size**2,
        "affinity_across": (to_mask * ~masks) @ areas / (size * rest),
        "least_affinity": np.where(masks, mean, 2.0).min(axis=1),
        "most_affinity_outside": np.where(masks, -1.0, mean).max(axis=1),
    }


def _compute_click_affinity(
    sign: str, region_graph: RegionGraph, masks: BoolArray, areas: FloatArray, clicked: IntArray
) -> dict[str, FloatArray]:
    """Mean affinity with clicked patches inside each mask and outside; 0 without any."""
    size = masks @ areas
    affinity = region_graph.affinity[clicked].sum(axis=0) * areas / max(len(clicked), 1)
    return {
        f"{sign}_affinity": masks @ affinity / size,
        f"{sign}_affinity_outside": ~masks @ affinity / _compute_rest(size),
    }


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
