"""Clicks on a partition: each click moves exactly one region.

The region is chosen among the nested segments around the click, cut to the part that it lies in, by
expected IoU under the probability of the clicked part. No region may contain a click with another
target, so every click holds afterwards. Parts without clicks do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segvigen_model.config import EditConfig
from segvigen_model.partition.consensus import Partition, update_confidence
from segvigen_model.partition.edits import EditedPartition, compact_ids
from segvigen_model.surface.adjacency import Superfaces
from segvigen_model.surface.arrays import TINY, label_components, sum_by
from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.region_merging import SegmentTree
from segvigen_model.types import BoolArray, Click, ClickKind, FloatArray, IntArray, RefinementState

NO_TARGET = -1


@dataclass(frozen=True, slots=True)
class ClickConstraint:
    """One click, resolved to part ids.

    Attributes:
        face: clicked face.
        target: part that the face must belong to; NO_TARGET for a negative click.
        avoid: part that the face must not belong to; NO_TARGET for a positive click.
        is_new: the target is a part that no face had before.
    """

    face: int
    target: int
    avoid: int
    is_new: bool

    @property
    def splits_part(self) -> bool:
        """Whether a share of the part that holds the face must stay."""
        return self.is_new or self.target == NO_TARGET

    @property
    def key(self) -> tuple[int, int]:
        """Constraints of one key point at the same part: a target, or each negative face by
        itself."""
        return (self.target, -1) if self.target != NO_TARGET else (NO_TARGET, self.face)


@dataclass(frozen=True, slots=True)
class RefinedPartition:
    """A partition after clicks.

    Attributes:
        labels: (F,) int32 dense.
        id_map: old part id (and ids of new parts before renumbering) -> id in `labels`.
        notes: fallbacks used, e.g. "negative_click_made_part".
    """

    labels: IntArray
    id_map: dict[int, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClickRegions:
    """What the region of a click is chosen from.

    Attributes:
        surface: geometry.
        tree: nested segments.
        superfaces: touching pieces.
        config: smallest share that a division leaves.
    """

    surface: Surface
    tree: SegmentTree
    superfaces: Superfaces
    config: EditConfig


def resolve_clicks(
    clicks: Sequence[Click],
    num_parts: int,
    not_object_part: int | None,
    first_new: int | None = None,
) -> tuple[list[ClickConstraint], int | None]:
    """Give every click its part ids; of several clicks on one face the last counts.

    Args:
        clicks: as the reviewer made them.
        num_parts: parts of the partition shown.
        not_object_part: background part so far, or None.
        first_new: lowest id that no face has; `num_parts` when None.

    Returns:
        The constraints in order, and the background part after these clicks.

    Raises:
        ValueError: a click names a part that was not shown.
    """
    groups = sorted({click.group for click in clicks if click.kind is ClickKind.NEW_PART})
    fresh = num_parts if first_new is None else first_new
    new_ids = {group: fresh + rank for rank, group in enumerate(groups)}
    background_part = not_object_part
    if background_part is None and any(click.kind is ClickKind.NOT_OBJECT for click in clicks):
        background_part = fresh + len(groups)
    by_face: dict[int, ClickConstraint] = {}
    for click in clicks:
        target = NO_TARGET
        if click.kind is ClickKind.NEW_PART:
            target = new_ids[click.group]
        elif click.kind is ClickKind.NOT_OBJECT and background_part is not None:
            target = background_part
        elif not 0 <= click.part < num_parts:
            raise ValueError(f"click names part {click.part}; the partition has 0..{num_parts - 1}")
        elif click.is_positive:
            target = click.part
        avoid = click.part if target == NO_TARGET else NO_TARGET
        by_face.pop(click.face, None)
        by_face[click.face] = ClickConstraint(click.face, target, avoid, target >= fresh)
    return list(by_face.values()), background_part


def renumber_clicks(
    edited: EditedPartition, clicks: Sequence[Click], background: int | None
) -> tuple[list[Click], int | None]:
    """Renumber clicks to the ids after merges, and find the background part.

    Args:
        edited: the partition after merges and splits.
        clicks: with the ids that were shown.
        background: shown id of what is not the object; None afterwards if it was merged into a
            part of the object.
    """
    clicks = [
        replace(click, part=edited.merged_into.get(click.part, click.part)) for click in clicks
    ]
    if background is not None and edited.merged_into[background] != background:
        background = None
    return clicks, background


class Refiner:
    """Labels during refinement, with the constraints that must hold.

    Args:
        labels: (F,) int part ids.
        regions: to choose from.
        constraints: all that must hold in the end.
    """

    def __init__(
        self, labels: IntArray, regions: ClickRegions, constraints: Sequence[ClickConstraint]
    ) -> None:
        self.labels = labels.astype(np.int64)
        self.surface, self.tree, self.superfaces = regions.surface, regions.tree, regions.superfaces
        self._min_piece_share = regions.config.min_piece_share
        self.constraints = list(constraints)
        self.notes: list[str] = []
        self.next_id = 1 + max(
            [int(labels.max(initial=0))] + [constraint.target for constraint in constraints]
        )

    def apply(self, constraint: ClickConstraint, probability: FloatArray) -> None:
        """Make one constraint true.

        Args:
            constraint: what must hold.
            probability: (F,) of the part that the clicked point lies in.
        """
        current = int(self.labels[constraint.face])
        if current == constraint.target or (
            constraint.target == NO_TARGET and current != constraint.avoid
        ):
            return
        region = self._find_best_region(constraint, probability)
        target = constraint.target
        if target == NO_TARGET:
            target = self._find_other_label(region, constraint.avoid)
        self.labels[region] = target

    def _find_best_region(self, constraint: ClickConstraint, probability: FloatArray) -> BoolArray:
        """Largest expected IoU with the clicked part among all allowed regions.

        A region that leaves only a fragment of a part to be divided is used as a last
        resort.
        """
        inside = self.labels == self.labels[constraint.face]
        weight = np.where(inside, self.surface.areas + TINY, 0.0)
        claimed = float((weight * probability).sum())
        least_left = self._min_piece_share * float(weight.sum()) if constraint.splits_part else 0.0
        best, best_worth = self._select_own_face(constraint), (False, -1.0)
        for region in self._list_candidates(constraint, inside, probability):
            if not self._is_allowed(region, inside, constraint):
                continue
            hit = float((weight * probability)[region].sum())
            union = claimed + float((weight * (1 - probability))[region].sum())
            is_division = float(weight[~region].sum()) >= least_left
            worth = (is_division, hit / max(union, TINY))
            if worth > best_worth:
                best, best_worth = region, worth
        return best

    def _list_candidates(
        self, constraint: ClickConstraint, inside: BoolArray, probability: FloatArray
    ) -> list[BoolArray]:
        """Nested segments and the probable region, within one part and in one touching piece.

        Pieces elsewhere stay, whatever their probability: no click is on them.
        """
        likely = inside & (probability > 0.5)
        segments = [inside & (ids == ids[constraint.face]) for ids in self.tree.levels]
        found = [*segments, inside]
        if likely[constraint.face]:
            found += [*(segment & likely for segment in segments), likely]
        return [self._select_connected_piece(region, constraint.face) for region in found]

    def _is_allowed(
        self, region: BoolArray, inside: BoolArray, constraint: ClickConstraint
    ) -> bool:
        """Whether a region contradicts no click and does more than rename a part."""
        if constraint.splits_part and region.sum() == inside.sum():
            return False
        for other in self.constraints:
            if not region[other.face]:
                continue
            if other.target != NO_TARGET and other.target != constraint.target:
                return False
            if constraint.target != NO_TARGET and other.avoid == constraint.target:
                return False
            if constraint.target == NO_TARGET and other.avoid not in (NO_TARGET, constraint.avoid):
                return False
        return True

    def _select_own_face(self, constraint: ClickConstraint) -> BoolArray:
        region = np.zeros(len(self.labels), bool)
        region[constraint.face] = True
        return region

    def _select_connected_piece(self, region: BoolArray, face: int) -> BoolArray:
        """The connected piece of a region around a face, over edges and gaps."""
        superfaces = self.superfaces
        is_in = sum_by(superfaces.of_face, region.astype(np.float64), superfaces.count) > 0
        joined = label_components(
            superfaces.count, superfaces.pairs[is_in[superfaces.pairs].all(axis=1)]
        )
        mine: BoolArray = region & (joined[superfaces.of_face] == joined[superfaces.of_face[face]])
        return mine

    def _find_other_label(self, region: BoolArray, avoid: int) -> int:
        """The part that a region touches most, else the nearest, else a new one."""
        superfaces = self.superfaces
        inner = sum_by(superfaces.of_face, region.astype(np.float64), superfaces.count) > 0
        touching = inner[superfaces.pairs[:, 0]] != inner[superfaces.pairs[:, 1]]
        outer = np.where(inner[superfaces.pairs[touching, 0]], *superfaces.pairs[touching].T[::-1])
        first_face = np.unique(superfaces.of_face, return_index=True)[1]
        labels = self.labels[first_face][outer]
        length = sum_by(labels, superfaces.lengths[touching], self.next_id)
        length[avoid] = 0.0
        if length.max() > 0:
            return int(length.argmax())
        elsewhere = np.flatnonzero(self.labels != avoid)
        if len(elsewhere):
            gap = self.surface.centers[elsewhere] - self.surface.centers[region].mean(axis=0)
            return int(self.labels[elsewhere[np.linalg.norm(gap, axis=1).argmin()]])
        self.notes.append("negative_click_made_part")
        self.next_id += 1
        return self.next_id - 1


def collect_fixed_constraints(
    labels: IntArray, anchors: Sequence[int], constraints: Sequence[ClickConstraint]
) -> list[ClickConstraint]:
    """Constraints of earlier rounds' clicks, which hold already.

    Args:
        labels: (F,) int part ids before this round's clicks.
        anchors: faces that earlier clicks fixed.
        constraints: of this round; a face that is clicked again is no longer fixed.
    """
    clicked = {constraint.face for constraint in constraints}
    return [
        ClickConstraint(face, int(labels[face]), NO_TARGET, False)
        for face in anchors
        if face not in clicked
    ]


def refine_labels(
    labels: IntArray,
    constraints: Sequence[ClickConstraint],
    probability_of: Callable[[ClickConstraint], FloatArray],
    regions: ClickRegions,
    fixed: Sequence[ClickConstraint] = (),
) -> RefinedPartition:
    """Make all constraints true.

    Args:
        labels: (F,) int part ids.
        constraints: from `resolve_clicks`.
        probability_of: (F,) probability of the part that a constraint's point lies in.
        regions: to choose from.
        fixed: from `collect_fixed_constraints`; they keep holding.

    Returns:
        The new partition; surviving parts keep their ids, but a vacated id goes to the newest.
    """
    refiner = Refiner(labels, regions, [*constraints, *fixed])
    for _ in range(2):  # a later negative click may be served by a part that an earlier one needs
        for constraint in constraints:
            refiner.apply(constraint, probability_of(constraint))
    dense, id_map = compact_ids(refiner.labels)
    return RefinedPartition(dense, id_map, tuple(dict.fromkeys(refiner.notes)))


def follow_part_ids(
    edited: EditedPartition, refined: RefinedPartition, constraints: Sequence[ClickConstraint]
) -> tuple[dict[int, int], set[int]]:
    """Map shown ids to final ids, and find the parts that a person changed."""
    merged_ids = {
        old: refined.id_map[at] for old, at in edited.merged_into.items() if at in refined.id_map
    }
    id_map = {**refined.id_map, **merged_ids}
    merged = {at for old, at in edited.merged_into.items() if at != old}
    fixed_parts = merged | {constraint.target for constraint in constraints}
    return id_map, {id_map[part] for part in fixed_parts if part in id_map}


def build_refined_partition(
    shown: IntArray,
    edited: EditedPartition,
    refined: RefinedPartition,
    touched: set[int],
    areas: FloatArray,
) -> Partition:
    """A refined partition with its confidence per part.

    Args:
        shown: (F,) int part ids before.
        edited: after merges and splits.
        refined: after clicks.
        touched: ids after clicks of the parts that a person changed.
        areas: (F,) float64 face areas.
    """
    confidence = update_confidence(shown, refined.labels, touched, areas)
    weights = np.bincount(refined.labels, areas + 1e-30)  # parts without area must not divide by 0
    mean = float(np.average(confidence, weights=weights))
    return Partition(refined.labels, confidence, mean, (*edited.notes, *refined.notes))


def advance_state(
    before: RefinementState,
    edited: EditedPartition,
    constraints: Sequence[ClickConstraint],
    background_part: int | None,
    id_map: Mapping[int, int],
) -> RefinementState:
    """What is settled after a round.

    Args:
        before: what earlier rounds settled.
        edited: after merges and splits.
        constraints: clicks of this round.
        background_part: final id, or None.
        id_map: id before the round -> final id.
    """
    clicked = {int(constraint.face) for constraint in constraints}
    return RefinementState(
        anchor_faces=tuple(sorted(clicked.union(before.anchor_faces))),
        background_part=background_part,
        id_map=dict(sorted(id_map.items())),
        pieces={
            old: tuple(id_map[piece] for piece in pieces if piece in id_map)
            for old, pieces in edited.pieces.items()
        },
    )
