"""Several opinions to one partition: exclusive, exhaustive, dense ids.

Draws vote on geometric segments; neighbouring segments that the draws keep together are merged,
cheapest border first, until the granularity's threshold. Coarser granularities continue from
finer ones, so parts only ever grow. Overlapping masks are settled by argmax and a graph cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from segvigen_model.config import GuidedConfig, MergingConfig, SegmenterConfig
from segvigen_model.interactive.affinity import Bonds
from segvigen_model.interactive.click_decoding import draw_odds, togetherness
from segvigen_model.surface.adjacency import Atoms, border_weights
from segvigen_model.surface.agglomeration import PartMerger
from segvigen_model.surface.arrays import TINY, sum_by
from segvigen_model.surface.graph_cut import expand_labels
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


def consensus(
    draws: IntArray,
    atoms: Atoms,
    bonds: Bonds,
    areas: FloatArray,
    granularity: str,
    config: SegmenterConfig,
) -> Partition:
    """Turn geometry and several labelings of the faces into one partition.

    Args:
        draws: (K, F) int, one labeling per draw, ids 0-based; K = 0 uses geometry only.
        atoms: patches to be labelled.
        bonds: what the patch network read of them.
        areas: (F,) float64 face areas.
        granularity: "fine", "medium" or "coarse".
        config: of the segmenter.

    Returns:
        The partition; its number of parts never rises from fine to coarse.
    """
    levels, drawn = config.merging.up_to(granularity), None
    if len(draws):
        drawn = draw_odds(label_agreement(draws, atoms, areas), config.fusion)
    together = togetherness(bonds, drawn)
    merger = PartMerger(atoms, togetherness(bonds, drawn, config.merging.component_reserve))
    for level in levels:
        merger.merge_above(1.0 - level.merge_threshold)
        merger.absorb_small(level.min_part_area)
    of_atom = merger.labels
    confidence = expected_iou(of_atom, together, atoms.areas)
    shares = sum_by(of_atom, atoms.areas, merger.count)
    labels = of_atom[atoms.of_face].astype(np.int32)
    notes = () if len(draws) else ("geometry_only",)
    return Partition(labels, confidence, float(np.average(confidence, weights=shares)), notes)


def grown_parts(atoms: Atoms, bonds: Bonds, config: MergingConfig) -> tuple[IntArray, int]:
    """Parts that geometry alone gives: (A,) dense part of each atom, and how many there are."""
    merger = PartMerger(atoms, togetherness(bonds, reserve=config.component_reserve))
    merger.merge_above(1.0 - config.medium.merge_threshold)
    merger.absorb_small(config.medium.min_part_area)
    return merger.labels, merger.count


def expected_iou(of_atom: IntArray, together: FloatArray, shares: FloatArray) -> FloatArray:
    """IoU that each part may be expected to have with the true one.

    Were `together` right and independent, the IoU would follow; it is too modest about small
    parts, so its square root is taken, which fits 48 development objects (correlation .67 with
    the matched IoU of the asset).

    Args:
        of_atom: (A,) int dense part of each atom.
        together: (A, A) float 0..1 probability that two atoms are of one part.
        shares: (A,) float areas.

    Returns:
        (P,) float32: mean over a part's atoms of (area inside that is together with the atom) /
        (area of the part + area outside that is together with it).
    """
    count = int(of_atom.max(initial=0)) + 1
    member = np.zeros((len(of_atom), count))
    member[np.arange(len(of_atom)), of_atom] = shares
    inside = (together @ member)[np.arange(len(of_atom)), of_atom]
    outside = together @ shares - inside
    sizes = member.sum(axis=0)
    iou = np.clip(inside / np.maximum(sizes[of_atom] + outside, TINY), 0.0, 1.0)
    mean: FloatArray = sum_by(of_atom, iou * shares, count) / np.maximum(sizes, TINY)
    return np.sqrt(mean).astype(np.float32)


def overlap(left: IntArray, right: IntArray, areas: FloatArray) -> FloatArray:
    """IoU of every part of one labeling with every part of another: (F,), (F,) -> (P, Q)."""
    rows, columns = int(left.max(initial=0)) + 1, int(right.max(initial=0)) + 1
    shared = sum_by(left.astype(np.int64) * columns + right, areas, rows * columns)
    shared = shared.reshape(rows, columns)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0) - shared
    iou: FloatArray = shared / np.maximum(union, TINY)
    return iou


def part_confidence(labels: IntArray, draws: IntArray, areas: FloatArray) -> FloatArray:
    """(P,) float32: mean over draws of the best IoU that each part reaches; 0.5 without draws."""
    if not len(draws):
        return np.full(int(labels.max(initial=0)) + 1, 0.5, np.float32)
    best = [overlap(labels, draw, areas).max(axis=1) for draw in draws]
    confidence: FloatArray = np.mean(best, axis=0).astype(np.float32)
    return confidence


def refined_confidence(
    before: IntArray, after: IntArray, touched: set[int], areas: FloatArray
) -> FloatArray:
    """(P,) float32: sure of the parts that a person touched, else how much of a part stayed.

    Args:
        before, after: (F,) int part ids.
        touched: ids after.
        areas: (F,) of the faces.
    """
    stayed = part_confidence(after, before[None], areas)
    stayed[list(touched)] = 1.0
    return stayed


def exclusive_labels(probabilities: FloatArray, atoms: Atoms, config: GuidedConfig) -> IntArray:
    """Settle overlapping masks: every face goes to exactly one of them.

    Args:
        probabilities: (A, P) float, probability of each part's mask at each atom.
        atoms: pieces to be labelled.
        config: weight of borders against probabilities.

    Returns:
        (F,) int32, 0..P-1; a mask that loses everywhere has no face.
    """
    costs = -np.log(np.clip(probabilities, 1e-4, 1.0)) * (atoms.areas * atoms.count)[:, None]
    weights = config.smoothness * border_weights(atoms, config.fold_discount)
    start = np.argmin(costs, axis=1)
    labels = expand_labels(costs, atoms.pairs, weights, start, config.num_sweeps)
    return labels[atoms.of_face].astype(np.int32)


def densify(labels: IntArray) -> tuple[IntArray, dict[int, int]]:
    """Renumber to 0..P-1 in the old order: (F,) int32 labels and old id -> new id."""
    ids, dense = np.unique(labels, return_inverse=True)
    mapping = {int(old): new for new, old in enumerate(ids)}
    return dense.reshape(-1).astype(np.int32), mapping


def label_agreement(draws: IntArray, atoms: Atoms, areas: FloatArray) -> FloatArray:
    """(A, A) float64 0..1: mean over K >= 1 draws of the chance that two atoms share a label."""
    agreement: FloatArray = np.zeros((atoms.count, atoms.count))
    for draw in draws:
        shares = label_histograms(draw[None], atoms, areas)
        agreement += shares @ shares.T / len(draws)
    return agreement


def label_histograms(draws: IntArray, atoms: Atoms, areas: FloatArray) -> FloatArray:
    """(A, sum of labels) share of each draw's labels per atom; rows sum to 1.

    Args:
        draws: (K, F) int labelings, K >= 1.
        atoms: the pieces.
        areas: (F,) face areas.
    """
    columns = []
    safe = np.maximum(areas, TINY)
    total = np.maximum(sum_by(atoms.of_face, safe, atoms.count), TINY)[:, None]
    for draw in draws:
        count = int(draw.max(initial=0)) + 1
        share = sum_by(atoms.of_face * count + draw, safe, atoms.count * count)
        columns.append(share.reshape(atoms.count, count) / total)
    histograms: FloatArray = np.concatenate(columns, axis=1) / len(draws)
    return histograms
