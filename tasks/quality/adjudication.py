"""What comparing label sets tells: two reviewers, known labels, audits, what a review brought.

`settle` runs after every pull. It looks only at what the catalogue says is not compared yet, so it
may be killed anywhere. Two looks that agree make the first one count; else the asset goes back to
the desk for a third look, its labels as the first reviewer left them and the disputed faces marked.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.optimize import linear_sum_assignment

from segvigen_model.evaluation.metrics import boundary_f1, iou_table, miou_matched, miou_mutual
from segvigen_model.serialization import proposal_to_bytes
from segvigen_model.surface.geometry import Surface, surface_of
from segvigen_model.types import BoolArray, FloatArray, IntArray, Proposal
from tasks.catalogue import (
    DONE,
    PARKED,
    AssetRow,
    AssetState,
    Catalogue,
    CopyRole,
    CopyRow,
    FindingKind,
    FindingRow,
    IllegalMove,
    LabelSetRow,
)
from tasks.errors import is_surroundings
from tasks.labelling.label_sets import GATE, accept_asset, accepting_verbs, load_label_set
from tasks.labelling.lineage import THIRD_LOOK, ThirdLook
from tasks.labelling.loading import current_proposal, load_asset_mesh, load_proposal
from tasks.labelling.proposals import digest_of, stored_proposal
from tasks.labelling.rounds import OF_ONE_ROUND, edited_proposal
from tasks.quality.copies import known_labels
from tasks.settings import QualitySettings
from tasks.storage import keys
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

ACCEPT = "accept"
REVIEWERS_OWN = ("reviewer_rejected",)  # parked by a person's judgement, not by chance


@dataclass(frozen=True, slots=True)
class Settled:
    """One comparison that was made now, for people."""

    asset_id: str
    result: str
    detail: str


def settle(workspace: Workspace) -> list[Settled]:
    """Compare what can be compared now and act on it.

    Args:
        workspace: label sets, meshes, known labels; its catalogue gets findings, and the moves of
            assets that two reviewers labelled.
    """
    catalogue = workspace.catalogue
    told: list[Settled] = []
    for copy in catalogue.quality.open_seconds():  # first: what is accepted here is measured below
        told += _fenced(copy.of_asset, partial(_settle_pair, workspace, copy))
    for row in catalogue.quality.unmeasured(GATE):
        told += _fenced(row.asset_id, partial(_measure, workspace, row))
    for asset_id, kind in catalogue.quality.refused():
        told += _refused(catalogue.asset(asset_id), kind, catalogue)
    return told


def disputed_faces(first: IntArray, second: IntArray, areas: FloatArray) -> BoolArray:
    """(F,) faces whose part in one labeling is not the partner of their part in the other."""
    ids, columns = np.unique(first, return_inverse=True)
    others, rows = np.unique(second, return_inverse=True)
    table = iou_table(first, second, areas + np.finfo(float).tiny)
    partner = np.full(len(others), -1)
    row, column = linear_sum_assignment(-table)
    partner[row] = np.arange(len(ids))[column]
    mask: BoolArray = partner[rows] != columns
    return mask


def _fenced(asset_id: str, action: Callable[[], list[Settled]]) -> list[Settled]:
    """One asset that cannot be compared stops no other; it is told and tried again."""
    try:
        return action()
    except Exception as err:
        if is_surroundings(err):
            raise
        if isinstance(err, IllegalMove):
            return []  # another run was faster
        log.exception("stage=settle asset=%s failed", asset_id[:12])
        return [Settled(asset_id, "failed", f"{type(err).__name__}: {err}")]


def _measure(workspace: Workspace, row: LabelSetRow) -> list[Settled]:
    """Compare one accepted label set with the known labels, or with the first proposal."""
    store, catalogue = workspace.store, workspace.catalogue
    settings = workspace.settings.quality
    asset = catalogue.asset(row.asset_id)
    surface = surface_of(load_asset_mesh(store, asset))
    labels = load_label_set(store, row).face_labels
    copy = catalogue.quality.copy(row.asset_id)
    first = catalogue.proposal(row.asset_id, 0)
    confidence = None if first is None else first.confidence
    base = FindingRow(
        row.asset_id, FindingKind.GAIN, row.label_id, row.decided_by, confidence=confidence
    )
    if copy is not None and copy.role is CopyRole.KNOWN:
        truth = known_labels(store, copy)
        iou = miou_matched(labels, truth, surface.areas)
        border = boundary_f1(labels, truth, surface)
        kind, is_good = FindingKind.KNOWN, iou >= settings.known_iou
    elif first is None:
        return []
    else:
        before = load_proposal(store, first).face_labels
        iou = miou_mutual(before, labels, surface.areas)
        border = boundary_f1(before, labels, surface)
        decision = catalogue.quality.decision(row.asset_id, 0)
        is_audit = decision is not None and decision.is_audited
        kind, is_good = FindingKind.GAIN, True
        if is_audit:
            kind, is_good = FindingKind.AUDIT, iou >= settings.audit_iou
    found = replace(base, kind=kind, is_good=is_good, iou=iou, boundary_f1=border)
    with catalogue.transaction():
        catalogue.quality.add_finding(found)
        if kind is FindingKind.AUDIT:  # an audited review is a review all the same
            catalogue.quality.add_finding(replace(found, kind=FindingKind.GAIN, is_good=True))
    return _told(found)


def _told(found: FindingRow) -> list[Settled]:
    """What people must hear of: misses and contradictions."""
    words = {FindingKind.KNOWN: "known task missed", FindingKind.AUDIT: "audit disagrees"}
    if found.is_good or found.kind not in words:
        return []
    iou = "" if found.iou is None else f"IoU {found.iou:.2f} "
    log.warning("stage=settle asset=%s %s %s", found.asset_id[:12], words[found.kind], found.note)
    detail = f"{iou}by {found.reviewer} {found.note}".strip()
    return [Settled(found.asset_id, words[found.kind], detail)]


def _refused(asset: AssetRow, kind: FindingKind, catalogue: Catalogue) -> list[Settled]:
    """A reviewer threw away what was known to be good, or what the gate was sure of."""
    if asset.reason not in REVIEWERS_OWN:
        return []
    reviewer = _last_reviewer(asset, catalogue)
    note = f"rejected: {asset.detail or 'no word why'}"
    found = FindingRow(
        asset.asset_id, kind, "rejected", reviewer, is_good=False, iou=0.0, note=note
    )
    catalogue.quality.add_finding(found)
    return _told(found)


def _settle_pair(workspace: Workspace, copy: CopyRow) -> list[Settled]:
    """Bring two looks at one asset together, as far as both are there."""
    catalogue = workspace.catalogue
    asset, second = catalogue.asset(copy.of_asset), catalogue.asset(copy.asset_id)
    if asset.state is AssetState.REJECTED:
        return _first_rejected(asset, second, catalogue)
    reviewer = _accepted_by(asset, catalogue)
    if reviewer is None:
        return []
    base = FindingRow(asset.asset_id, FindingKind.SECOND, "pair", reviewer)
    if second.state in PARKED:
        if second.reason in REVIEWERS_OWN:
            note = f"the second reviewer rejected it: {second.detail or 'no word why'}"
            worse = replace(base, other=_last_reviewer(second, catalogue), iou=0.0, note=note)
            bad = replace(worse, is_good=False)
            return _third_look(workspace, asset, _accepted(workspace, asset), bad)
        note = f"no second opinion: {second.reason or second.state}"
        return _count_first(workspace, asset, replace(base, note=note))
    label_set = catalogue.labels.latest(second.asset_id)
    if second.state not in DONE or label_set is None:
        return []
    surface = surface_of(load_asset_mesh(workspace.store, asset))
    mine = _accepted(workspace, asset)
    other = load_label_set(workspace.store, label_set).face_labels
    pair = replace(base, other=label_set.decided_by)
    found = _agreement(pair, mine.face_labels, other, surface, workspace.settings.quality)
    if found.is_good:
        return _count_first(workspace, asset, found)
    return _third_look(workspace, asset, mine, found, label_set)


def _accepted(workspace: Workspace, asset: AssetRow) -> Proposal:
    """What the first reviewer accepted: the present proposal after the answer's own merges."""
    store, catalogue = workspace.store, workspace.catalogue
    shown = load_proposal(store, current_proposal(catalogue, asset))
    verbs = accepting_verbs(catalogue, asset, shown.num_parts)
    if not verbs:
        return shown
    return edited_proposal(shown, verbs, surface_of(load_asset_mesh(store, asset)).areas)


