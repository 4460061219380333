"""Edits of whole parts by number (merge, split), with stable part ids.

Splits follow the patch network's affinity inside the part. Ids of parts that stay
never move; a vacated id goes to the newest part, so that ids are dense with as few changes as
possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segvigen_model.config import EditConfig
from segvigen_model.surface.adjacency import Superfaces
from segvigen_model.surface.agglomeration import PartMerger
from segvigen_model.surface.arrays import TINY, sum_by
from segvigen_model.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Edits:
    """Merges and splits; ids are those of the partition that was shown.

    Attributes:
        merges: groups of ids; each becomes its first.
        splits: (id, wanted number of pieces or None), done after all merges.
    """

    merges: tuple[tuple[int, ...], ...] = ()
    splits: tuple[tuple[int, int | None], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.merges and not self.splits


@dataclass(frozen=True, slots=True)
class EditedPartition:
    """A partition after edits; ids are not dense yet (`compact_ids`).

    Attributes:
        labels: (F,) int64; pieces of splits have ids from the old number of parts on.
        merged_into: shown id -> id after the merges; a merged id maps to its target's.
        pieces: id that was split -> the ids of its pieces, itself first.
        notes: what could not be done, e.g. "split_found_no_border".
    """

    labels: IntArray
    merged_into: dict[int, int]
    pieces: dict[int, tuple[int, ...]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Splitter:
    """What splits of one surface's parts depend on.

    Attributes:
        superfaces: pieces that splits do not cut.
        affinity: (A, A) float probability that two superfaces are of one part.
        areas: (F,) float64 face areas.
        config: smallest piece of a split.
    """

    superfaces: Superfaces
    affinity: FloatArray
    areas: FloatArray
    config: EditConfig

    def pieces(self, mine: IntArray, count: int | None) -> IntArray:
        """(M,) piece of each face of a part, 0.. by falling area.

        Args:
            mine: (M,) int faces of the part.
            count: wanted pieces; as many as exceed the smallest size when None.
        """
        config, (inner, inner_affinity) = self.config, self._part_of(mine)
        merger = PartMerger(inner, inner_affinity)
        if count is None:
            merger.merge_above(1.0 - config.split_threshold)
            merger.absorb_small(config.min_piece_share)
            if merger.count > 1:
                merger.merge_to(config.max_auto_pieces)
        if count is not None or merger.count == 1:
            merger = _merge_to_count(count or 2, inner, inner_affinity, config.min_piece_share)
        of_superface = merger.labels
        size = sum_by(of_superface, inner.areas, merger.count)
        rank = np.zeros(merger.count, np.int64)
        rank[np.argsort(-size, kind="stable")] = np.arange(merger.count)
        # Connected components that touch nothing cannot be merged: the small ones become one piece.
        limit = min(config.max_auto_pieces if count is None else count, merger.count)
        found: IntArray = np.minimum(rank, limit - 1)[of_superface[inner.of_face]]
        return found

    def _part_of(self, mine: IntArray) -> tuple[Superfaces, FloatArray]:
        """The superfaces inside one part, with areas as shares of it, and their affinity."""
        superfaces = self.superfaces
        used, of_face = np.unique(superfaces.of_face[mine], return_inverse=True)
        size = sum_by(of_face, np.maximum(self.areas[mine], TINY), len(used))
        row = np.full(superfaces.count, -1)
        row[used] = np.arange(len(used))
        pairs = row[superfaces.pairs]
        inside = (pairs >= 0).all(axis=1)
        inner = Superfaces(
            of_face.reshape(-1).astype(np.int64),
            size / size.sum(),
            pairs[inside],
            superfaces.lengths[inside],
            superfaces.folds[inside],
            superfaces.source,
        )
        return inner, self.affinity[np.ix_(used, used)]


def compute_merged_ids(num_parts: int, merges: Sequence[Sequence[int]]) -> dict[int, int]:
    """Shown id -> id after merges; groups that share a part become one.

    Raises:
        ValueError: a merge names a part that is not there.
    """
    merged_into = {part: part for part in range(num_parts)}
    for group in merges:
        absent = [part for part in group if part not in merged_into]
        if absent:
            raise ValueError(f"merge names part {absent[0]}; the partition has 0..{num_parts - 1}")
        target, members = merged_into[group[0]], {merged_into[part] for part in group}
        merged_into = {part: target if at in members else at for part, at in merged_into.items()}
    return merged_into


def apply_edits(labels: IntArray, edits: Edits, splitter: Splitter) -> EditedPartition:
    """Merge, then split.

    Args:
        labels: (F,) int dense part ids.
        edits: what to do.
        splitter: what splits depend on.

    Raises:
        ValueError: an edit names a part that is not there.
    """
    num_parts = int(labels.max(initial=-1)) + 1
    merged_into = compute_merged_ids(num_parts, edits.merges)
    result = np.array([merged_into[part] for part in range(num_parts)], np.int64)[labels]
    pieces: dict[int, tuple[int, ...]] = {}
    notes = []
    next_id = num_parts
    for part, count in edits.splits:
        if part not in merged_into:
            raise ValueError(f"split names part {part}; the partition has 0..{num_parts - 1}")
        mine = np.flatnonzero(result == merged_into[part])
        found = splitter.pieces(mine, count)
        ids = np.concatenate([[merged_into[part]], next_id + np.arange(found.max(initial=0))])
        next_id += len(ids) - 1
        result[mine] = ids[found]
        pieces[merged_into[part]] = tuple(int(each) for each in ids)
        if len(ids) == 1:
            notes.append("split_found_no_border")
        elif count is not None and len(ids) < count:
            notes.append("split_into_fewer")
    return EditedPartition(result, merged_into, pieces, tuple(dict.fromkeys(notes)))


def compact_ids(labels: IntArray) -> tuple[IntArray, dict[int, int]]:
    """Make ids dense and move as few as possible: a vacated id goes to the newest part.

    Args:
        labels: (F,) int ids >= 0; higher ids are newer.

    Returns:
        (F,) int32, 0..P-1, and old id -> new id.
    """
    ids, where = np.unique(labels, return_inverse=True)
    count = len(ids)
    vacant = np.setdiff1d(np.arange(count), ids)
    new_ids = ids.copy()
    new_ids[ids >= count] = vacant[::-1]  # ascending ids: the newest gets the lowest vacancy
    mapping = {int(old): int(new) for old, new in zip(ids, new_ids, strict=True)}
    return new_ids[where.reshape(-1)].astype(np.int32), mapping


def _merge_to_count(
    count: int, inner: Superfaces, affinity: FloatArray, min_piece_share: float
) -> PartMerger:
    """Merge down to `count` pieces, none of them a fragment where that is possible."""
    for factor in (1, 2, 4, 8, 16):
        merger = PartMerger(inner, affinity)
        merger.merge_to(count * factor)
        merger.absorb_small(min_piece_share)
        if merger.count >= count:
            merger.merge_to(count)
            return merger
    merger = PartMerger(inner, affinity)
    merger.merge_to(count)
    return merger
