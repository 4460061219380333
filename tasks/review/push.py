"""Put proposals on the reviewers' desk: draw, upload, one task per (asset, round), record, move.

Killed anywhere, running again ends the same: files are create-only, tasks are looked up by their
key before and after the import, and the catalogue moves last. The desk never decides twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    AssetState,
    Catalogue,
    ProposalRow,
    ReviewTaskRow,
)
from tasks.errors import StageError
from tasks.labelling.loading import get_current_proposal, load_asset_mesh, load_proposal
from tasks.labelling.taxonomy import configured_taxonomy
from tasks.quality.third_review import (
    find_disputed,
    is_last_round,
    make_third_review_title,
    mark_disputed,
)
from tasks.rendering.contact_sheet import render_sheet
from tasks.rendering.labels import make_task_labels
from tasks.rendering.pixel_buffers import (
    PART_SLOTS,
    Buffers,
    buffers_from_bytes,
    buffers_to_bytes,
    part_meta,
)
from tasks.rendering.viewer_html import render_viewer
from tasks.review.client import LabelStudioTask
from tasks.review.inbox import PROPOSAL_SHA256, find_stored_annotation
from tasks.review.label_config import LAST_ROUND, format_task_title, make_viewer_html
from tasks.review.project import ReviewProject
from tasks.stages.runner import Heal, StageResult, make_not_needed_result, run_stage_safely
from tasks.storage import keys
from tasks.workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An asset whose files are in the store and whose task can be imported."""

    asset: AssetRow
    proposal: ProposalRow
    row: ReviewTaskRow
    data: Mapping[str, Any]

    @property
    def key(self) -> str:
        return keys.make_review_key(self.asset.asset_id, self.asset.round)


def push_assets(
    workspace: Workspace,
    project: ReviewProject,
    asset_ids: Sequence[str],
    heal: Heal | None = None,
) -> list[StageResult]:
    """Ask the reviewers about the present proposals of some assets.

    Args:
        workspace: its store must be the one that Label Studio reads; its catalogue gets the
            tasks' rows and the moves to in_review.
        project: open project.
        asset_ids: in state proposed and leased to the workspace's worker; others are left alone.
        heal: called for an asset whose blobs are damaged or missing.

    Returns:
        One result per asset, in the given order.
    """
    catalogue, run = (
        workspace.catalogue,
        partial(run_stage_safely, workspace, "push_review", heal=heal),
    )
    prepared: dict[str, _Prepared] = {}
    results: dict[str, StageResult] = {}

    def prepare_asset(asset_id: str) -> StageResult:
        asset = catalogue.get_asset(asset_id)
        if asset.state is not AssetState.PROPOSED:
            return make_not_needed_result("push_review", catalogue, asset_id)
        ready = prepared[asset_id] = _prepare_task(workspace, project, asset)
        return StageResult(asset_id, "push_review", asset.state, False, ready.row.sheet_key)

    for asset_id in asset_ids:
        results[asset_id] = run(asset_id, partial(prepare_asset, asset_id))
    _clear_annotated(prepared.values(), catalogue, project)
    tasks = ensure_tasks(project, {ready.key: ready.data for ready in prepared.values()})
    for asset_id, ready in prepared.items():
        record = partial(_record_task, workspace, ready, tasks[ready.key])
        results[asset_id] = run(asset_id, record)
    return [results[asset_id] for asset_id in asset_ids]


def ensure_tasks(
    project: ReviewProject, wanted: Mapping[str, Mapping[str, Any]]
) -> dict[str, LabelStudioTask]:
    """Make Label Studio have exactly one task for each key.

    Args:
        project: open project.
        wanted: data.key -> task data.

    Returns:
        data.key -> the task, new or found.
    """
    client, project_id = project.client, project.project_id
    if not wanted:
        return {}
    held = client.find_tasks(project_id, list(wanted))
    for task in held:
        if not _matches_data(task, wanted[task.key]) and task.num_annotations == 0:
            log.warning("review=outdated key=%s deleted=%d", task.key[:24], task.task_id)
            client.delete_task(task.task_id)
    found = {task.key for task in held if _matches_data(task, wanted[task.key])}
    missing = [{"data": dict(data)} for key, data in wanted.items() if key not in found]
    client.import_tasks(project_id, missing)
    by_key: dict[str, list[LabelStudioTask]] = {}
    for task in client.find_tasks(project_id, list(wanted)):
        if _matches_data(task, wanted[task.key]):
            by_key.setdefault(task.key, []).append(task)
    absent = set(wanted) - set(by_key)
    if absent:
        raise StageError(f"Label Studio took {len(absent)} tasks and does not list them")
    return {key: _keep_one(project, tasks) for key, tasks in by_key.items()}


