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
from tasks.catalogue import AnnotationRow, AssetRow, AssetState, Catalogue, ClickRow, VerbRow
from tasks.errors import is_surroundings
from tasks.labelling.edit_commands import Verb, VerbKind
from tasks.labelling.label_sets import Answered, record_label_set, write_label_set
from tasks.labelling.loading import load_asset_mesh
from tasks.labelling.taxonomy import Taxonomy, configured_taxonomy
from tasks.quality.third_review import is_last_round
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.review.annotations import SKIP, Answer, PointedClick, read_annotation
from tasks.review.inbox import store_new
from tasks.review.project import Desk
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
        num_verbs: edits of whole parts.
    """

    asset_id: str
    round: int
    verdict: str | None
    state: AssetState
    num_clicks: int = 0
    note: str = ""
    num_verbs: int = 0


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A stored answer, the asset as it was read with it, and what the answer means."""

    row: AnnotationRow
    asset: AssetRow
    answer: Answer


def pull_annotations(workspace: Workspace, desk: Desk) -> list[Reply]:
    """Ask the desk once and act on what is new.

    Args:
        workspace: buffers, meshes and label sets; its catalogue gets raw answers, clicks and moves.
        desk: open project.

    Returns:
        One reply per newly interpreted answer, oldest first.
    """
    taxonomy = configured_taxonomy(workspace.settings.review)
    store_new(workspace.catalogue, desk)
    replies = []
    for row in workspace.catalogue.reviews.uninterpreted():
        reply = _reply(workspace, desk, row, taxonomy)
        if reply is not None:
            told = (row.asset_id[:12], row.round, reply.verdict, reply.num_clicks)
            log.info(
                "stage=pull asset=%s round=%d verdict=%s clicks=%d verbs=%d state=%s",
                *(*told, reply.num_verbs, reply.state),
            )
            replies.append(reply)
    return replies


def _reply(
    workspace: Workspace, desk: Desk, row: AnnotationRow, taxonomy: Taxonomy | None
) -> Reply | None:
    """Act on one stored answer so that no fault of it gets out; None when there is no reply now."""
    catalogue = workspace.catalogue
    asset = catalogue.asset(row.asset_id)
    if row.round < asset.round:
        row = _aside(row, catalogue)
    try:
        try:
            return _interpret(workspace, desk, row, asset, taxonomy)
        except Exception as err:
            if is_surroundings(err) or isinstance(err, Overtaken):
                raise
            reply = _give_up(catalogue, row, asset, f"{type(err).__name__}: {err}")
            name = (row.asset_id[:12], row.unique_id)
            log.exception("stage=pull asset=%s answer=%s failed", *name)
            return reply
    except Overtaken as late:
        log.info("stage=pull asset=%s %s", row.asset_id[:12], late)
        return None


def _aside(row: AnnotationRow, catalogue: Catalogue) -> AnnotationRow:
    """An answer whose round went on before it was read: the next round was made without it."""
    if row.is_late:
        return row
    with catalogue.transaction():
        catalogue.locked(row.asset_id)
        catalogue.reviews.set_aside(row.asset_id, row.unique_id, row.updated_at)
    return replace(row, is_late=True)


@contextmanager
def _deciding(catalogue: Catalogue, row: AnnotationRow, asset: AssetRow) -> Iterator[None]:
    """A transaction in which the answer is still open and the asset still where it was read."""
    with catalogue.transaction():
        now = catalogue.locked(asset.asset_id)
        held = catalogue.reviews.annotation(row.unique_id, row.updated_at)
        if held is None or held.is_interpreted or held.is_late != row.is_late:
            raise Overtaken(f"answer {row.unique_id} is interpreted already")
        if (now.state, now.round) != (asset.state, asset.round):
            raise Overtaken(f"is {now.state} in round {now.round} by now; the next pull sees to it")
        yield


