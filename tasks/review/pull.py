"""Fetch the reviewers' answers and act on them. Polling is the truth; a webhook only hints.

Each version of an answer is stored raw first (inbox.py), then interpreted in one transaction with
the asset's move. What is stored and not yet interpreted is taken up by the next pull, so that a
kill costs nothing. Pulls may overlap: of two that read the same answer the first one counts.

Verdicts: *accept* makes the label set: merges, names and categories that came with it count, for
they are exact; clicks and splits are kept and change nothing. *refine* needs a usable click or
verb, else the task is asked again; *reject* and *skip* park the asset.
An answer to the present round also re-opens what it had decided before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from segvigen_model.errors import SegvigenError
from segvigen_model.types import FloatArray
from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    AssetState,
    Catalogue,
    QuarantineRow,
)
from tasks.catalogue.quarantine import MAX_RAW_CHARS
from tasks.errors import is_transient_error
from tasks.labelling.edit_commands import EditCommandKind
from tasks.labelling.label_history import InterpretedAnnotation
from tasks.labelling.label_sets import record_label_set, write_label_set
from tasks.labelling.loading import load_asset_mesh
from tasks.labelling.taxonomy import Taxonomy, configured_taxonomy
from tasks.quality.third_review import is_last_round
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.review.annotations import SKIP, ParsedAnnotation, parse_annotation
from tasks.review.answer_rows import make_click_row, make_command_row
from tasks.review.fence import dump_raw
from tasks.review.inbox import store_new_annotations
from tasks.review.project import ReviewProject
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

REJECTED, SKIPPED, TOO_MANY = "reviewer_rejected", "reviewer_skipped", "max_rounds"
# The push is not recorded yet, or the asset waits for `retry`: the answer waits with it.
NOT_YET = (
    AssetState.REGISTERED,
    AssetState.ENCODED,
    AssetState.PROPOSED,
    AssetState.FAILED,
)
NO_CLICKS = "no usable click or verb; asked again"
OUTDATED = "the round was proposed again; answer its new task"
NO_ROUND_LEFT = (
    "no round is left: change the answer to accept or reject, "
    "or raise SEGVIGEN_REVIEW_MAX_ROUNDS and retry"
)
SECOND_AWAITED = "accepted; waits for the second reviewer"


class Overtaken(SegvigenError):
    """Another run interpreted the answer or moved the asset meanwhile: what it did counts."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one answer led to.

    Attributes:
        verdict: as understood, or None.
        state: where the asset stands now.
        num_clicks: usable ones.
        note: problems, for people.
        num_commands: edits of whole parts.
    """

    asset_id: str
    round: int
    verdict: str | None
    state: AssetState
    num_clicks: int = 0
    note: str = ""
    num_commands: int = 0


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A stored answer, the asset as it was read with it, and what the answer means."""

    row: AnnotationRow
    asset: AssetRow
    answer: ParsedAnnotation


def pull_annotations(workspace: Workspace, project: ReviewProject) -> list[Reply]:
    """Pull once and act on what is new.

    Args:
        workspace: buffers, meshes and label sets; its catalogue gets raw answers, clicks and moves.
        project: open project.

    Returns:
        One reply per newly interpreted answer, oldest first.
    """
    taxonomy = configured_taxonomy(workspace.settings.review)
    store_new_annotations(workspace.catalogue, project)
    _reopen_answers(workspace.catalogue)
    replies = []
    for row in workspace.catalogue.reviews.list_uninterpreted():
        reply = _handle_annotation(workspace, project, row, taxonomy)
        if reply is not None:
            log_fields = (row.asset_id[:12], row.round, reply.verdict, reply.num_clicks)
            log.info(
                "stage=pull asset=%s round=%d verdict=%s clicks=%d commands=%d state=%s",
                *(*log_fields, reply.num_commands, reply.state),
            )
            replies.append(reply)
    return replies


