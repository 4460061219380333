"""The client against a small server that behaves badly; the real one is used in tests/e2e."""

from __future__ import annotations

import json
import operator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from tasks.errors import is_transient_error
from tasks.review.client import LabelStudioClient, LabelStudioError, LabelStudioUnavailable
from tasks.review.project import open_project
from tasks.settings import ReviewSettings, StoreSettings

KEY = "0123456789abcdef"
VERSION = "/api/version"
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2ln"


def test_reads_are_tried_again_and_writes_never(server):
    client = LabelStudioClient(server.url, KEY)
    server.script += [(500, "oops"), (429, "slow"), (200, {"release": "1.23.2"})]
    assert client.request("GET", VERSION) == {"release": "1.23.2"}
    server.script += [(502, "bad gateway")]
    with pytest.raises(LabelStudioUnavailable, match=r"POST .*status 502: bad gateway"):
        client.import_tasks(1, [{"data": {}}])
    assert [method for method, *_ in server.seen] == ["GET", "GET", "GET", "POST"]
    assert {key for *_, key in server.seen} == {f"Token {KEY}"}


def test_a_refusal_names_request_and_words_but_never_the_key(server):
    client = LabelStudioClient(server.url, KEY)
    server.script += [(401, "x" * 5000)]
    with pytest.raises(LabelStudioError, match="SEGVIGEN_REVIEW_API_KEY") as caught:
        client.request("GET", "/api/projects/")
    assert KEY not in str(caught.value) and KEY not in repr(client)
    assert len(str(caught.value)) < 500
    assert not is_transient_error(caught.value)


def test_an_unresponsive_server_is_no_assets_fault():
    client = LabelStudioClient("http://127.0.0.1:9", KEY, timeout_s=2)
    with pytest.raises(LabelStudioUnavailable, match="does not answer") as caught:
        client.create_annotation(1, {})
    assert is_transient_error(caught.value)


def test_deleting_twice_is_fine(server):
    server.script += [(204, ""), (404, "gone")]
    client = LabelStudioClient(server.url, KEY)
    client.delete_task(5)
    client.delete_task(5)
    assert len(server.seen) == 2


def test_a_personal_token_is_exchanged_once(server):
    server.script += [(200, {"access": "abc"}), (200, {"release": "1"}), (200, {"release": "1"})]
    client = LabelStudioClient(server.url, PERSONAL)
    client.request("GET", VERSION)
    client.request("GET", VERSION)
    assert [key for *_, key in server.seen] == ["", "Bearer abc", "Bearer abc"]


def test_a_restarting_server_is_not_a_refused_token(server):
    client = LabelStudioClient(server.url, PERSONAL)
    server.script += [(502, "bad gateway"), (429, "slow"), (200, {"access": "abc"})]
    server.script += [(200, {"release": "1"})]
    assert client.request("GET", VERSION) == {"release": "1"}
    late = LabelStudioClient(server.url, PERSONAL)
    server.script += [(503, "starting")]
    with pytest.raises(
        LabelStudioUnavailable, match="/api/token/refresh/: status 503: starting"
    ) as caught:
        late.import_tasks(1, [{"data": {}}])
    assert is_transient_error(caught.value)
    server.script += [(401, "no such token")]
    with pytest.raises(
        LabelStudioError, match="no such token; personal access token refused"
    ) as caught:
        late.request("GET", VERSION)
    assert not is_transient_error(caught.value) and PERSONAL not in str(caught.value)


def test_lists_are_read_page_by_page_and_never_past_the_end(server):
    row = {"id": 1, "data": {"key": "a:0"}, "total_annotations": 1, "cancelled_annotations": 1}
    server.script += [
        (200, {"total": 3, "tasks": [row, row]}),
        (200, {"total": 3, "tasks": [{**row, "id": 2}]}),
    ]
    tasks = LabelStudioClient(server.url, KEY).find_tasks(1, ["a:0"])
    assert [task.task_id for task in tasks] == [1, 1, 2]
    assert tasks[0].num_annotations == 2 and tasks[0].key == "a:0"


