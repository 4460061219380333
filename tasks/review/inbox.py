"""Store what Label Studio has before anything acts on it: every version of every answer, raw.

The key of an answer is (its own id, when it was changed). An answer to a round that is over is
marked as late: it is kept, but it is no part of the round's history.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.catalogue import AnnotationRow, AssetRow, Catalogue
from tasks.review.client import LabelStudioTask
from tasks.review.project import ReviewProject

log = logging.getLogger(__name__)

OVERLAP_S = 120.0  # looked at again each time: clocks and long transactions differ by less
PROPOSAL_SHA256 = "proposal_sha256"  # in a task's data and in a sheet's meta
BEGINNING = "1970-01-01T00:00:00.000000Z"


def store_new_annotations(catalogue: Catalogue, project: ReviewProject) -> None:
    """Store every version of every answer since the last look, then move the look's time.

    Args:
        catalogue: gets the answers and the time.
        project: open project.
    """
    name = f"review:{project.client.url}:{project.project_id}"
    last = catalogue.raw.get_cursor(name) or BEGINNING
    newest = last
    for task in project.client.list_tasks_updated_since(
        project.project_id, _subtract_overlap(last)
    ):
        for annotation in task.annotations:
            row = _make_raw_row(task, annotation, catalogue, project)
            if row is not None:
                catalogue.reviews.record_annotation(row)
        newest = max(newest, task.updated_at)
    if newest != last:
        catalogue.raw.set_cursor(name, newest)


def find_stored_annotation(
    annotation: Mapping[str, Any], catalogue: Catalogue, project: ReviewProject
) -> AnnotationRow | None:
    """This very version of an answer as the catalogue has it, or None.

    Args:
        annotation: as Label Studio returns it.
        catalogue: where to look.
        project: where the annotation is.
    """
    unique_id, updated_at = _make_unique_id(annotation, project), str(annotation["updated_at"])
    return catalogue.reviews.get_annotation(unique_id, updated_at)


def _make_unique_id(annotation: Mapping[str, Any], project: ReviewProject) -> str:
    # Ids are used again after a delete; with the time of creation they are one answer's own.
    created = "".join(char for char in str(annotation["created_at"]) if char.isdigit())
    return f"{project.project_id}-{annotation['id']}-{created}"


def _make_raw_row(
    task: LabelStudioTask,
    annotation: Mapping[str, Any],
    catalogue: Catalogue,
    project: ReviewProject,
) -> AnnotationRow | None:
    asset_id, _, number = task.key.rpartition(":")
    asset = catalogue.find_asset(asset_id) if number.isdigit() else None
    if asset is None:
        log.warning("stage=pull task=%d key=%r unknown", task.task_id, task.key[:80])
        return None
    if find_stored_annotation(annotation, catalogue, project) is not None:
        return None
    round_ = int(number)
    return AnnotationRow(
        unique_id=_make_unique_id(annotation, project),
        updated_at=str(annotation["updated_at"]),
        annotation_id=int(annotation["id"]),
        task_id=task.task_id,
        asset_id=asset_id,
        round=round_,
        reviewer=project.client.get_user_name(annotation.get("completed_by")),
        raw=annotation,
        lead_time_s=float(annotation.get("lead_time") or 0.0),
        was_cancelled=bool(annotation.get("was_cancelled")),
        is_late=_is_late(task, asset, round_, catalogue),
    )


def _is_late(task: LabelStudioTask, asset: AssetRow, round_: int, catalogue: Catalogue) -> bool:
    """Is the round over, or does the task show a proposal that counts no more?"""
    if round_ < asset.round:
        return True
    shown, present = task.data.get(PROPOSAL_SHA256), catalogue.get_proposal(asset.asset_id, round_)
    return shown is not None and present is not None and shown != present.sha256


def _subtract_overlap(time_text: str) -> str:
    """ISO time minus the overlap."""
    moment = datetime.fromisoformat(time_text)
    floor = datetime(1970, 1, 1, tzinfo=UTC)
    return max(moment - timedelta(seconds=OVERLAP_S), floor).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
