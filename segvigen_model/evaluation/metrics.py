"""Scores of face labelings, weighted by surface area: IoU, best-match and one-to-one mIoU, borders.

No score depends on how parts are numbered or where the mesh stands. The best-match score lets one
predicted part serve several true ones and is optimistic; report it beside the one-to-one score.
"""

from __future__ import annotations

from scipy.spatial import cKDTree

from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.overlap import measure_overlap
from segvigen_model.types import BoolArray, FloatArray, IntArray

BOUNDARY_TOLERANCE = 0.02  # of the longest side


def compute_mask_iou(predicted: BoolArray, truth: BoolArray, areas: FloatArray) -> float:
    """Area-weighted IoU of two face sets; two empty sets agree.

    Args:
        predicted, truth: (F,) bool.
        areas: (F,) float.
    """
    union = float(areas[predicted | truth].sum())
    if union <= 0:
        return 1.0
    return float(areas[predicted & truth].sum()) / union


def compute_iou_table(predicted: IntArray, truth: IntArray, areas: FloatArray) -> FloatArray:
    """IoU of every true part with every predicted one.

    Args:
        predicted, truth: (F,) int labels of any numbering.
        areas: (F,) float.

    Returns:
        (true parts with area, predicted parts) float64, in ascending order of label.
    """
    return measure_overlap(truth, predicted, areas).drop_empty_rows().iou


def compute_miou_best(predicted: IntArray, truth: IntArray, areas: FloatArray) -> float:
    """Mean over true parts of the best IoU of any predicted part."""
    return float(compute_iou_table(predicted, truth, areas).max(axis=1).mean())


def compute_miou_matched(predicted: IntArray, truth: IntArray, areas: FloatArray) -> float:
    """Mean over true parts under the best one-to-one matching; unmatched parts count 0."""
    overlap = measure_overlap(truth, predicted, areas).drop_empty_rows()
    return float(overlap.iou[overlap.match_parts()].sum() / len(overlap.rows))


def compute_miou_mutual(first: IntArray, second: IntArray, areas: FloatArray) -> float:
    """Agreement of two labelings: matched IoU over the larger number of parts.

    Neither is the truth: a part of either one without a partner in the other counts 0.
    """
    overlap = measure_overlap(second, first, areas).drop_empty_rows()
    num_first = int((overlap.shared.sum(axis=0) > 0).sum())
    return float(overlap.iou[overlap.match_parts()].sum() / max(len(overlap.rows), num_first))


def compute_boundary_f1(
    predicted: IntArray,
    truth: IntArray,
    surface: Surface,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> float:
    """F1 of part borders on the surface in 3D, weighted by edge length.

    A border is the set of edges between two faces of different parts, each edge standing for its
    length at the middle between the two faces' centres. Precision is the share of predicted border
    length that has true border within `tolerance`, recall the share of true border length that has
    predicted border within it; distances are straight lines. Two labelings without any border
    agree (1.0), one border against none is 0.0. The score is symmetric in its labelings.

    Args:
        predicted, truth: (F,) int labels.
        surface: geometry of the mesh.
        tolerance: share of the mesh's longest side.
    """
    pairs = surface.pairs
    middles = surface.centers[pairs].mean(axis=1)
    sets = [labels[pairs[:, 0]] != labels[pairs[:, 1]] for labels in (predicted, truth)]
    if not sets[0].any() or not sets[1].any():
        return float(sets[0].any() == sets[1].any())
    reach = tolerance * surface.extent
    precision = compute_near_share(
        middles[sets[0]], middles[sets[1]], surface.lengths[sets[0]], reach
    )
    recall = compute_near_share(middles[sets[1]], middles[sets[0]], surface.lengths[sets[1]], reach)
    return 2 * precision * recall / max(precision + recall, 1e-12)


def compute_near_share(
    points: FloatArray, others: FloatArray, weights: FloatArray, reach: float
) -> float:
    """Weighted share of points that have one of the others within reach."""
    near = cKDTree(others).query(points)[0] <= reach
    return float(weights[near].sum() / max(float(weights.sum()), 1e-12))