def _handle_annotation(
    workspace: Workspace, project: ReviewProject, row: AnnotationRow, taxonomy: Taxonomy | None
) -> Reply | None:
    """Act on one stored answer so that no fault of it gets out; None when there is no reply now."""
    catalogue = workspace.catalogue
    try:
        asset = catalogue.get_asset(row.asset_id)
        if row.round < asset.round:
            row = _mark_late(row, catalogue)
        try:
            return _interpret(workspace, project, row, asset, taxonomy)
        except Exception as err:
            if is_transient_error(err) or isinstance(err, Overtaken):
                raise
            reply = _give_up(catalogue, row, asset, f"{type(err).__name__}: {err}")
            name = (row.asset_id[:12], row.unique_id)
            log.exception("stage=pull asset=%s annotation=%s failed", *name)
            _quarantine_answer(catalogue, row, err)
            return reply
    except Overtaken as late:
        log.info("stage=pull asset=%s %s", row.asset_id[:12], late)
        return None
    except Exception as err:
        if is_transient_error(err):
            raise
        # Not even its failure could be written down: the answer stays open, the others go on.
        log.exception("stage=pull asset=%s annotation=%s left", row.asset_id[:12], row.unique_id)
        _quarantine_answer(catalogue, row, err)
        return None


def _quarantine_answer(catalogue: Catalogue, row: AnnotationRow, error: Exception) -> None:
    """Show people an answer that is stored and that no code could interpret."""
    reason = ascii(f"{type(error).__name__}: {error}")[1:-1]
    message = QuarantineRow(
        f"answer-{row.unique_id}",
        "answer",
        f"asset {row.asset_id[:12]} round {row.round}: {reason}",
        dump_raw(dict(row.raw), MAX_RAW_CHARS),
        task_id=row.task_id,
        unique_id=row.unique_id,
        updated_at=row.updated_at,
    )
    catalogue.quarantine.add(message)


def _reopen_answers(catalogue: Catalogue) -> None:
    """Interpret again what a person asked for; an answer that was read since is taken out."""
    for message in catalogue.quarantine.list_all(is_retrying=True):
        if message.kind == "answer":
            with catalogue.transaction():
                catalogue.reviews.reopen(message.unique_id, message.updated_at)
                catalogue.quarantine.resolve(message.message_id)


def _mark_late(row: AnnotationRow, catalogue: Catalogue) -> AnnotationRow:
    """An answer whose round went on before it was read: the next round was made without it."""
    if row.is_late:
        return row
    with catalogue.transaction():
        catalogue.lock_asset(row.asset_id)
        catalogue.reviews.mark_late(row.asset_id, row.unique_id, row.updated_at)
    return replace(row, is_late=True)


@contextmanager
def _open_decision(catalogue: Catalogue, row: AnnotationRow, asset: AssetRow) -> Iterator[None]:
    """A transaction in which the answer is still open and the asset still where it was read."""
    with catalogue.transaction():
        now = catalogue.lock_asset(asset.asset_id)
        held = catalogue.reviews.get_annotation(row.unique_id, row.updated_at)
        if held is None or held.is_interpreted or held.is_late != row.is_late:
            raise Overtaken(f"answer {row.unique_id} is interpreted already")
        if (now.state, now.round) != (asset.state, asset.round):
            raise Overtaken(f"is {now.state} in round {now.round} by now; the next pull sees to it")
        yield