def _clear_annotated(
    ready: Iterable[_Prepared], catalogue: Catalogue, project: ReviewProject
) -> None:
    """Delete tasks whose annotations have all had their effect, so that they are asked anew.

    That is what `retry` of a parked asset means. An answer that was changed since, or that no pull
    has seen yet, keeps its task: it will be acted on.
    """
    cleared = {each.key: each.data for each in ready if _list_past_annotations(each, catalogue)}
    for task in project.client.find_annotated_tasks(project.project_id, list(cleared)):
        if not _matches_data(task, cleared[task.key]):
            continue
        held = [
            find_stored_annotation(annotation, catalogue, project)
            for annotation in task.annotations
        ]
        is_past = all(stored is not None and stored.is_interpreted for stored in held)
        if is_past and len(held) == task.num_annotations:
            log.info("review=repeated key=%s deleted=%d", task.key[:24], task.task_id)
            project.client.delete_task(task.task_id)


def _list_past_annotations(ready: _Prepared, catalogue: Catalogue) -> list[AnnotationRow]:
    """Answers to a round that is proposed (again) and have had their effect."""
    annotations = catalogue.reviews.list_annotations(ready.asset.asset_id, ready.asset.round)
    return [row for row in annotations if row.is_interpreted and not row.is_late]


def _matches_data(task: LabelStudioTask, data: Mapping[str, Any]) -> bool:
    """Does a task show the proposal that is wanted? A round may have been proposed again."""
    return task.data.get(PROPOSAL_SHA256) == data.get(PROPOSAL_SHA256)


def _keep_one(project: ReviewProject, tasks: Iterable[LabelStudioTask]) -> LabelStudioTask:
    """Of several tasks with one key keep the answered one, else the oldest; delete the rest."""
    kept, *rest = sorted(tasks, key=lambda task: (task.num_annotations == 0, task.task_id))
    for task in rest:
        # Somebody's answer to a duplicate is never thrown away; it is pulled like any other.
        if task.num_annotations == 0:
            log.warning("review=duplicate key=%s deleted=%d", task.key[:24], task.task_id)
            project.client.delete_task(task.task_id)
    return kept


def _prepare_task(workspace: Workspace, project: ReviewProject, asset: AssetRow) -> _Prepared:
    """Make sure that a round's files are in the store, and describe its task."""
    store, catalogue = workspace.store, workspace.catalogue
    source = get_current_proposal(catalogue, asset)
    place = (asset.asset_id, asset.round)
    files = (*place, source.sha256)
    sheet, buffers = keys.make_review_sheet_key(*files), keys.make_review_buffers_key(*files)
    viewer = keys.make_review_viewer_key(*files)
    if store.exists(sheet):
        sheet_data = _find_same_proposal(buffers_from_bytes(store.get(buffers)), source)
    else:
        sheet_data = _draw_sheet(workspace, asset, source)
    num_parts = int(sheet_data["num_parts"])
    is_last = is_last_round(catalogue, *place, workspace.settings.review.max_rounds)
    last = [LAST_ROUND] if is_last else []  # not in the viewer's file: the limit may change
    data = {
        "key": keys.make_review_key(*place),
        "asset_id": asset.asset_id,
        "round": asset.round,
        "title": " | ".join([_make_title(asset, source, num_parts), *last]),
        "sheet": store.get_uri(sheet),
        "buffers": store.get_uri(buffers),
        "viewer": make_viewer_html(store.get_uri(viewer)),
        "parts": make_task_labels(num_parts, sheet_data.get(PART_SLOTS)),
        "num_parts": num_parts,
        "proposal": source.key,
        PROPOSAL_SHA256: source.sha256,
        "confidence": round(source.confidence, 4),
        "priority": round(asset.priority, 4),
    }
    row = ReviewTaskRow(*place, project.project_id, 0, source.key, sheet, buffers, viewer)
    return _Prepared(asset, source, row, data)