def _agreement(
    pair: FindingRow, mine: IntArray, other: IntArray, surface: Surface, settings: QualitySettings
) -> FindingRow:
    """The finding of two reviewers with how well they agree."""
    iou = miou_mutual(mine, other, surface.areas)
    border = boundary_f1(mine, other, surface)
    is_good = iou >= settings.agreement_iou and border >= settings.agreement_boundary
    note = "both looks are by one person" if pair.other == pair.reviewer else ""
    return replace(pair, iou=iou, boundary_f1=border, is_good=is_good, note=note)


def _count_first(workspace: Workspace, asset: AssetRow, found: FindingRow) -> list[Settled]:
    """The first reviewer's labels count; killed before the finding, it is only made again."""
    accept_asset(workspace, asset.asset_id, found.reviewer)
    workspace.catalogue.quality.add_finding(found)
    result = "two looks agree" if found.iou is not None else "one look counts"
    return [Settled(asset.asset_id, result, _detail(found))]


def _third_look(
    workspace: Workspace,
    asset: AssetRow,
    accepted: Proposal,
    found: FindingRow,
    other: LabelSetRow | None = None,
) -> list[Settled]:
    """Show the first reviewer's labels again, one round later, with what is disputed."""
    store, catalogue = workspace.store, workspace.catalogue
    source = current_proposal(catalogue, asset)
    other_labels = None if other is None else other.key
    about = ThirdLook((found.reviewer, found.other), found.iou, other_labels, found.note)
    kept = {key: value for key, value in accepted.provenance.items() if key not in OF_ONE_ROUND}
    again = replace(
        accepted,
        refinement=replace(accepted.refinement, id_map={}, pieces={}),
        provenance={**kept, THIRD_LOOK: about.as_provenance()},
    )
    round_ = asset.round + 1
    data = proposal_to_bytes(again)
    recipe = {THIRD_LOOK: hashlib.sha256(data).hexdigest()}
    key = keys.proposal(asset.asset_id, round_, digest_of(recipe))
    row = stored_proposal(key, lambda: again, store=store, asset_id=asset.asset_id, round_=round_)
    row = replace(row, checkpoint=source.checkpoint)
    with catalogue.transaction():
        now = catalogue.locked(asset.asset_id)
        if (now.state, now.round) != (asset.state, asset.round):
            raise IllegalMove(f"asset {asset.asset_id[:12]} is {now.state} by now")
        if asset.state in DONE:
            catalogue.move(asset.asset_id, AssetState.REFINING, detail="reviewers disagree")
        catalogue.move(
            asset.asset_id, AssetState.PROPOSED, round=round_, detail="reviewers disagree"
        )
        catalogue.add_proposal(row)
        catalogue.quality.add_finding(found)
    return [Settled(asset.asset_id, "third look", _detail(found))]