class Listing:
    """A server's tasks as its list shows them: filtered, by time of change, page by page."""

    def __init__(self, seconds: list[float]) -> None:
        self.rows = [self.row(number, second) for number, second in enumerate(seconds)]
        self.asked: list[int] = []
        self.longest = 10**6

    @staticmethod
    def row(number, second):
        at = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=second)
        return {"id": number, "data": {"key": f"{number}:0"}, "updated_at": wire_time(at)}

    def page(self, path):
        query = {name: text for name, (text,) in parse_qs(urlsplit(path).query).items()}
        (rule,) = json.loads(query["query"])["filters"]["items"]
        wanted = datetime.strptime(rule["value"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        compare = {"greater": operator.gt, "greater_or_equal": operator.ge}[rule["operator"]]
        changed = [(datetime.fromisoformat(row["updated_at"]), row) for row in self.rows]
        found = [pair for pair in changed if compare(pair[0], wanted)]
        rows = [row for _, row in sorted(found, key=operator.itemgetter(0))]
        size = min(int(query["page_size"]), self.longest)
        begin = size * (int(query["page"]) - 1)
        self.asked.append(size)
        return {"total": len(rows), "tasks": rows[begin : begin + size]}


def wire_time(moment):
    """As Django writes it: without a fraction where it is 0."""
    return moment.isoformat().replace("+00:00", "Z")


def test_an_edit_between_pages_hides_no_other_task(server):
    listing = Listing([float(number) for number in range(250)])

    def then_edited(path):
        shown = listing.page(path)
        if len(listing.asked) == 1:
            listing.rows[3] = listing.row(3, 900.5)
        return 200, shown

    server.script += [then_edited] * 9
    found = list(
        LabelStudioClient(server.url, KEY).list_tasks_updated_since(
            1, "2026-11-22T00:00:00.000000Z"
        )
    )
    assert {task.task_id for task in found} == set(range(250))
    assert [task.updated_at for task in found if task.task_id == 3] == [
        "2026-11-23T00:00:03Z",
        "2026-11-23T00:15:00.500000Z",
    ]
    assert len(found) == 251, "nothing else comes twice"


def test_more_tasks_of_one_moment_than_a_page_holds(server):
    listing = Listing([*[1.0] * 230, 2.0])
    server.script += [lambda path: (200, listing.page(path))] * 20
    client = LabelStudioClient(server.url, KEY)
    found = client.list_tasks_updated_since(1, "2026-11-23T00:00:00.000000Z")
    assert sorted(task.task_id for task in found) == list(range(231))
    assert listing.asked == [100, 100, 200, 400]
    listing.longest = 150
    with pytest.raises(LabelStudioError, match="raise Label Studio's TASK_API_PAGE_SIZE_MAX"):
        list(client.list_tasks_updated_since(1, "2026-11-23T00:00:00.000000Z"))


def test_an_unknown_user_gets_a_name_without_a_second_request(server):
    server.script += [(200, [{"id": 1, "email": "ann@local.test"}])]
    client = LabelStudioClient(server.url, KEY)
    assert client.get_user_name(1) == "ann@local.test"
    server.script += [(200, [])]
    assert client.get_user_name(7) == client.get_user_name(7) == "user 7"
    assert client.get_user_name(None) == "unknown"


@pytest.mark.parametrize(
    ("review", "store", "words"),
    [
        ({}, {"root_url": "s3://a"}, "SEGVIGEN_REVIEW_API_KEY"),
        ({"api_key": SecretStr(KEY)}, {"root_url": "file:///tmp/x"}, "cannot read file://"),
    ],
)
def test_a_session_that_cannot_work_reports_what_is_missing(review, store, words, monkeypatch):
    monkeypatch.delenv("SEGVIGEN_REVIEW_API_KEY", raising=False)
    with pytest.raises(LabelStudioError, match=words):
        open_project(ReviewSettings(**review), StoreSettings(**store))


LOGIN_PAGE = "<!doctype html><html><title>Log in</title></html>"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (LOGIN_PAGE, "that are no JSON"),
        ('{"tasks": [{"id": 1, "da', "that are no JSON"),
        ("[" * 200_000, "nested too deep"),
        ([1, 2], "sent no page of tasks"),
        ({"tasks": {}, "total": 1}, "sent no page of tasks"),
        ({"tasks": [], "total": "1"}, "sent no page of tasks"),
        ({"tasks": []}, "sent no page of tasks"),
        (None, "sent no page of tasks"),
    ],
)
def test_what_is_no_page_is_an_outage_and_is_asked_for_again(server, answer, words):
    body = answer if isinstance(answer, str) else json.dumps(answer)
    server.script += [(200, body)] * 20
    client = LabelStudioClient(server.url, KEY)
    with pytest.raises(LabelStudioUnavailable, match=words):
        list(client.list_tasks_updated_since(1, "2026-11-23T00:00:00Z"))
    assert len(server.seen) > 1


def test_one_task_that_the_server_cannot_write_out_spoils_no_other(server):
    stamp = "2026-11-23T10:00:0{}.000000Z"
    rows = {number: {"id": number, "updated_at": stamp.format(number)} for number in (1, 2, 3)}

    def respond(path: str) -> tuple[int, Any]:
        fields = parse_qs(urlsplit(path).query)
        item = json.loads(fields["query"][0])["filters"]["items"][0]
        if fields["fields"] == ["task_only"]:
            return 200, {"tasks": list(rows.values()), "total": 3}
        if item["filter"] == "filter:tasks:id" and item["value"] != 2:
            return 200, {"tasks": [{**rows[item["value"]], "data": {"key": "k"}}], "total": 1}
        return (
            (500, "surrogates not allowed") if item["filter"] == "filter:tasks:id" else (200, "<")
        )

    server.script += [respond] * 40
    client = LabelStudioClient(server.url, KEY)
    found = list(client.list_tasks_updated_since(1, "2026-11-23T00:00:00Z"))
    assert [(task.task_id, task.key) for task in found] == [(1, "k"), (2, ""), (3, "k")]
    assert "cannot be fetched" in found[1].problem and found[1].raw is None
    assert [task.updated_at for task in found] == [stamp.format(n) for n in (1, 2, 3)]


def test_a_server_that_writes_out_no_task_is_at_fault_itself(server):
    rows = [{"id": number, "updated_at": "2026-11-23T10:00:00Z"} for number in (1, 2)]

    def respond(path: str) -> tuple[int, Any]:
        is_list = "task_only" in path
        return (200, {"tasks": rows, "total": 2}) if is_list else (502, "bad gateway")

    server.script += [respond] * 40
    with pytest.raises(LabelStudioUnavailable, match="502"):
        list(LabelStudioClient(server.url, KEY).list_tasks_updated_since(1, "2026-11-23T00:00:00Z"))


@pytest.mark.parametrize("users", [{"id": 1}, [1], [{"id": "x", "email": 1}], LOGIN_PAGE])
def test_what_is_no_list_of_users_is_an_outage(server, users):
    server.script += [(200, users)] * 8
    with pytest.raises(LabelStudioUnavailable):
        LabelStudioClient(server.url, KEY).get_user_name(1)
