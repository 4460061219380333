"""Several opinions to one partition: exclusive, exhaustive, dense ids.

Draws vote on patches; neighbouring patches that the draws keep together are merged,
cheapest border first, until the granularity's threshold. Coarser granularities continue from
finer ones, so parts only ever grow. Overlapping masks are resolved by argmax and a graph cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from segvigen_model.config import GuidedConfig, MergingConfig, SegmenterConfig
from segvigen_model.interactive.affinity import AffinityMatrix, Patches
from segvigen_model.interactive.click_decoding import compute_draw_logits, same_part_affinity
from segvigen_model.surface.adjacency import Superfaces, compute_border_weights
from segvigen_model.surface.agglomeration import PartMerger
from segvigen_model.surface.arrays import TINY, sum_by
from segvigen_model.surface.graph_cut import expand_labels
from segvigen_model.surface.overlap import measure_overlap
from segvigen_model.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Partition:
    """One label per face, with how sure the model is.

    Attributes:
        labels: (F,) int32 dense 0..P-1.
        part_confidence: (P,) float32, the IoU to be expected of each part; after clicks 1 where a
            person clicked, else how much of the part stayed.
        confidence: 0..1, their area-weighted mean.
        notes: fallbacks that were used.
    """

    labels: IntArray
    part_confidence: FloatArray
    confidence: float
    notes: tuple[str, ...] = field(default=())

    @property
    def count(self) -> int:
        """Number of parts."""
        return len(self.part_confidence)


def find_consensus(
    draws: IntArray,
    patches: Patches,
    areas: FloatArray,
    granularity: str,
    config: SegmenterConfig,
) -> Partition:
    """Turn geometry and several labelings of the faces into one partition.

    Args:
        draws: (K, F) int, one labeling per draw, ids 0-based; K = 0 uses geometry only.
        patches: to be labelled, with what the patch network read of them.
        areas: (F,) float64 face areas.
        granularity: "fine", "medium" or "coarse".
        config: of the segmenter.

    Returns:
        The partition; its number of parts never rises from fine to coarse.
    """
    superfaces, affinity_matrix = patches
    levels, draw_logits = config.merging.list_up_to(granularity), None
    if len(draws):
        draw_logits = compute_draw_logits(
            measure_label_agreement(draws, superfaces, areas), config.fusion
        )
    affinity = same_part_affinity(affinity_matrix, draw_logits)
    merger = PartMerger(
        superfaces,
        same_part_affinity(affinity_matrix, draw_logits, config.merging.component_reserve),
    )
    for level in levels:
        merger.merge_above(1.0 - level.merge_threshold)
        merger.absorb_small(level.min_part_area, config.merging.small_of_typical)
    of_superface = merger.labels
    confidence = compute_expected_iou(of_superface, affinity, superfaces.areas)
    shares = sum_by(of_superface, superfaces.areas, merger.count)
    labels = of_superface[superfaces.of_face].astype(np.int32)
    notes = () if len(draws) else ("geometry_only",)
    return Partition(labels, confidence, float(np.average(confidence, weights=shares)), notes)


def grow_parts(
    superfaces: Superfaces, affinity_matrix: AffinityMatrix, config: MergingConfig
) -> tuple[IntArray, int]:
    """Parts that geometry alone gives: (A,) dense part of each superface, and how many there
    are."""
    merger = PartMerger(
        superfaces, same_part_affinity(affinity_matrix, component_penalty=config.component_reserve)
    )
    merger.merge_above(1.0 - config.medium.merge_threshold)
    merger.absorb_small(config.medium.min_part_area, config.small_of_typical)
    return merger.labels, merger.count


def compute_expected_iou(
    of_superface: IntArray, affinity: FloatArray, shares: FloatArray
) -> FloatArray:
    """IoU that each part may be expected to have with the true one.

    Were `affinity` right and independent, the IoU would follow; it is too modest about small
    parts, so its square root is taken, which fits 48 development objects (correlation .67 with
    the matched IoU of the asset).

    Args:
        of_superface: (A,) int dense part of each superface.
        affinity: (A, A) float 0..1 probability that two superfaces are of one part.
        shares: (A,) float areas.

    Returns:
        (P,) float32: mean over a part's superfaces of (area inside that is together with the
        superface) / (area of the part + area outside that is together with it).
    """
    count = int(of_superface.max(initial=0)) + 1
    member = np.zeros((len(of_superface), count))
    member[np.arange(len(of_superface)), of_superface] = shares
    inside = (affinity @ member)[np.arange(len(of_superface)), of_superface]
    outside = affinity @ shares - inside
    sizes = member.sum(axis=0)
    iou = np.clip(inside / np.maximum(sizes[of_superface] + outside, TINY), 0.0, 1.0)
    mean: FloatArray = sum_by(of_superface, iou * shares, count) / np.maximum(sizes, TINY)
    return np.sqrt(mean).astype(np.float32)


def update_confidence(
    before: IntArray, after: IntArray, touched: set[int], areas: FloatArray
) -> FloatArray:
    """(P,) float32: sure of the parts that a person touched, else how much of a part stayed.

    Args:
        before, after: (F,) int dense part ids.
        touched: ids after.
        areas: (F,) of the faces.
    """
    iou = measure_overlap(after, before, areas).iou
    stayed: FloatArray = iou.max(axis=1).astype(np.float32)
    stayed[list(touched)] = 1.0
    return stayed


def resolve_overlaps(
    probabilities: FloatArray, superfaces: Superfaces, config: GuidedConfig
) -> IntArray:
    """Resolve overlapping masks: every face goes to exactly one of them.

    Args:
        probabilities: (A, P) float, probability of each part's mask at each superface.
        superfaces: pieces to be labelled.
        config: weight of borders against probabilities.

    Returns:
        (F,) int32, 0..P-1; a mask that loses everywhere has no face.
    """
    costs = (
        -np.log(np.clip(probabilities, 1e-4, 1.0)) * (superfaces.areas * superfaces.count)[:, None]
    )
    weights = config.smoothness * compute_border_weights(superfaces, config.fold_discount)
    start = np.argmin(costs, axis=1)
    labels = expand_labels(costs, superfaces.pairs, weights, start, config.num_sweeps)
    return labels[superfaces.of_face].astype(np.int32)


def densify_labels(labels: IntArray) -> tuple[IntArray, dict[int, int]]:
    """Renumber to 0..P-1 in the old order: (F,) int32 labels and old id -> new id."""
    ids, dense = np.unique(labels, return_inverse=True)
    mapping = {int(old): new for new, old in enumerate(ids)}
    return dense.reshape(-1).astype(np.int32), mapping


def measure_label_agreement(
    draws: IntArray, superfaces: Superfaces, areas: FloatArray
) -> FloatArray:
    """(A, A) float64 0..1: mean over K >= 1 draws of the chance that two superfaces share a
    label."""
    agreement: FloatArray = np.zeros((superfaces.count, superfaces.count))
    for draw in draws:
        shares = count_labels(draw[None], superfaces, areas)
        agreement += shares @ shares.T / len(draws)
    return agreement


def count_labels(draws: IntArray, superfaces: Superfaces, areas: FloatArray) -> FloatArray:
    """(A, sum of labels) share of each draw's labels per superface; rows sum to 1.

    Args:
        draws: (K, F) int labelings, K >= 1.
        superfaces: the pieces.
        areas: (F,) face areas.
    """
    columns = []
    safe = np.maximum(areas, TINY)
    total = np.maximum(sum_by(superfaces.of_face, safe, superfaces.count), TINY)[:, None]
    for draw in draws:
        count = int(draw.max(initial=0)) + 1
        share = sum_by(superfaces.of_face * count + draw, safe, superfaces.count * count)
        columns.append(share.reshape(superfaces.count, count) / total)
    histograms: FloatArray = np.concatenate(columns, axis=1) / len(draws)
    return histograms
