"""A simulated person who corrects a partition, to measure what a review costs.

Sees the parts shown and knows the true ones. Each round it serves the worst true parts, one action
each: merge what covers one part, click where a part is missing, ask for a new part, or say that a
region does not belong. Regions too small to hit are left alone, as a person would leave them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from segvigen_model.evaluation.simulated_clicks import find_wrong_face
from segvigen_model.surface.arrays import sum_by
from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.overlap import measure_overlap
from segvigen_model.types import BoolArray, Click, ClickKind, FloatArray, IntArray, Proposal

TARGETS = (0.8, 0.9)
MIN_REGION = 0.0005  # share of the surface; on a sheet of 1536 pixels about 10 x 10 pixels
MIN_PURITY = 0.8  # share of a shown part inside one true part that makes it a piece of that part
NUM_NEW_PARTS = 3  # labels "new part" that the label config offers in one round

# labels shown, clicks, fixed faces -> the next proposal
Refine = Callable[[IntArray, Sequence[Click], Sequence[int]], Proposal]


@dataclass(frozen=True, slots=True)
class PersonRules:
    """How the person works.

    Attributes:
        actions_per_round: so many of the worst parts are served before looking again.
        max_rounds: reviews of one object.
        max_actions: given to one part before it is left alone.
        good_iou: a part this good needs nothing.
    """

    actions_per_round: int = 4
    max_rounds: int = 20
    max_actions: int = 20
    good_iou: float = max(TARGETS)


@dataclass(frozen=True, slots=True)
class Action:
    """What the person does for one true part: one click, or one merge of shown parts."""

    part: int
    click: Click | None = None
    merge: tuple[int, ...] = ()


@dataclass(slots=True)
class PartCost:
    """What one true part cost.

    Attributes:
        iou_before, iou: with its one-to-one partner, in the proposal and at the end.
        actions: given to it.
        reached: target -> (actions, rounds) when it first was this good.
    """

    iou_before: float
    iou: float = 0.0
    actions: int = 0
    reached: dict[float, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class ReviewCost:
    """What one object cost: its parts, and the actions by kind."""

    parts: dict[int, PartCost]
    rounds: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    labels: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))


def simulate_review(
    shown: IntArray,
    truth: IntArray,
    surface: Surface,
    refine: Refine,
    rules: PersonRules | None = None,
) -> ReviewCost:
    """Correct a partition until every part is good or nothing more can be done.

    Args:
        shown: (F,) int dense part ids of the proposal.
        truth: (F,) int true parts.
        surface: geometry.
        refine: what answers the clicks.
        rules: how the person works.
    """
    rules = rules or PersonRules()
    labels: IntArray = shown.astype(np.int32)
    anchors: Sequence[int] = ()
    ious = compute_part_ious(labels, truth, surface.areas)
    cost = ReviewCost({part: PartCost(iou) for part, iou in ious.items()})
    _record_ious(cost, ious)
    while cost.rounds < rules.max_rounds:
        budget_exhausted = {p for p, c in cost.parts.items() if c.actions >= rules.max_actions}
        actions = choose_actions(labels, truth, surface, rules, budget_exhausted)
        if not actions:
            break
        cost.rounds += 1
        labels, anchors = _carry_out(labels, actions, anchors, refine)
        for action in actions:
            cost.parts[action.part].actions += 1
            kind = _get_action_kind(action)
            cost.kinds[kind] = cost.kinds.get(kind, 0) + 1
        _record_ious(cost, compute_part_ious(labels, truth, surface.areas))
    cost.labels = labels
    return cost


def compute_part_ious(shown: IntArray, truth: IntArray, areas: FloatArray) -> dict[int, float]:
    """IoU of every true part that has area with its one-to-one partner; 0 without one."""
    overlap = measure_overlap(truth, shown, areas).drop_empty_rows()
    ious = overlap.compute_matched_ious()
    return {int(part): float(iou) for part, iou in zip(overlap.rows, ious, strict=True)}


def choose_actions(
    shown: IntArray,
    truth: IntArray,
    surface: Surface,
    rules: PersonRules,
    budget_exhausted: set[int],
) -> list[Action]:
    """What the person does in one round, worst part first.

    Args:
        shown: (F,) int dense part ids.
        truth: (F,) int true parts.
        surface: geometry.
        rules: how the person works.
        budget_exhausted: true parts that the person has given up.
    """
    ious = compute_part_ious(shown, truth, surface.areas)
    partners = measure_overlap(truth, shown, surface.areas).drop_empty_rows().find_partners()
    actions: list[Action] = []
    for part in sorted(ious, key=lambda part: ious[part]):
        if len(actions) == rules.actions_per_round or ious[part] >= rules.good_iou:
            break
        if part not in budget_exhausted:
            action = _choose_action(part, shown, truth, surface, partners, actions)
            actions += [action] if action is not None else []
    return actions


def merge_labels(labels: IntArray, merges: Sequence[tuple[int, ...]]) -> tuple[IntArray, IntArray]:
    """Make parts one.

    Args:
        labels: (F,) int dense part ids.
        merges: groups of ids; the first id of each stays.

    Returns:
        (F,) int32 dense labels, and (P,) the new id of each old one.
    """
    names = np.arange(int(labels.max()) + 1)
    for first, *others in merges:
        for other in others:
            names[names == names[other]] = names[first]
    _, dense = np.unique(names, return_inverse=True)
    return dense[labels].astype(np.int32), dense.astype(np.int64)


def _carry_out(
    labels: IntArray, actions: Sequence[Action], anchors: Sequence[int], refine: Refine
) -> tuple[IntArray, Sequence[int]]:
    """The labels after one round: merges first, then the clicks, as the pipeline replays them."""
    labels, new_id = merge_labels(labels, [action.merge for action in actions if action.merge])
    clicks = [
        _renumber_click(action.click, new_id) for action in actions if action.click is not None
    ]
    if not clicks:
        return labels, anchors
    proposal = refine(labels, clicks, anchors)
    return proposal.face_labels.astype(np.int32), proposal.refinement.anchor_faces


def _renumber_click(click: Click, new_id: IntArray) -> Click:
    part = int(new_id[click.part]) if click.part >= 0 else -1
    return Click(click.face, click.xyz, click.kind, part, click.group, click.is_positive)


def _record_ious(cost: ReviewCost, ious: dict[int, float]) -> None:
    for part, iou in ious.items():
        part_cost = cost.parts[part]
        part_cost.iou = iou
        for target in TARGETS:
            if iou >= target:
                part_cost.reached.setdefault(target, (part_cost.actions, cost.rounds))


def _get_action_kind(action: Action) -> str:
    if action.click is None:
        return "merge"
    if not action.click.is_positive:
        return "negative"
    return str(action.click.kind)


def _choose_action(
    part: int,
    shown: IntArray,
    truth: IntArray,
    surface: Surface,
    partners: dict[int, int | None],
    given: Sequence[Action],
) -> Action | None:
    """The one thing that helps a true part most, or None when nothing can be hit."""
    is_true_part, partner = truth == part, partners[part]
    busy = {shown_part for action in given for shown_part in action.merge}
    pieces = _find_pieces(shown, is_true_part, surface.areas, partner) - busy
    if partner is not None and partner not in busy and pieces:
        return Action(part, merge=(partner, *sorted(pieces)))
    stands = shown == partner if partner is not None else np.zeros(len(shown), bool)
    least = MIN_REGION * float(surface.areas.sum())
    face = find_wrong_face(surface, stands, is_true_part, least)
    if face is None:
        return None
    click = _choose_click(
        face, bool(is_true_part[face]), part, int(truth[face]), surface, partners, given
    )
    return None if click is None else Action(part, click)


def _choose_click(
    face: int,
    is_missing: bool,
    part: int,
    true_part: int,
    surface: Surface,
    partners: dict[int, int | None],
    given: Sequence[Action],
) -> Click | None:
    """What is said at a wrong face: its part's name, else a new part, else "not this one"."""
    xyz, partner = surface.centers[face].copy(), partners[part]
    owner = partners.get(true_part)
    if owner is not None:
        return Click(face, xyz, ClickKind.BELONGS, owner)
    group = sum(a.click is not None and a.click.kind is ClickKind.NEW_PART for a in given)
    is_requested = any(
        a.part == true_part and a.click is not None and a.click.kind is ClickKind.NEW_PART
        for a in given
    )
    if not is_requested and group < NUM_NEW_PARTS:
        return Click(face, xyz, ClickKind.NEW_PART, group=group)
    if is_missing or partner is None:
        return None
    return Click(face, xyz, ClickKind.BELONGS, partner, is_positive=False)


def _find_pieces(
    shown: IntArray, is_true_part: BoolArray, areas: FloatArray, partner: int | None
) -> set[int]:
    """Shown parts that are pieces of one true part, its partner not counted."""
    if partner is None:
        return set()
    count = int(shown.max()) + 1
    total = sum_by(shown, areas, count)
    inside = sum_by(shown, areas * is_true_part, count)
    is_piece = (inside >= MIN_PURITY * total) & (inside > MIN_REGION * areas.sum())
    if inside[partner] < 0.5 * total[partner]:
        return set()
    return {int(piece) for piece in np.flatnonzero(is_piece)} - {partner}