def _interpret(
    workspace: Workspace,
    desk: Desk,
    row: AnnotationRow,
    asset: AssetRow,
    taxonomy: Taxonomy | None,
) -> Reply | None:
    """Act on one stored answer; None when its time has not come (the push is not recorded yet)."""
    store, catalogue = workspace.store, workspace.catalogue
    if row.round > asset.round or (row.round == asset.round and asset.state in NOT_YET):
        return None
    task = catalogue.reviews.task(row.asset_id, row.round)
    if row.round == asset.round and row.is_late:
        return _give_up(catalogue, row, asset, OUTDATED)
    if task is None:
        return None
    buffers = buffers_from_bytes(store.get(task.buffers_key))

    def triangles() -> FloatArray:
        return load_asset_mesh(store, asset).triangles

    max_clicks = workspace.settings.review.max_clicks
    answer = read_annotation(row.raw, buffers, triangles, max_clicks=max_clicks, taxonomy=taxonomy)
    parsed = _Parsed(row, asset, answer)
    if row.round < asset.round:
        return _close(catalogue, parsed, f"late: the asset is in round {asset.round}")
    if _is_older(row, catalogue):
        return _close(catalogue, parsed, "replaced by a newer version")
    return _act(workspace, desk, parsed)


def _act(workspace: Workspace, desk: Desk, parsed: _Parsed) -> Reply | None:
    """Do what the verdict says."""
    row, asset, answer, catalogue = parsed.row, parsed.asset, parsed.answer, workspace.catalogue
    close, park = partial(_close, catalogue, parsed), partial(_park, catalogue, parsed)
    if answer.verdict is None:
        return close("no verdict")
    max_rounds = workspace.settings.review.max_rounds
    is_last = is_last_round(catalogue, row.asset_id, row.round, max_rounds)
    if asset.state in (AssetState.REJECTED, AssetState.SKIPPED):
        return _reopen(catalogue, parsed, is_last)
    if answer.verdict == "reject":
        return park(AssetState.REJECTED, REJECTED)
    if answer.verdict == SKIP:
        if asset.state is not AssetState.IN_REVIEW:
            return close(f"skipped after it was {asset.state}")
        return park(AssetState.SKIPPED, SKIPPED)
    if answer.verdict == "accept":
        return _accept(workspace, parsed)
    if not answer.clicks and not answer.verbs:
        return _ask_again(catalogue, desk, parsed)
    if is_last:
        if asset.state is not AssetState.IN_REVIEW:
            return close(f"no round left and it is {asset.state}")
        return park(AssetState.REJECTED, TOO_MANY)
    with catalogue.transaction():
        reply = close()
        if asset.state is not AssetState.REFINING:
            catalogue.move(asset.asset_id, AssetState.REFINING)
    return replace(reply, state=AssetState.REFINING)


def _ask_again(catalogue: Catalogue, desk: Desk, parsed: _Parsed) -> Reply:
    # Gone from the desk first: killed in between, the stored answer is looked at again.
    desk.client.delete_annotation(parsed.row.annotation_id)
    asset = parsed.asset
    with catalogue.transaction():
        reply = _close(catalogue, parsed, NO_CLICKS)
        if asset.state is not AssetState.REFINING:
            return reply
        catalogue.move(asset.asset_id, AssetState.IN_REVIEW, detail="verdict changed")
    return replace(reply, state=AssetState.IN_REVIEW)


def _accept(workspace: Workspace, parsed: _Parsed) -> Reply:
    row, asset, answer, catalogue = parsed.row, parsed.asset, parsed.answer, workspace.catalogue
    splits = [verb for verb in answer.verbs if verb.kind is VerbKind.SPLIT]
    told = ((answer.clicks, "clicks"), (splits, "splits"))
    problem = "; ".join(f"{len(held)} {name} came with accept" for held, name in told if held)
    if asset.state in (AssetState.ACCEPTED, AssetState.SHARDED):
        return _close(catalogue, parsed, problem or "accepted already")
    label_set = None
    if not catalogue.quality.is_held(asset.asset_id):  # else `adjudication.settle` accepts it
        # Blobs before the transaction: an upload may take long, and others wait for SQLite.
        meant = _meant(row, answer, _notes(answer, problem))
        label_set = write_label_set(workspace, asset, row.reviewer, meant)
    with catalogue.transaction():
        reply = _close(catalogue, parsed, problem)
        if asset.state is AssetState.REFINING:  # the reviewer changed refine into accept
            catalogue.move(asset.asset_id, AssetState.IN_REVIEW, detail="verdict changed")
        if label_set is None:
            return replace(reply, state=AssetState.IN_REVIEW, note=SECOND_AWAITED)
        record_label_set(catalogue, label_set)
    return replace(reply, state=AssetState.ACCEPTED)


