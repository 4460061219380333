"""What comparing label sets tells: two reviewers, known labels, audits, what a review brought.

`adjudicate` runs after every pull. It looks only at what the catalogue says is not compared yet, so
it may be killed anywhere. Two looks that agree make the first one count; else the asset goes back
to review for the third time, its labels as the first reviewer left them and the disputed faces
marked.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from segvigen_model.evaluation.metrics import (
    compute_boundary_f1,
    compute_miou_matched,
    compute_miou_mutual,
)
from segvigen_model.serialization import proposal_to_bytes
from segvigen_model.surface.geometry import Surface, measure_surface
from segvigen_model.surface.overlap import measure_overlap
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
from tasks.errors import is_transient_error
from tasks.labelling.label_history import GATE, list_accepting_commands
from tasks.labelling.label_sets import accept_asset, load_label_set
from tasks.labelling.lineage import THIRD_REVIEW, ThirdReview
from tasks.labelling.loading import get_current_proposal, load_asset_mesh, load_proposal
from tasks.labelling.proposals import hash_recipe, load_or_make_proposal
from tasks.labelling.rounds import OF_ONE_ROUND, apply_exact_edits
from tasks.quality.copies import load_gold_labels
from tasks.settings import QualitySettings
from tasks.storage import keys
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

ACCEPT = "accept"
REJECTED_BY_REVIEWER = ("reviewer_rejected",)  # parked by a person's judgement, not by chance


@dataclass(frozen=True, slots=True)
class AdjudicationResult:
    """One comparison that was made now, for people."""

    asset_id: str
    result: str
    detail: str


def adjudicate(workspace: Workspace) -> list[AdjudicationResult]:
    """Compare what can be compared now and act on it.

    Args:
        workspace: label sets, meshes, known labels; its catalogue gets findings, and the moves of
            assets that two reviewers labelled.
    """
    catalogue = workspace.catalogue
    results: list[AdjudicationResult] = []
    for (
        copy
    ) in catalogue.quality.list_open_doubles():  # first: what is accepted here is measured below
        results += _isolate_errors(copy.of_asset, partial(_adjudicate_pair, workspace, copy))
    for row in catalogue.quality.list_uncompared(GATE):
        results += _isolate_errors(row.asset_id, partial(_compare_label_set, workspace, row))
    for asset_id, kind in catalogue.quality.list_contradicted():
        results += _record_contradiction(catalogue.get_asset(asset_id), kind, catalogue)
    return results


def find_disputed_faces(first: IntArray, second: IntArray, areas: FloatArray) -> BoolArray:
    """(F,) faces whose part in one labeling is not the partner of their part in the other."""
    overlap = measure_overlap(second, first, areas + np.finfo(float).tiny)
    partner = np.full(len(overlap.rows), -1)  # no part has this id
    rows, columns = overlap.match_parts()
    partner[rows] = overlap.columns[columns]
    mask: BoolArray = partner[np.searchsorted(overlap.rows, second)] != first
    return mask


def _isolate_errors(
    asset_id: str, action: Callable[[], list[AdjudicationResult]]
) -> list[AdjudicationResult]:
    """One asset that cannot be compared stops no other; it is reported and tried again."""
    try:
        return action()
    except Exception as err:
        if is_transient_error(err):
            raise
        if isinstance(err, IllegalMove):
            return []  # another run was faster
        log.exception("stage=adjudicate asset=%s failed", asset_id[:12])
        return [AdjudicationResult(asset_id, "failed", f"{type(err).__name__}: {err}")]


def _compare_label_set(workspace: Workspace, row: LabelSetRow) -> list[AdjudicationResult]:
    """Compare one accepted label set with the known labels, or with the first proposal."""
    store, catalogue = workspace.store, workspace.catalogue
    settings = workspace.settings.quality
    asset = catalogue.get_asset(row.asset_id)
    surface = measure_surface(load_asset_mesh(store, asset))
    labels = load_label_set(store, row).face_labels
    copy = catalogue.quality.get_copy(row.asset_id)
    first = catalogue.get_proposal(row.asset_id, 0)
    confidence = None if first is None else first.confidence
    base = FindingRow(
        row.asset_id, FindingKind.GAIN, row.label_id, row.decided_by, confidence=confidence
    )
    if copy is not None and copy.role is CopyRole.GOLD:
        truth = load_gold_labels(store, copy)
        iou = compute_miou_matched(labels, truth, surface.areas)
        border = compute_boundary_f1(labels, truth, surface)
        kind, is_good = FindingKind.GOLD, iou >= settings.gold_iou
    elif first is None:
        return []
    else:
        before = load_proposal(store, first).face_labels
        iou = compute_miou_mutual(before, labels, surface.areas)
        border = compute_boundary_f1(before, labels, surface)
        decision = catalogue.quality.get_decision(row.asset_id, 0)
        is_audit = decision is not None and decision.is_audited
        kind, is_good = FindingKind.GAIN, True
        if is_audit:
            kind, is_good = FindingKind.AUDIT, iou >= settings.audit_iou
    found = replace(base, kind=kind, is_good=is_good, iou=iou, boundary_f1=border)
    with catalogue.transaction():
        catalogue.quality.add_finding(found)
        if kind is FindingKind.AUDIT:  # an audited review is a review all the same
            catalogue.quality.add_finding(replace(found, kind=FindingKind.GAIN, is_good=True))
    return _report_misses(found)


def _report_misses(found: FindingRow) -> list[AdjudicationResult]:
    """What people must hear of: misses and contradictions."""
    words = {FindingKind.GOLD: "gold task missed", FindingKind.AUDIT: "audit disagrees"}
    if found.is_good or found.kind not in words:
        return []
    iou = "" if found.iou is None else f"IoU {found.iou:.2f} "
    log.warning(
        "stage=adjudicate asset=%s %s %s", found.asset_id[:12], words[found.kind], found.note
    )
    detail = f"{iou}by {found.reviewer} {found.note}".strip()
    return [AdjudicationResult(found.asset_id, words[found.kind], detail)]


def _record_contradiction(
    asset: AssetRow, kind: FindingKind, catalogue: Catalogue
) -> list[AdjudicationResult]:
    """A reviewer threw away what was known to be good, or what the gate was sure of."""
    if asset.reason not in REJECTED_BY_REVIEWER:
        return []
    reviewer = _find_last_reviewer(asset, catalogue)
    note = f"rejected: {asset.detail or 'no word why'}"
    found = FindingRow(
        asset.asset_id, kind, "rejected", reviewer, is_good=False, iou=0.0, note=note
    )
    catalogue.quality.add_finding(found)
    return _report_misses(found)


def _adjudicate_pair(workspace: Workspace, copy: CopyRow) -> list[AdjudicationResult]:
    """Bring two looks at one asset together, as far as both are there."""
    catalogue = workspace.catalogue
    asset, second = catalogue.get_asset(copy.of_asset), catalogue.get_asset(copy.asset_id)
    if asset.state is AssetState.REJECTED:
        return _record_first_rejected(asset, second, catalogue)
    reviewer = _find_accepting_reviewer(asset, catalogue)
    if reviewer is None:
        return []
    base = FindingRow(asset.asset_id, FindingKind.DOUBLE, "pair", reviewer)
    if second.state in PARKED:
        if second.reason in REJECTED_BY_REVIEWER:
            note = f"the second reviewer rejected it: {second.detail or 'no word why'}"
            worse = replace(base, other=_find_last_reviewer(second, catalogue), iou=0.0, note=note)
            bad = replace(worse, is_good=False)
            return _start_third_review(workspace, asset, _load_accepted(workspace, asset), bad)
        note = f"no second opinion: {second.reason or second.state}"
        return _accept_first(workspace, asset, replace(base, note=note))
    label_set = catalogue.labels.get_latest(second.asset_id)
    if second.state not in DONE or label_set is None:
        return []
    surface = measure_surface(load_asset_mesh(workspace.store, asset))
    accepted = _load_accepted(workspace, asset)
    other = load_label_set(workspace.store, label_set).face_labels
    pair = replace(base, other=label_set.decided_by)
    found = _measure_agreement(
        pair, accepted.face_labels, other, surface, workspace.settings.quality
    )
    if found.is_good:
        return _accept_first(workspace, asset, found)
    return _start_third_review(workspace, asset, accepted, found, label_set)


def _load_accepted(workspace: Workspace, asset: AssetRow) -> Proposal:
    """What the first reviewer accepted: the present proposal after the answer's own merges."""
    store, catalogue = workspace.store, workspace.catalogue
    shown = load_proposal(store, get_current_proposal(catalogue, asset))
    commands = list_accepting_commands(catalogue, asset, shown.num_parts)
    if not commands:
        return shown
    return apply_exact_edits(shown, commands, measure_surface(load_asset_mesh(store, asset)).areas)