def _find_same_proposal(buffers: Buffers, source: ProposalRow) -> Mapping[str, Any]:
    """What is known of a sheet that exists, if it shows this very proposal."""
    shown = buffers.meta.get(PROPOSAL_SHA256)
    if shown != source.sha256:
        raise StageError(
            f"the sheet of round {source.round} shows proposal {str(shown)[:12]}, "
            f"the catalogue has {source.sha256[:12]}; start the asset in a fresh store"
        )
    return buffers.meta


def _draw_sheet(workspace: Workspace, asset: AssetRow, source: ProposalRow) -> Mapping[str, Any]:
    """Draw and upload a round's files, the sheet last: where it is, the others are complete."""
    begin = time.perf_counter()
    files, meta = draw_review_files(workspace, asset, source)
    for key, (data, content_type) in files.items():
        workspace.store.put(key, data, content_type)
    log.info("stage=draw asset=%s seconds=%.2f", asset.asset_id[:12], time.perf_counter() - begin)
    return meta


def draw_review_files(
    workspace: Workspace, asset: AssetRow, source: ProposalRow
) -> tuple[dict[str, tuple[bytes, str]], Mapping[str, Any]]:
    """Draw a round's files without writing them.

    Args:
        workspace: mesh, proposal, settings.
        asset: in that round.
        source: the round's proposal.

    Returns:
        Key -> (bytes, content type) in the order of writing, and what the sheet's buffers say.
    """
    store, settings = workspace.store, workspace.settings.review
    place = (asset.asset_id, asset.round, source.sha256)
    mesh = load_asset_mesh(store, asset)
    proposal = load_proposal(store, source)
    labels = proposal.face_labels
    meta = {
        "asset_id": asset.asset_id,
        "round": asset.round,
        "proposal": source.key,
        PROPOSAL_SHA256: source.sha256,
        **part_meta(proposal.parts),
    }
    sheet = render_sheet(mesh, labels, width=settings.sheet_pixels, meta=meta)
    title = _make_title(asset, source, source.num_parts)
    taxonomy = configured_taxonomy(settings)
    viewer = render_viewer(mesh, labels, sheet.buffers, title=title, taxonomy=taxonomy)
    disputed = find_disputed(source, labels, mesh, store)
    png = sheet.png
    if disputed is not None:
        png = mark_disputed(png, sheet.buffers.face, disputed)
    buffers = (buffers_to_bytes(sheet.buffers), "application/octet-stream")
    files = {
        keys.make_review_buffers_key(*place): buffers,
        keys.make_review_viewer_key(*place): (viewer, "text/html; charset=utf-8"),
        keys.make_review_sheet_key(*place): (png, "image/png"),
    }
    return files, sheet.buffers.meta


def _make_title(asset: AssetRow, source: ProposalRow, num_parts: int) -> str:
    title = format_task_title(asset.name, asset.round, num_parts)
    return " | ".join(filter(None, [title, make_third_review_title(source)]))


def _record_task(workspace: Workspace, ready: _Prepared, task: LabelStudioTask) -> StageResult:
    row, catalogue = ready.row, workspace.catalogue
    recorded = replace(row, task_id=task.task_id)
    with catalogue.transaction():
        catalogue.lock_asset(row.asset_id)
        if task.num_annotations == 0:  # asked anew: what was said before is no part of this round
            for past in _list_past_annotations(ready, catalogue):
                catalogue.reviews.mark_late(row.asset_id, past.unique_id)
        catalogue.reviews.add_task(recorded)
        moved = catalogue.move(row.asset_id, AssetState.IN_REVIEW, worker=workspace.lease_owner)
    note = f"task {task.task_id}"
    return StageResult(row.asset_id, "push_review", moved.state, True, row.sheet_key, note=note)