def _interpret(
    workspace: Workspace,
    project: ReviewProject,
    row: AnnotationRow,
    asset: AssetRow,
    taxonomy: Taxonomy | None,
) -> Reply | None:
    """Act on one stored answer; None when its time has not come (the push is not recorded yet)."""
    store, catalogue = workspace.store, workspace.catalogue
    if row.round > asset.round or (row.round == asset.round and asset.state in NOT_YET):
        return None
    task = catalogue.reviews.get_task(row.asset_id, row.round)
    if row.round == asset.round and row.is_late:
        return _give_up(catalogue, row, asset, OUTDATED)
    if task is None:
        return None
    buffers = buffers_from_bytes(store.get(task.buffers_key))

    def load_triangles() -> FloatArray:
        return load_asset_mesh(store, asset).triangles

    max_clicks = workspace.settings.review.max_clicks
    meaning = parse_annotation(
        row.raw, buffers, load_triangles, max_clicks=max_clicks, taxonomy=taxonomy
    )
    parsed = _Parsed(row, asset, meaning)
    if row.round < asset.round:
        return _close_annotation(catalogue, parsed, f"late: the asset is in round {asset.round}")
    if _is_older(row, catalogue):
        return _close_annotation(catalogue, parsed, "replaced by a newer version")
    return _act_on_verdict(workspace, project, parsed)


def _act_on_verdict(workspace: Workspace, project: ReviewProject, parsed: _Parsed) -> Reply | None:
    """Do what the verdict says."""
    row, asset, meaning, catalogue = parsed.row, parsed.asset, parsed.answer, workspace.catalogue
    close, park = (
        partial(_close_annotation, catalogue, parsed),
        partial(_park_asset, catalogue, parsed),
    )
    if meaning.verdict is None:
        return close("no verdict")
    max_rounds = workspace.settings.review.max_rounds
    is_last = is_last_round(catalogue, row.asset_id, row.round, max_rounds)
    if asset.state in (AssetState.REJECTED, AssetState.SKIPPED):
        return _reopen_asset(catalogue, parsed, is_last)
    if meaning.verdict == "reject":
        return park(AssetState.REJECTED, REJECTED)
    if meaning.verdict == SKIP:
        if asset.state is not AssetState.IN_REVIEW:
            return close(f"skipped after it was {asset.state}")
        return park(AssetState.SKIPPED, SKIPPED)
    if meaning.verdict == "accept":
        return _accept_annotation(workspace, parsed)
    if not meaning.clicks and not meaning.commands:
        return _ask_again(catalogue, project, parsed)
    if is_last:
        if asset.state is not AssetState.IN_REVIEW:
            return close(f"no round left and it is {asset.state}")
        return park(AssetState.REJECTED, TOO_MANY)
    with catalogue.transaction():
        reply = close()
        if asset.state is not AssetState.REFINING:
            catalogue.move(asset.asset_id, AssetState.REFINING)
    return replace(reply, state=AssetState.REFINING)


def _ask_again(catalogue: Catalogue, project: ReviewProject, parsed: _Parsed) -> Reply:
    # Deleted in Label Studio first: killed in between, the stored annotation is read again.
    project.client.delete_annotation(parsed.row.annotation_id)
    asset = parsed.asset
    with catalogue.transaction():
        reply = _close_annotation(catalogue, parsed, NO_CLICKS)
        if asset.state is not AssetState.REFINING:
            return reply
        catalogue.move(asset.asset_id, AssetState.IN_REVIEW, detail="verdict changed")
    return replace(reply, state=AssetState.IN_REVIEW)


def _accept_annotation(workspace: Workspace, parsed: _Parsed) -> Reply:
    row, asset, meaning, catalogue = parsed.row, parsed.asset, parsed.answer, workspace.catalogue
    splits = [command for command in meaning.commands if command.kind is EditCommandKind.SPLIT]
    unused = ((meaning.clicks, "clicks"), (splits, "splits"))
    problem = "; ".join(f"{len(held)} {name} came with accept" for held, name in unused if held)
    if asset.state in (AssetState.ACCEPTED, AssetState.SHARDED):
        return _close_annotation(catalogue, parsed, problem or "accepted already")
    label_set = None
    if not catalogue.quality.is_held(asset.asset_id):  # else `adjudication.settle` accepts it
        # Blobs before the transaction: an upload may take long, and others wait for SQLite.
        interpreted = _make_interpreted(row, meaning, _join_notes(meaning, problem))
        label_set = write_label_set(workspace, asset, row.reviewer, interpreted)
    with catalogue.transaction():
        reply = _close_annotation(catalogue, parsed, problem)
        if asset.state is AssetState.REFINING:  # the reviewer changed refine into accept
            catalogue.move(asset.asset_id, AssetState.IN_REVIEW, detail="verdict changed")
        if label_set is None:
            return replace(reply, state=AssetState.IN_REVIEW, note=SECOND_AWAITED)
        record_label_set(catalogue, label_set)
    return replace(reply, state=AssetState.ACCEPTED)


