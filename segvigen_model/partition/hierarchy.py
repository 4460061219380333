"""Coarse and fine parts in one tree: levels of a partition, each nested in the one before.

The reviewed parts are one level. Finer levels are pieces inside parts: what the patch network
would still divide, and what a person merged. The coarse level groups whole parts. Only the
reviewed level comes from a person; the others come from the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segvigen_model.config import MergingConfig
from segvigen_model.surface.adjacency import Superfaces
from segvigen_model.surface.agglomeration import PartMerger
from segvigen_model.surface.arrays import TINY, densify_ids, sum_by
from segvigen_model.types import FloatArray, IntArray

# Rules of stored levels. They hold where labels are edited and no segmenter is loaded too.
MAX_FINER_LEVELS = 4
MIN_PIECE_AREA = 0.001  # share of the surface; the default fine granularity's least part


@dataclass(frozen=True, slots=True)
class PartTree:
    """Nested levels of one surface as a forest of nodes.

    Node `offsets[l] + id` is part `id` of level `l`.

    Attributes:
        levels: (L, F) int32 dense ids per level and face, coarsest level first.
        offsets: (L + 1,) int32 first node of each level, then the number of nodes.
        parents: (N,) int32 node that holds each node, -1 on the coarsest level.
        part_level: the level whose ids are the reviewed parts.
    """

    levels: IntArray
    offsets: IntArray
    parents: IntArray
    part_level: int

    def find_children(self, part: int) -> IntArray:
        """Ids on the next finer level that make up a reviewed part; empty at the finest."""
        node = self.offsets[self.part_level] + part
        found: IntArray = np.flatnonzero(self.parents == node)
        return found - self.offsets[self.part_level + 1] if len(found) else found


def split_into_fine_parts(
    labels: IntArray,
    superfaces: Superfaces,
    affinity: FloatArray,
    areas: FloatArray,
    config: MergingConfig,
) -> IntArray:
    """Split parts to the "fine" granularity inside them.

    Args:
        labels: (F,) int dense part ids.
        superfaces: pieces that are not cut.
        affinity: (A, A) float probability that two superfaces are of one part.
        areas: (F,) float64 face areas.
        config: what "fine" is.

    Returns:
        (F,) int32 dense ids, nested in `labels`.
    """
    own = _compute_shares(labels, superfaces, areas).argmax(axis=1)
    merger = PartMerger(
        superfaces, affinity, own[superfaces.pairs[:, 0]] == own[superfaces.pairs[:, 1]]
    )
    merger.merge_above(1.0 - config.fine.merge_threshold)
    merger.absorb_small(config.fine.min_part_area, config.small_of_typical)
    return nest_labels(labels, merger.labels[superfaces.of_face], areas)


def group_into_coarse_parts(
    labels: IntArray,
    superfaces: Superfaces,
    affinity: FloatArray,
    areas: FloatArray,
    config: MergingConfig,
) -> IntArray:
    """Group touching parts that are likely to be one: the "coarse" granularity above them.

    Returns:
        (P,) int32 dense group of each part.
    """
    member = _compute_shares(labels, superfaces, areas)
    own, size = member.argmax(axis=1), np.maximum(member.sum(axis=0), TINY)
    mean = member / size
    part_affinity = mean.T @ affinity @ mean
    pairs = np.unique(np.sort(own[superfaces.pairs], axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    blank = np.zeros(len(pairs))
    parts = Superfaces(labels.astype(np.int64), size / size.sum(), pairs, blank, blank, "parts")
    merger = PartMerger(parts, part_affinity)
    merger.merge_above(1.0 - config.coarse.merge_threshold)
    return densify_ids(merger.labels).astype(np.int32)


def build_first_levels(
    labels: IntArray,
    superfaces: Superfaces,
    affinity: FloatArray,
    areas: FloatArray,
    config: MergingConfig,
) -> tuple[IntArray, IntArray]:
    """Levels below and above a first partition, by the patch network.

    Returns:
        (L, F) finer levels, L 0 or 1, and (P,) groups.
    """
    finer = carry_levels(
        labels, [split_into_fine_parts(labels, superfaces, affinity, areas, config)], areas
    )
    return finer, group_into_coarse_parts(labels, superfaces, affinity, areas, config)


def nest_labels(labels: IntArray, finer: IntArray, areas: FloatArray) -> IntArray:
    """Cut a finer labeling at the borders of a coarser one.

    Pieces below the smallest part that is kept go to the largest piece of their part.

    Args:
        labels: (F,) int ids.
        finer: (F,) int ids, not nested.
        areas: (F,) float64 face areas.

    Returns:
        (F,) int32 dense ids, each inside one of `labels`.
    """
    fine_part = densify_ids(labels.astype(np.int64) * (int(finer.max(initial=0)) + 1) + finer)
    count = int(fine_part.max(initial=0)) + 1
    size = sum_by(fine_part, np.maximum(areas, TINY), count)
    owner = np.zeros(count, np.int64)
    owner[fine_part] = labels
    order = np.argsort(size, kind="stable")
    largest = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    largest[owner[order]] = order
    is_fragment = size < MIN_PIECE_AREA * size.sum()
    target = np.where(is_fragment, largest[owner], np.arange(count))
    return densify_ids(target[fine_part]).astype(np.int32)


def carry_levels(
    labels: IntArray, finer: Sequence[IntArray] | IntArray, areas: FloatArray
) -> IntArray:
    """Nest older finer levels into a new partition; levels that add nothing are dropped.

    Args:
        labels: (F,) int32 dense part ids.
        finer: older levels, coarsest first; partitions that were merged come first.
        areas: (F,) float64 face areas.

    Returns:
        (L, F) int32, each level nested in the one before and in `labels`.
    """
    kept: list[IntArray] = []
    above = labels
    for level in finer:
        below = nest_labels(above, level, areas)
        if below.max(initial=0) > above.max(initial=0):
            kept.append(below)
            above = below
    kept = kept if len(kept) <= MAX_FINER_LEVELS else [*kept[: MAX_FINER_LEVELS - 1], kept[-1]]
    return np.stack(kept) if kept else np.zeros((0, len(labels)), np.int32)


def carry_groups(before: IntArray, labels: IntArray, areas: FloatArray) -> IntArray:
    """(P,) int32 group of each new part: the old group (F,) that most of it lies in."""
    columns = int(before.max(initial=0)) + 1
    rows = int(labels.max(initial=0)) + 1
    shared = sum_by(labels.astype(np.int64) * columns + before, areas + TINY, rows * columns)
    return densify_ids(shared.reshape(rows, columns).argmax(axis=1)).astype(np.int32)


def build_part_tree(labels: IntArray, finer: IntArray | None, groups: IntArray | None) -> PartTree:
    """Put all levels into one tree.

    Args:
        labels: (F,) int32 dense reviewed parts.
        finer: (L, F) nested levels below, or None.
        groups: (P,) group of each part, or None; left out where it groups nothing.
    """
    levels = [labels.astype(np.int32)]
    num_parts = int(labels.max(initial=0)) + 1
    is_grouping = groups is not None and 1 < int(groups.max(initial=0)) + 1 < num_parts
    if groups is not None and is_grouping:
        levels.insert(0, groups[labels].astype(np.int32))
    if finer is not None:
        levels += [level.astype(np.int32) for level in finer]
    sizes = [int(level.max(initial=0)) + 1 for level in levels]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    parents = np.full(int(offsets[-1]), -1, np.int32)
    for number in range(1, len(levels)):
        parents[offsets[number] + levels[number]] = offsets[number - 1] + levels[number - 1]
    return PartTree(np.stack(levels), offsets, parents, int(is_grouping))


def _compute_shares(labels: IntArray, superfaces: Superfaces, areas: FloatArray) -> FloatArray:
    """(A, P) area of each superface in each part."""
    count = int(labels.max(initial=0)) + 1
    weight = np.maximum(areas, TINY)
    rows = superfaces.of_face * count + labels
    shares: FloatArray = sum_by(rows, weight, superfaces.count * count).reshape(
        superfaces.count, count
    )
    return shares