def _park(catalogue: Catalogue, parsed: _Parsed, state: AssetState, reason: str) -> Reply:
    cure = NO_ROUND_LEFT if reason == TOO_MANY else ""
    detail = "; ".join(filter(None, [cure, parsed.answer.note])) or None
    with catalogue.transaction():
        reply = _close(catalogue, parsed, cure)
        catalogue.move(parsed.asset.asset_id, state, reason=reason, detail=detail)
    return replace(reply, state=state)


def _reopen(catalogue: Catalogue, parsed: _Parsed, is_last: bool) -> Reply | None:
    """A parked asset whose reviewer changed their mind goes back to the desk's door."""
    asset = parsed.asset
    parked_by = {REJECTED: "reject", SKIPPED: SKIP, TOO_MANY: "refine" if is_last else None}
    reason = asset.reason or ""
    if reason not in parked_by or parsed.answer.verdict == parked_by[reason]:
        return _close(catalogue, parsed, f"the asset is {asset.state}")
    with _deciding(catalogue, parsed.row, asset):
        catalogue.retry(asset.asset_id)
    return None  # the next push finds the task, and the next pull this answer


def _is_older(row: AnnotationRow, catalogue: Catalogue) -> bool:
    """Is there a later version of the same answer?"""
    return any(
        (other.unique_id, other.is_late) == (row.unique_id, row.is_late)
        and other.updated_at > row.updated_at
        for other in catalogue.reviews.annotations(row.asset_id, row.round)
    )


def _close(catalogue: Catalogue, parsed: _Parsed, problem: str = "") -> Reply:
    """Store what an answer means; the asset stays where it is."""
    row, asset, answer = parsed.row, parsed.asset, parsed.answer
    notes = _notes(answer, problem)
    meant = _meant(row, answer, notes)
    with _deciding(catalogue, row, asset):
        catalogue.reviews.interpret(
            row.unique_id,
            row.updated_at,
            verdict=answer.verdict,
            note=answer.note,
            problem=meant.row.problem,
            clicks=meant.clicks,
            verbs=meant.verbs,
        )
    counts = len(answer.clicks), notes, len(answer.verbs)
    return Reply(row.asset_id, row.round, answer.verdict, asset.state, *counts)


def _notes(answer: Answer, problem: str) -> str:
    return "; ".join(note for note in (problem, *answer.problems) if note)


def _meant(row: AnnotationRow, answer: Answer, notes: str) -> Answered:
    """An answer as it will stand in the catalogue."""
    understood = replace(
        row,
        verdict=answer.verdict,
        note=answer.note,
        problem=notes or None,
        is_interpreted=True,
    )
    return Answered(
        understood,
        () if row.is_late else tuple(_click_row(row, click) for click in answer.clicks),
        () if row.is_late else tuple(_verb_row(row, verb) for verb in answer.verbs),
    )


def _give_up(catalogue: Catalogue, row: AnnotationRow, asset: AssetRow, error: str) -> Reply:
    """Mark an answer that cannot be interpreted, so that it is told and never blocks others."""
    with _deciding(catalogue, row, asset):
        catalogue.reviews.interpret(
            row.unique_id, row.updated_at, verdict=None, problem=f"failed: {error[:500]}"
        )
    return Reply(row.asset_id, row.round, None, asset.state, note=error)


def _click_row(row: AnnotationRow, click: PointedClick) -> ClickRow:
    return ClickRow(
        unique_id=row.unique_id,
        updated_at=row.updated_at,
        number=click.number,
        asset_id=row.asset_id,
        round=row.round,
        result_id=click.result_id,
        source=click.source,
        pixel_x=click.pixel_x,
        pixel_y=click.pixel_y,
        label=click.label,
        kind=str(click.meaning.kind),
        part=click.meaning.part,
        face=click.face,
        x=float(click.xyz[0]),
        y=float(click.xyz[1]),
        z=float(click.xyz[2]),
        view=click.view,
        group=click.meaning.group,
        is_positive=click.is_positive,
    )


def _verb_row(row: AnnotationRow, verb: Verb) -> VerbRow:
    return VerbRow(
        unique_id=row.unique_id,
        updated_at=row.updated_at,
        number=verb.number,
        asset_id=row.asset_id,
        round=row.round,
        result_id=verb.result_id,
        kind=str(verb.kind),
        parts=verb.parts,
        text=verb.text,
        count=verb.count,
    )
