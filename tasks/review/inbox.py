"""Store what Label Studio has before anything acts on it: every version of every answer, raw.

The key of an answer is (its own id, when it was changed). Every task and every annotation is read
behind its own fence (fence.py): what cannot be read is quarantined. An answer to a round that is
over is marked as late: it is kept, but it is no part of the round's history.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.catalogue import AnnotationRow, AssetRow, Catalogue, QuarantineRow
from tasks.catalogue.quarantine import MAX_RAW_CHARS
from tasks.errors import is_transient_error
from tasks.review.client import LabelStudioTask
from tasks.review.fence import (
    MAX_INT32,
    Unreadable,
    check_json,
    dump_raw,
    read_id,
    read_mapping,
    read_seconds,
    read_time,
    split_key,
)
from tasks.review.project import ReviewProject

log = logging.getLogger(__name__)

OVERLAP_S = 120.0  # looked at again each time: clocks and long transactions differ by less
PROPOSAL_SHA256 = "proposal_sha256"  # in a task's data and in a sheet's meta
MAX_AHEAD_S = 86_400.0  # times further ahead of this machine's clock are not believed
BEGINNING = "1970-01-01T00:00:00.000000Z"


def store_new_annotations(catalogue: Catalogue, project: ReviewProject) -> None:
    """Store every version of every answer since the last look, then move the look's time.

    What cannot be read goes to the quarantine and stops nothing: the answers beside it are stored
    and the time moves on. Of a quarantined task or answer a later version is read like any other.

    Args:
        catalogue: gets the answers and the time.
        project: open project.
    """
    name = f"review:{project.client.url}:{project.project_id}"
    last = catalogue.raw.get_cursor(name) or BEGINNING
    newest, horizon = last, _format_moment(datetime.now(UTC) + timedelta(seconds=MAX_AHEAD_S))
    quarantined = catalogue.quarantine.list_ids()
    inbox = _Inbox(catalogue, project, quarantined)
    if quarantined:
        inbox.fetch_again()
    for task in project.client.list_tasks_updated_since(
        project.project_id, _subtract_overlap(last)
    ):
        inbox.take_task(task)
        if task.updated_at < horizon:  # a time far ahead would hide all that comes before it
            newest = max(newest, task.updated_at)
    if newest != last:
        catalogue.raw.set_cursor(name, newest)


@dataclass(frozen=True, slots=True)
class _Inbox:
    """Takes tasks and annotations, each behind its own fence.

    Attributes:
        quarantined: ids of the messages that could not be read so far.
    """

    catalogue: Catalogue
    project: ReviewProject
    quarantined: frozenset[str]

    def fetch_again(self) -> None:
        """Fetch again what could not be fetched, or what a person asked for."""
        waiting = [
            row
            for row in self.catalogue.quarantine.list_all(is_retrying=True)
            if row.project_id == self.project.project_id and row.kind != "answer"
        ]
        ids = sorted({row.task_id for row in waiting})
        found = list(self.project.client.fetch_tasks(self.project.project_id, ids)) if ids else []
        for task in found:
            self.take_task(task)
        gone = set(ids) - {task.task_id for task in found}
        for row in waiting:
            if row.task_id in gone:
                reason = f"{row.reason}; its task is no longer in Label Studio"
                self.catalogue.quarantine.add(replace(row, reason=reason, is_retrying=False))

    def take_task(self, task: LabelStudioTask) -> None:
        """Store the answers of a task that are new."""
        message_id = f"task-{self.project.project_id}-{task.task_id}"
        if not task.problem and not task.annotations:
            self._resolve(message_id)
            return
        try:
            if task.problem:
                raise Unreadable(task.problem)
            asset_id, round_ = split_key(task.key)
            asset = self.catalogue.find_asset(asset_id)
            if asset is None:
                raise Unreadable(f"asset {asset_id[:12]} is not in this catalogue")
        except Unreadable as err:
            # What could not even be fetched may be a fault of the server: asked for each time.
            is_retrying = bool(task.problem) and task.raw is None
            raw = task.raw if task.problem else {"data": task.data, "answers": task.annotations}
            self._quarantine("task", message_id, task, str(err), raw, is_retrying)
            return
        self._resolve(message_id)
        for number, annotation in enumerate(task.annotations):
            self._take_annotation(task, asset, round_, number, annotation)

    def _take_annotation(
        self, task: LabelStudioTask, asset: AssetRow, round_: int, number: int, annotation: Any
    ) -> None:
        given = annotation.get("id") if isinstance(annotation, Mapping) else None
        name = given if isinstance(given, int) and 0 <= given <= MAX_INT32 else f"n{number}"
        message_id = f"annotation-{self.project.project_id}-{task.task_id}-{name}"
        try:
            row = _make_raw_row(task, annotation, asset, round_, self.catalogue, self.project)
            if row is not None:
                self.catalogue.reviews.record_annotation(row)
        except Exception as err:
            if is_transient_error(err):
                raise
            reason = str(err) if isinstance(err, Unreadable) else f"{type(err).__name__}: {err}"
            self._quarantine("annotation", message_id, task, reason, annotation, False)
            return
        self._resolve(message_id)

    def _resolve(self, message_id: str) -> None:
        if message_id in self.quarantined:
            self.catalogue.quarantine.resolve(message_id)

    # More than five parameters: what a row of the quarantine holds.
    def _quarantine(
        self,
        kind: str,
        message_id: str,
        task: LabelStudioTask,
        reason: str,
        raw: Any,
        is_retrying: bool,
    ) -> None:
        row = QuarantineRow(
            message_id,
            kind,
            _make_printable(reason),
            dump_raw(raw, MAX_RAW_CHARS),
            project_id=self.project.project_id,
            task_id=task.task_id,
            is_retrying=is_retrying,
        )
        if self.catalogue.quarantine.add(row):
            log.warning("stage=pull message=%s quarantined=true reason=%s", message_id, row.reason)


def find_stored_annotation(
    annotation: Mapping[str, Any], catalogue: Catalogue, project: ReviewProject
) -> AnnotationRow | None:
    """This very version of an answer as the catalogue has it; None also if it is unreadable.

    Args:
        annotation: as Label Studio returns it.
        catalogue: where to look.
        project: where the annotation is.
    """
    try:
        updated_at = read_time(read_mapping(annotation, "the annotation"), "updated_at")
        unique_id = _make_unique_id(annotation, project)
    except Unreadable:
        return None
    return catalogue.reviews.get_annotation(unique_id, updated_at)


def _make_unique_id(annotation: Mapping[str, Any], project: ReviewProject) -> str:
    # Ids are used again after a delete; with the time of creation they are one answer's own.
    created = "".join(char for char in read_time(annotation, "created_at") if char.isdigit())
    return f"{project.project_id}-{read_id(annotation)}-{created}"


def _make_raw_row(
    task: LabelStudioTask,
    annotation: Any,
    asset: AssetRow,
    round_: int,
    catalogue: Catalogue,
    project: ReviewProject,
) -> AnnotationRow | None:
    """The row of a version that is not stored yet; None if it is. Raises Unreadable."""
    fields = read_mapping(annotation, "the annotation")
    unique_id = _make_unique_id(fields, project)
    updated_at = read_time(fields, "updated_at")
    if find_stored_annotation(fields, catalogue, project) is not None:
        return None
    check_json(fields)
    if not isinstance(fields.get("result", []), (list, type(None))):
        raise Unreadable(f"result is {type(fields['result']).__name__}, not a list")
    has_user = fields.get("completed_by") is not None
    user = read_id(fields, "completed_by") if has_user else None
    return AnnotationRow(
        unique_id=unique_id,
        updated_at=updated_at,
        annotation_id=read_id(fields),
        task_id=task.task_id,
        asset_id=asset.asset_id,
        round=round_,
        reviewer=project.client.get_user_name(user),
        raw=fields,
        lead_time_s=read_seconds(fields, "lead_time"),
        was_cancelled=bool(fields.get("was_cancelled")),
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
    return _format_moment(max(moment - timedelta(seconds=OVERLAP_S), floor))


def _format_moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _make_printable(text: str) -> str:
    """ASCII: whatever an error quotes, every database can hold it."""
    return text.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")