def _park_asset(catalogue: Catalogue, parsed: _Parsed, state: AssetState, reason: str) -> Reply:
    hint = NO_ROUND_LEFT if reason == TOO_MANY else ""
    detail = "; ".join(filter(None, [hint, parsed.answer.note])) or None
    with catalogue.transaction():
        reply = _close_annotation(catalogue, parsed, hint)
        catalogue.move(parsed.asset.asset_id, state, reason=reason, detail=detail)
    return replace(reply, state=state)


def _reopen_asset(catalogue: Catalogue, parsed: _Parsed, is_last: bool) -> Reply | None:
    """A parked asset whose reviewer changed their mind goes back to proposed."""
    asset = parsed.asset
    parked_by = {REJECTED: "reject", SKIPPED: SKIP, TOO_MANY: "refine" if is_last else None}
    reason = asset.reason or ""
    if reason not in parked_by or parsed.answer.verdict == parked_by[reason]:
        return _close_annotation(catalogue, parsed, f"the asset is {asset.state}")
    with _open_decision(catalogue, parsed.row, asset):
        catalogue.retry(asset.asset_id)
    return None  # the next push finds the task, and the next pull this answer


def _is_older(row: AnnotationRow, catalogue: Catalogue) -> bool:
    """Is there a later version of the same answer?"""
    return any(
        (other.unique_id, other.is_late) == (row.unique_id, row.is_late)
        and other.updated_at > row.updated_at
        for other in catalogue.reviews.list_annotations(row.asset_id, row.round)
    )


def _close_annotation(catalogue: Catalogue, parsed: _Parsed, problem: str = "") -> Reply:
    """Store what an answer means; the asset stays where it is."""
    row, asset, meaning = parsed.row, parsed.asset, parsed.answer
    notes = _join_notes(meaning, problem)
    interpreted = _make_interpreted(row, meaning, notes)
    with _open_decision(catalogue, row, asset):
        catalogue.reviews.interpret(
            row.unique_id,
            row.updated_at,
            verdict=meaning.verdict,
            note=meaning.note,
            problem=interpreted.row.problem,
            clicks=interpreted.clicks,
            commands=interpreted.commands,
        )
    counts = len(meaning.clicks), notes, len(meaning.commands)
    return Reply(row.asset_id, row.round, meaning.verdict, asset.state, *counts)


def _join_notes(meaning: ParsedAnnotation, problem: str) -> str:
    return "; ".join(note for note in (problem, *meaning.problems) if note)


def _make_interpreted(
    row: AnnotationRow, meaning: ParsedAnnotation, notes: str
) -> InterpretedAnnotation:
    """An answer as it will stand in the catalogue."""
    understood = replace(
        row,
        verdict=meaning.verdict,
        note=meaning.note,
        problem=notes or None,
        is_interpreted=True,
    )
    return InterpretedAnnotation(
        understood,
        () if row.is_late else tuple(make_click_row(row, click) for click in meaning.clicks),
        ()
        if row.is_late
        else tuple(make_command_row(row, command) for command in meaning.commands),
    )


def _give_up(catalogue: Catalogue, row: AnnotationRow, asset: AssetRow, error: str) -> Reply:
    """Mark an answer that cannot be interpreted, so that it is reported and never blocks others."""
    with _open_decision(catalogue, row, asset):
        catalogue.reviews.interpret(
            row.unique_id, row.updated_at, verdict=None, problem=f"failed: {error[:500]}"
        )
    return Reply(row.asset_id, row.round, None, asset.state, note=error)