def _measure_agreement(
    pair: FindingRow,
    first_labels: IntArray,
    other: IntArray,
    surface: Surface,
    settings: QualitySettings,
) -> FindingRow:
    """The finding of two reviewers with how well they agree."""
    iou = compute_miou_mutual(first_labels, other, surface.areas)
    border = compute_boundary_f1(first_labels, other, surface)
    is_good = iou >= settings.agreement_iou and border >= settings.agreement_boundary
    note = "both annotations are by one person" if pair.other == pair.reviewer else ""
    return replace(pair, iou=iou, boundary_f1=border, is_good=is_good, note=note)


def _accept_first(
    workspace: Workspace, asset: AssetRow, found: FindingRow
) -> list[AdjudicationResult]:
    """The first reviewer's labels count; killed before the finding, it is only made again."""
    accept_asset(workspace, asset.asset_id, found.reviewer)
    workspace.catalogue.quality.add_finding(found)
    result = "two annotations agree" if found.iou is not None else "one annotation counts"
    return [AdjudicationResult(asset.asset_id, result, _format_detail(found))]


def _start_third_review(
    workspace: Workspace,
    asset: AssetRow,
    accepted: Proposal,
    found: FindingRow,
    other: LabelSetRow | None = None,
) -> list[AdjudicationResult]:
    """Show the first reviewer's labels again, one round later, with what is disputed."""
    store, catalogue = workspace.store, workspace.catalogue
    source = get_current_proposal(catalogue, asset)
    other_labels = None if other is None else other.key
    about = ThirdReview((found.reviewer, found.other), found.iou, other_labels, found.note)
    kept = {key: value for key, value in accepted.provenance.items() if key not in OF_ONE_ROUND}
    again = replace(
        accepted,
        refinement=replace(accepted.refinement, id_map={}, pieces={}),
        provenance={**kept, THIRD_REVIEW: about.as_provenance()},
    )
    round_ = asset.round + 1
    data = proposal_to_bytes(again)
    recipe = {THIRD_REVIEW: hashlib.sha256(data).hexdigest()}
    key = keys.make_proposal_key(asset.asset_id, round_, hash_recipe(recipe))
    row = load_or_make_proposal(
        key, lambda: again, store=store, asset_id=asset.asset_id, round_=round_
    )
    row = replace(row, checkpoint=source.checkpoint)
    with catalogue.transaction():
        now = catalogue.lock_asset(asset.asset_id)
        if (now.state, now.round) != (asset.state, asset.round):
            raise IllegalMove(f"asset {asset.asset_id[:12]} is {now.state} by now")
        if asset.state in DONE:
            catalogue.move(asset.asset_id, AssetState.REFINING, detail="reviewers disagree")
        catalogue.move(
            asset.asset_id, AssetState.PROPOSED, round=round_, detail="reviewers disagree"
        )
        catalogue.add_proposal(row)
        catalogue.quality.add_finding(found)
    return [AdjudicationResult(asset.asset_id, "third review", _format_detail(found))]


