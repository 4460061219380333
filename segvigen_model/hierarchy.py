"""Coarse and fine parts in one tree: levels of a partition, each nested in the one before.

The reviewed parts are one level. Finer levels are pieces inside parts: what the learned borders
would still cut, and what a person merged. The coarse level groups whole parts. Only the reviewed
level is a person's word; the others are the model's, and every level says which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segvigen_model.atoms import Atoms, PartMerger, join_pairs
from segvigen_model.geometry import TINY, dense_ids, sum_by
from segvigen_model.partition import MERGE_THRESHOLDS, MIN_PART_AREAS
from segvigen_model.types import FloatArray, IntArray

MAX_FINER_LEVELS = 4


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

    def children(self, part: int) -> IntArray:
        """Ids on the next finer level that make up a reviewed part; empty at the finest."""
        node = self.offsets[self.part_level] + part
        found: IntArray = np.flatnonzero(self.parents == node)
        return found - self.offsets[self.part_level + 1] if len(found) else found


def fine_pieces(labels: IntArray, atoms: Atoms, costs: FloatArray, areas: FloatArray) -> IntArray:
    """Cut parts along borders that are too weak for parts: the "fine" granularity inside them.

    Args:
        labels: (F,) int dense part ids.
        atoms: pieces that are not cut.
        costs: (B,) float probability that a border of atoms is one of parts.
        areas: (F,) float64 face areas.

    Returns:
        (F,) int32 dense ids, nested in `labels`.
    """
    own = _main_label(labels, atoms, areas)
    merger = PartMerger(atoms, costs, own[atoms.pairs[:, 0]] == own[atoms.pairs[:, 1]])
    merger.merge_below(MERGE_THRESHOLDS["fine"])
    merger.absorb_small(MIN_PART_AREAS["fine"])
    return nested(labels, merger.labels[atoms.of_face], areas)


def coarse_groups(labels: IntArray, atoms: Atoms, costs: FloatArray, areas: FloatArray) -> IntArray:
    """Group parts whose common border is weak: the "coarse" granularity above them.

    Returns:
        (P,) int32 dense group of each part.
    """
    own = _main_label(labels, atoms, areas)
    sides = own[atoms.pairs]
    is_border = sides[:, 0] != sides[:, 1]
    count = int(labels.max(initial=0)) + 1
    pairs, lengths, joined = join_pairs(
        np.sort(sides[is_border], axis=1), atoms.lengths[is_border], costs[is_border]
    )
    size = sum_by(labels, np.maximum(areas, TINY), count)
    parts = Atoms(labels.astype(np.int64), size / size.sum(), pairs, lengths, joined, "parts")
    merger = PartMerger(parts, joined)
    merger.merge_below(MERGE_THRESHOLDS["coarse"])
    return dense_ids(merger.labels).astype(np.int32)


def first_levels(
    labels: IntArray, atoms: Atoms, costs: FloatArray, areas: FloatArray
) -> tuple[IntArray, IntArray]:
    """What the learned borders say below and above a first partition.

    Returns:
        (L, F) finer levels, L 0 or 1, and (P,) groups.
    """
    finer = carried_levels(labels, [fine_pieces(labels, atoms, costs, areas)], areas)
    return finer, coarse_groups(labels, atoms, costs, areas)


def nested(labels: IntArray, finer: IntArray, areas: FloatArray) -> IntArray:
    """Cut a finer labeling at the borders of a coarser one.

    Pieces below the smallest part that is kept go to the largest piece of their part.

    Args:
        labels: (F,) int ids.
        finer: (F,) int ids, not nested.
        areas: (F,) float64 face areas.

    Returns:
        (F,) int32 dense ids, each inside one of `labels`.
    """
    piece = dense_ids(labels.astype(np.int64) * (int(finer.max(initial=0)) + 1) + finer)
    count = int(piece.max(initial=0)) + 1
    size = sum_by(piece, np.maximum(areas, TINY), count)
    owner = np.zeros(count, np.int64)
    owner[piece] = labels
    order = np.argsort(size, kind="stable")
    largest = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    largest[owner[order]] = order
    is_crumb = size < MIN_PART_AREAS["fine"] * size.sum()
    target = np.where(is_crumb, largest[owner], np.arange(count))
    return dense_ids(target[piece]).astype(np.int32)


def carried_levels(
    labels: IntArray, finer: Sequence[IntArray] | IntArray, areas: FloatArray
) -> IntArray:
    """Nest older finer levels into a new partition; levels that say nothing new are dropped.

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
        below = nested(above, level, areas)
        if below.max(initial=0) > above.max(initial=0):
            kept.append(below)
            above = below
    kept = kept if len(kept) <= MAX_FINER_LEVELS else [*kept[: MAX_FINER_LEVELS - 1], kept[-1]]
    return np.stack(kept) if kept else np.zeros((0, len(labels)), np.int32)


def carried_groups(before: IntArray, labels: IntArray, areas: FloatArray) -> IntArray:
    """(P,) int32 group of each new part: the old group (F,) that most of it lies in."""
    columns = int(before.max(initial=0)) + 1
    rows = int(labels.max(initial=0)) + 1
    shared = sum_by(labels.astype(np.int64) * columns + before, areas + TINY, rows * columns)
    return dense_ids(shared.reshape(rows, columns).argmax(axis=1)).astype(np.int32)


def part_tree(labels: IntArray, finer: IntArray | None, groups: IntArray | None) -> PartTree:
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


def _main_label(labels: IntArray, atoms: Atoms, areas: FloatArray) -> IntArray:
    """(A,) the label that most of each atom has."""
    count = int(labels.max(initial=0)) + 1
    weight = np.maximum(areas, TINY)
    shared = sum_by(atoms.of_face * count + labels, weight, atoms.count * count)
    main: IntArray = shared.reshape(atoms.count, count).argmax(axis=1)
    return main