def _first_rejected(asset: AssetRow, second: AssetRow, catalogue: Catalogue) -> list[Settled]:
    """The first reviewer threw the asset away: that counts, and a contrary opinion is told."""
    if second.state not in DONE | PARKED or asset.reason not in REVIEWERS_OWN:
        return []
    is_same = second.state not in DONE
    reviewer, other = _last_reviewer(asset, catalogue), _last_reviewer(second, catalogue)
    note = "both rejected it" if is_same else "one rejected it, one accepted it"
    iou = None if is_same else 0.0
    found = FindingRow(
        *(asset.asset_id, FindingKind.SECOND, "pair", reviewer, other, is_same, iou), note=note
    )
    catalogue.quality.add_finding(found)
    return [] if is_same else [Settled(asset.asset_id, "reviewers disagree", _detail(found))]


def _accepted_by(asset: AssetRow, catalogue: Catalogue) -> str | None:
    """Who accepted the present round, where that still counts."""
    if asset.state in DONE:
        label_set = catalogue.labels.latest(asset.asset_id)
        return None if label_set is None else label_set.decided_by
    answers = catalogue.reviews.annotations(asset.asset_id, asset.round)
    meant = [row for row in answers if row.is_interpreted and row.verdict is not None]
    if asset.state is not AssetState.IN_REVIEW or not meant:
        return None
    return meant[-1].reviewer if meant[-1].verdict == ACCEPT else None


def _last_reviewer(asset: AssetRow, catalogue: Catalogue) -> str:
    answers = catalogue.reviews.annotations(asset.asset_id)
    return answers[-1].reviewer if answers else ""


def _detail(found: FindingRow) -> str:
    scores = [("IoU", found.iou), ("borders", found.boundary_f1)]
    told = [f"{name} {value:.2f}" for name, value in scores if value is not None]
    people = f"{found.reviewer} and {found.other}" if found.other else found.reviewer
    return ", ".join([people, *told, *([found.note] if found.note else [])])