def _record_first_rejected(
    asset: AssetRow, second: AssetRow, catalogue: Catalogue
) -> list[AdjudicationResult]:
    """The first reviewer threw the asset away: that counts, and a contrary opinion is reported."""
    if second.state not in DONE | PARKED or asset.reason not in REJECTED_BY_REVIEWER:
        return []
    is_same = second.state not in DONE
    reviewer, other = _find_last_reviewer(asset, catalogue), _find_last_reviewer(second, catalogue)
    note = "both rejected it" if is_same else "one rejected it, one accepted it"
    iou = None if is_same else 0.0
    found = FindingRow(
        *(asset.asset_id, FindingKind.DOUBLE, "pair", reviewer, other, is_same, iou), note=note
    )
    catalogue.quality.add_finding(found)
    return (
        []
        if is_same
        else [AdjudicationResult(asset.asset_id, "reviewers disagree", _format_detail(found))]
    )


def _find_accepting_reviewer(asset: AssetRow, catalogue: Catalogue) -> str | None:
    """Who accepted the present round, where that still counts."""
    if asset.state in DONE:
        label_set = catalogue.labels.get_latest(asset.asset_id)
        return None if label_set is None else label_set.decided_by
    annotations = catalogue.reviews.list_annotations(asset.asset_id, asset.round)
    meant = [row for row in annotations if row.is_interpreted and row.verdict is not None]
    if asset.state is not AssetState.IN_REVIEW or not meant:
        return None
    return meant[-1].reviewer if meant[-1].verdict == ACCEPT else None


def _find_last_reviewer(asset: AssetRow, catalogue: Catalogue) -> str:
    annotations = catalogue.reviews.list_annotations(asset.asset_id)
    return annotations[-1].reviewer if annotations else ""


def _format_detail(found: FindingRow) -> str:
    scores = [("IoU", found.iou), ("borders", found.boundary_f1)]
    parts = [f"{name} {value:.2f}" for name, value in scores if value is not None]
    people = f"{found.reviewer} and {found.other}" if found.other else found.reviewer
    return ", ".join([people, *parts, *([found.note] if found.note else [])])
