"""Poison on a real PostgreSQL, which holds neither NUL nor NaN: the good answer is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.catalogue import AssetRow, AssetState, Catalogue
from tasks.review.client import LabelStudioTask
from tasks.review.inbox import store_new_annotations

ASSET, STAMP = "a" * 64, "2026-11-30T10:00:00.000000Z"


class Desk:
    url = "http://desk.test"

    def __init__(self, tasks: list[LabelStudioTask]) -> None:
        self.tasks = tasks

    def list_tasks_updated_since(self, _project: int, _since: str) -> Iterator[LabelStudioTask]:
        yield from self.tasks

    def get_user_name(self, _user: object) -> str:
        return "ann@local.test"


class Project:
    project_id = 1

    def __init__(self, *tasks: LabelStudioTask) -> None:
        self.client = Desk(list(tasks))


def _answer(number: int, **changes: Any) -> dict[str, Any]:
    made = {"id": number, "created_at": STAMP, "updated_at": STAMP, "result": []}
    return {**made, "completed_by": 1, "lead_time": 1.0, **changes}


def _task(number: int, key: str, answer: Any) -> LabelStudioTask:
    return LabelStudioTask(number, key, 1, STAMP, {"key": key}, (answer,))


GOOD = _task(99, f"{ASSET}:0", _answer(99))


@pytest.mark.parametrize(
    "bad",
    [
        _task(2, f"{ASSET}:²", _answer(2)),
        _task(3, f"{ASSET}:{10**30}", _answer(3)),
        _task(4, "x\0y:0", _answer(4)),
        _task(5, "\ud800:0", _answer(5)),
        _task(6, f"{ASSET}:0", _answer(6, lead_time=math.nan)),
        _task(7, f"{ASSET}:0", _answer(7, result=[{"value": {"text": ["a\0b"]}}])),
        _task(8, f"{ASSET}:0", _answer(8, result=[{"value": {"text": ["\ud800"]}}])),
        _task(9, f"{ASSET}:0", _answer(9, result=[{"value": {"x": math.nan}}])),
        _task(10, f"{ASSET}:0", _answer(2**40)),
        _task(11, f"{ASSET}:0", "\0"),
    ],
    ids=lambda task: str(task.task_id),
)
def test_the_good_answer_beside_poison_is_taken(fresh_url: str, bad: LabelStudioTask) -> None:
    catalogue = Catalogue(fresh_url)
    catalogue.register(AssetRow(ASSET, AssetState.REGISTERED, source_key="k"))
    for tasks in ((bad, GOOD), (GOOD, bad)):
        store_new_annotations(catalogue, Project(*tasks))
    assert [row.annotation_id for row in catalogue.reviews.list_annotations(ASSET)] == [99]
    (held,) = catalogue.quarantine.list_all()
    assert held.count == 1 and held.task_id == bad.task_id
    catalogue.quarantine.drop(held.message_id)
    assert catalogue.quarantine.count_by_kind() == {}
