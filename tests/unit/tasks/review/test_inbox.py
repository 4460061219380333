"""Hostile tasks and annotations beside good ones, through the real pull: good ones are taken.

The generator breaks a good answer in one to three places: odd values of every type, missing
fields, texts that no database holds. Rows go through the client's own reading of a page.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.catalogue import AssetRow, AssetState, Catalogue
from tasks.review.client import LabelStudioTask, LabelStudioUnavailable, _make_task
from tasks.review.inbox import store_new_annotations

ASSET = "a" * 64
STAMP = "2026-11-30T10:00:00.000000Z"
LATER = "2026-11-30T11:00:00.000000Z"
NUMBERS = itertools.count(1)


class Desk:
    """A list of tasks as the server sends them."""

    url = "http://desk.test"

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows
        self.fetched: list[int] = []

    def list_tasks_updated_since(self, _project: int, _since: str) -> Iterator[LabelStudioTask]:
        yield from map(_make_task, self.rows)

    def fetch_tasks(self, _project: int, wanted: list[int]) -> list[LabelStudioTask]:
        self.fetched += wanted
        return [task for task in map(_make_task, self.rows) if task.task_id in wanted]

    def get_user_name(self, _user: object) -> str:
        return "ann@local.test"


class Project:
    def __init__(self, rows: list[Any], project_id: int = 1) -> None:
        self.client, self.project_id = Desk(rows), project_id


def make_answer(**changes: Any) -> dict[str, Any]:
    number = next(NUMBERS)
    result = [{"from_name": "verdict", "value": {"choices": ["accept"]}, "id": "r"}]
    made = {"id": number, "created_at": STAMP, "updated_at": STAMP, "result": result}
    return {**made, "completed_by": 1, "lead_time": 1.5, "was_cancelled": False, **changes}


def make_row(*answers: Any, key: Any = f"{ASSET}:0", **changes: Any) -> dict[str, Any]:
    made = {"id": next(NUMBERS), "updated_at": STAMP, "data": {"key": key}}
    counts = {"total_annotations": len(answers), "cancelled_annotations": 0}
    return {**made, **counts, "annotations": list(answers), **changes}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return make_catalogue(tmp_path_factory.mktemp("inbox"))


def make_catalogue(folder: Path) -> Catalogue:
    made = Catalogue(f"sqlite:///{folder}/c.db")
    made.register(AssetRow(ASSET, AssetState.REGISTERED, source_key="k"))
    return made


def stored_ids(catalogue: Catalogue) -> list[int]:
    return [row.annotation_id for row in catalogue.reviews.list_annotations(ASSET)]


# Of a task: field -> bad value. Those of a known report are among them.
BAD_TASKS: dict[str, dict[str, Any]] = {
    "round 2 as a superscript": {"key": f"{ASSET}:²"},
    "round 10**30": {"key": f"{ASSET}:{10**30}"},
    "round of 5000 digits": {"key": f"{ASSET}:{'9' * 5000}"},
    "negative round": {"key": f"{ASSET}:-1"},
    "key of another asset": {"key": f"{'b' * 64}:0"},
    "key with NUL": {"key": "x\0y:0"},
    "key with a lone surrogate": {"key": "\ud800:0"},
    "key is a list": {"key": [1]},
    "data is text": {"data": "x"},
    "data with NaN": {"data": {"key": f"{ASSET}:0", "x": math.nan}},
    "annotations are an object": {"annotations": {"id": 1}},
    "count is text": {"total_annotations": "many"},
    "time is none": {"updated_at": "noon"},
    "id is text": {"id": "7"},
}
BAD_ANSWERS: dict[str, dict[str, Any]] = {
    "lead_time text": {"lead_time": "abc"},
    "lead_time NaN": {"lead_time": math.nan},
    "lead_time 1e999": {"lead_time": math.inf},
    "NUL text": {"result": [{"type": "textarea", "value": {"text": ["a\0b"]}}]},
    "lone surrogate": {"result": [{"value": {"text": ["\ud800"]}}]},
    "NaN coordinate": {"result": [{"value": {"x": math.nan}}]},
    "infinite coordinate": {"result": [{"value": {"x": -math.inf}}]},
    "result is a number": {"result": 7},
    "gigantic text": {"result": [{"value": {"text": "x" * (2**22 + 1)}}]},
    "id too large": {"id": 2**40},
    "id missing": {"id": None},
    "no time": {"updated_at": None},
    "time of another kind": {"created_at": 1764500000},
    "user is an object": {"completed_by": {"id": 1}},
}


@pytest.mark.parametrize("name", BAD_TASKS)
def test_a_bad_task_is_quarantined_and_the_good_answer_beside_it_is_taken(
    catalogue: Catalogue, name: str
) -> None:
    changes = dict(BAD_TASKS[name])
    bad = make_row(make_answer(), **changes)
    check_one(catalogue, bad, good_first=False)
    check_one(catalogue, {**bad, "x": 1}, good_first=True)


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_is_quarantined_and_the_good_one_of_its_task_is_taken(
    catalogue: Catalogue, name: str
) -> None:
    good = make_answer()
    bad = make_answer(**BAD_ANSWERS[name])
    before = len(catalogue.quarantine.list_all())
    store_new_annotations(catalogue, Project([make_row(bad, good)], next(NUMBERS)))
    assert stored_ids(catalogue).count(good["id"]) == 1
    assert bad["id"] not in stored_ids(catalogue)
    assert len(catalogue.quarantine.list_all()) == before + 1


@pytest.mark.parametrize("answer", [None, 7, "x", [], [[]], math.nan])
def test_what_is_no_answer_at_all(catalogue: Catalogue, answer: Any) -> None:
    good = make_answer()
    store_new_annotations(catalogue, Project([make_row(answer, good)], next(NUMBERS)))
    assert good["id"] in stored_ids(catalogue)
    assert "the annotation is" in catalogue.quarantine.list_all()[-1].reason


@pytest.mark.parametrize("row", [None, 7, "x", [], {}])
def test_what_is_no_task_at_all(catalogue: Catalogue, row: Any) -> None:
    check_one(catalogue, row, good_first=False)


def check_one(catalogue: Catalogue, bad: Any, *, good_first: bool) -> None:
    """Pull a bad row beside a good one, then pull again."""
    good = make_answer()
    rows = [make_row(good), bad] if good_first else [bad, make_row(good)]
    project, before = Project(rows, next(NUMBERS)), len(catalogue.quarantine.list_all())
    store_new_annotations(catalogue, project)
    assert stored_ids(catalogue).count(good["id"]) == 1
    held = catalogue.quarantine.list_all()
    assert len(held) == before + 1
    assert held[-1].reason.isascii() and held[-1].raw.isascii() and len(held[-1].raw) < 20_000
    name = f"review:{project.client.url}:{project.project_id}"
    assert catalogue.raw.get_cursor(name) == STAMP, "the cursor moves on"
    num_events = len(catalogue.list_events())
    store_new_annotations(catalogue, project)
    assert len(catalogue.list_events()) == num_events, "nothing changed, nothing is written"


HOSTILE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, -(2**63), 10**400, math.nan, math.inf, -1.5])
    | st.sampled_from(["", "\0", "\ud800", "²", "x" * 5000, f"{ASSET}:0", STAMP, "1" * 64])
    | st.text(max_size=9)
    | st.lists(st.integers() | st.text(max_size=3), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.floats(), max_size=2)
)


def list_places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for name, each in inner:
        found.append((*place, name))
        if isinstance(each, (dict, list)):
            found += list_places(each, (*place, name))
    return found


@given(data=st.data())
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_broken_the_good_answers_are_taken_once(
    catalogue: Catalogue, data: st.DataObject
) -> None:
    bad = copy.deepcopy(make_row(make_answer(), make_answer()))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, name = data.draw(st.sampled_from(list_places(bad)))
        where: Any = bad
        for step in path:
            where = where[step]
        if isinstance(where, dict) and data.draw(st.booleans()):
            del where[name]
        else:
            where[name] = data.draw(HOSTILE)
        if not bad:
            break
    good = [make_answer(), make_answer()]
    project = Project([make_row(good[0]), bad, make_row(good[1])], next(NUMBERS))
    store_new_annotations(catalogue, project)
    num_events = len(catalogue.list_events())
    store_new_annotations(catalogue, project)
    assert len(catalogue.list_events()) == num_events
    assert [stored_ids(catalogue).count(answer["id"]) for answer in good] == [1, 1]


def test_an_edited_answer_is_taken_and_leaves_the_quarantine(tmp_path: Path) -> None:
    catalogue = make_catalogue(tmp_path)
    bad = make_answer(lead_time="abc")
    project = Project([make_row(bad)])
    store_new_annotations(catalogue, project)
    (held,) = catalogue.quarantine.list_all()
    assert (held.kind, held.count) == ("annotation", 1) and "lead_time" in held.reason
    worse = {**bad, "updated_at": LATER, "result": 7}
    project.client.rows = [make_row(worse, id=held.task_id, updated_at=LATER)]
    store_new_annotations(catalogue, project)
    (again,) = catalogue.quarantine.list_all()
    assert (again.message_id, again.count) == (held.message_id, 2)
    assert again.first_seen == held.first_seen <= again.last_seen
    mended = {**bad, "updated_at": LATER, "lead_time": 2.0}
    project.client.rows = [make_row(mended, id=held.task_id, updated_at=LATER)]
    store_new_annotations(catalogue, project)
    assert catalogue.quarantine.list_all(is_dropped=None) == []
    assert stored_ids(catalogue) == [bad["id"]]


def test_what_waits_for_its_asset_is_read_when_a_person_asks(tmp_path: Path) -> None:
    """After a restore the catalogue may know an asset later than Label Studio does."""
    catalogue, other = make_catalogue(tmp_path), "b" * 64
    answer = make_answer()
    project = Project([make_row(answer, key=f"{other}:0")])
    store_new_annotations(catalogue, project)
    (held,) = catalogue.quarantine.list_all()
    assert "is not in this catalogue" in held.reason
    catalogue.register(AssetRow(other, AssetState.REGISTERED, source_key="k"))
    rows, project.client.rows = project.client.rows, []
    store_new_annotations(catalogue, project)
    assert catalogue.quarantine.list_all() == [held], "nobody asked"
    catalogue.quarantine.request_retry(held.message_id)
    project.client.rows = rows
    store_new_annotations(catalogue, project)
    assert project.client.fetched == [held.task_id]
    assert catalogue.quarantine.list_all() == []
    assert [row.annotation_id for row in catalogue.reviews.list_annotations(other)] == [
        answer["id"]
    ]


def test_a_dropped_message_comes_back_only_as_another_version(tmp_path: Path) -> None:
    catalogue = make_catalogue(tmp_path)
    bad = make_answer(lead_time="abc")
    project = Project([make_row(bad)])
    store_new_annotations(catalogue, project)
    (held,) = catalogue.quarantine.list_all()
    catalogue.quarantine.drop(held.message_id)
    store_new_annotations(catalogue, project)
    assert catalogue.quarantine.list_all() == [] and catalogue.quarantine.count_by_kind() == {}
    project.client.rows[0]["annotations"][0] = {**bad, "lead_time": "def"}
    store_new_annotations(catalogue, project)
    assert catalogue.quarantine.count_by_kind() == {"annotation": 1}


def test_a_task_that_could_not_be_fetched_is_fetched_again_until_it_can(tmp_path: Path) -> None:
    catalogue, answer = make_catalogue(tmp_path), make_answer()
    whole = make_row(answer)
    project = Project([])
    refused = LabelStudioTask(whole["id"], "", 0, STAMP, problem="cannot be fetched: status 500")
    listed = [[refused], [], []]
    project.client.list_tasks_updated_since = lambda *_args: listed.pop(0)
    store_new_annotations(catalogue, project)
    (held,) = catalogue.quarantine.list_all()
    assert held.is_retrying
    project.client.rows = [whole]
    store_new_annotations(catalogue, project)
    assert catalogue.quarantine.list_all() == [] and stored_ids(catalogue) == [answer["id"]]


def test_a_task_that_is_gone_is_not_looked_for_again(tmp_path: Path) -> None:
    catalogue = make_catalogue(tmp_path)
    project = Project([make_row(make_answer(), key="x")])
    store_new_annotations(catalogue, project)
    (held,) = catalogue.quarantine.list_all()
    catalogue.quarantine.request_retry(held.message_id)
    project.client.rows = []
    store_new_annotations(catalogue, project)
    (left,) = catalogue.quarantine.list_all()
    assert not left.is_retrying and "no longer in Label Studio" in left.reason


def test_a_time_far_ahead_does_not_hide_what_comes_before_it(tmp_path: Path) -> None:
    catalogue = make_catalogue(tmp_path)
    ahead = make_row(make_answer(), updated_at="9999-01-01T00:00:00.000000Z")
    project = Project([make_row(make_answer()), ahead])
    store_new_annotations(catalogue, project)
    assert len(stored_ids(catalogue)) == 2
    assert catalogue.raw.get_cursor("review:http://desk.test:1") == STAMP


def test_an_outage_quarantines_nothing_and_keeps_the_cursor(tmp_path: Path) -> None:
    catalogue = make_catalogue(tmp_path)
    project = Project([make_row(make_answer())])

    def refuse(_user: object) -> str:
        raise LabelStudioUnavailable("status 503")

    project.client.get_user_name = refuse
    with pytest.raises(LabelStudioUnavailable):
        store_new_annotations(catalogue, project)
    assert catalogue.quarantine.list_all() == []
    assert catalogue.raw.get_cursor("review:http://desk.test:1") is None


def test_an_answer_that_no_code_can_interpret_is_shown_and_tried_again_when_asked(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.review import pull as pull_module

    catalogue, task = loop.pipeline.catalogue, loop.push()
    loop.project.client.submit_annotation(task.task_id, "accept", [])
    with monkeypatch.context() as patch:
        patch.setattr(pull_module, "parse_annotation", lambda *_a, **_k: {}["x"])
        (reply,) = loop.pull()
    assert (reply.verdict, reply.state) == (None, AssetState.IN_REVIEW)
    (held,) = catalogue.quarantine.list_all()
    assert held.kind == "answer" and "KeyError" in held.reason
    assert loop.pull() == [], "not by itself"
    catalogue.quarantine.request_retry(held.message_id)
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED and catalogue.quarantine.list_all() == []


def test_push_leaves_tasks_with_unreadable_answers_alone(loop: Any) -> None:
    catalogue, client = loop.pipeline.catalogue, loop.project.client
    task = loop.push()
    client.submit_annotation(task.task_id, "reject", [])
    loop.pull()
    client.held = [replace(client.held[0], annotations=(*client.held[0].annotations, {"id": []}))]
    catalogue.retry(loop.asset_id)
    assert loop.push().task_id == task.task_id
