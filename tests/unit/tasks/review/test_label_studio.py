"""The client against a small server that behaves badly; the real one is used in tests/e2e."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from tasks.review import label_studio
from tasks.review.desk import open_desk
from tasks.review.label_studio import DeskError, DeskUnavailable, LabelStudioClient
from tasks.settings import ReviewSettings, StoreSettings
from tasks.stage import is_surroundings

KEY = "0123456789abcdef"
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2ln"


@pytest.fixture
def server(monkeypatch):
    """Answers what `script` says, one after the other; `seen` holds the requests."""
    monkeypatch.setattr(label_studio, "RETRY_PAUSE_S", 0.0)
    script: list[tuple[int, object]] = []
    seen: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            seen.append((self.command, self.path, self.headers.get("Authorization", "")))
            status, body = script.pop(0)
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    http.script, http.seen = script, seen
    http.url = f"http://127.0.0.1:{http.server_port}"
    yield http
    http.shutdown()
    http.server_close()
    thread.join(5)


def test_reads_are_tried_again_and_writes_never(server):
    client = LabelStudioClient(server.url, KEY)
    server.script += [(500, "oops"), (429, "slow"), (200, {"release": "1.23.2"})]
    assert client.version() == "1.23.2"
    server.script += [(502, "bad gateway")]
    with pytest.raises(DeskUnavailable, match=r"POST .*status 502: bad gateway"):
        client.import_tasks(1, [{"data": {}}])
    assert [method for method, *_ in server.seen] == ["GET", "GET", "GET", "POST"]
    assert {key for *_, key in server.seen} == {f"Token {KEY}"}


def test_a_refusal_names_request_and_words_but_never_the_key(server):
    client = LabelStudioClient(server.url, KEY)
    server.script += [(401, "x" * 5000)]
    with pytest.raises(DeskError, match="SEGVIGEN_REVIEW_API_KEY") as caught:
        client.request("GET", "/api/projects/")
    assert KEY not in str(caught.value) and KEY not in repr(client)
    assert len(str(caught.value)) < 500
    assert not is_surroundings(caught.value)


def test_a_silent_server_is_no_assets_fault():
    client = LabelStudioClient("http://127.0.0.1:9", KEY, timeout_s=2)
    with pytest.raises(DeskUnavailable, match="does not answer") as caught:
        client.create_annotation(1, {})
    assert is_surroundings(caught.value)


def test_deleting_twice_is_fine(server):
    server.script += [(204, ""), (404, "gone")]
    client = LabelStudioClient(server.url, KEY)
    client.delete_task(5)
    client.delete_task(5)
    assert len(server.seen) == 2


def test_a_personal_token_is_exchanged_once(server):
    server.script += [(200, {"access": "abc"}), (200, {"release": "1"}), (200, {"release": "1"})]
    client = LabelStudioClient(server.url, PERSONAL)
    client.version()
    client.version()
    assert [key for *_, key in server.seen] == ["", "Bearer abc", "Bearer abc"]


def test_a_restarting_server_is_not_a_refused_token(server):
    client = LabelStudioClient(server.url, PERSONAL)
    server.script += [(502, "bad gateway"), (429, "slow"), (200, {"access": "abc"})]
    server.script += [(200, {"release": "1"})]
    assert client.version() == "1"
    late = LabelStudioClient(server.url, PERSONAL)
    server.script += [(503, "starting")]
    with pytest.raises(
        DeskUnavailable, match="/api/token/refresh/: status 503: starting"
    ) as caught:
        late.import_tasks(1, [{"data": {}}])
    assert is_surroundings(caught.value)
    server.script += [(401, "no such token")]
    with pytest.raises(DeskError, match="no such token; personal access token refused") as caught:
        late.version()
    assert not is_surroundings(caught.value) and PERSONAL not in str(caught.value)


def test_lists_are_read_page_by_page_and_never_past_the_end(server):
    row = {"id": 1, "data": {"key": "a:0"}, "total_annotations": 1, "cancelled_annotations": 1}
    server.script += [
        (200, {"total": 3, "tasks": [row, row]}),
        (200, {"total": 3, "tasks": [{**row, "id": 2}]}),
    ]
    tasks = LabelStudioClient(server.url, KEY).find_tasks(1, ["a:0"])
    assert [task.task_id for task in tasks] == [1, 1, 2]
    assert tasks[0].num_answers == 2 and tasks[0].key == "a:0"


def test_an_unknown_user_gets_a_name_without_asking_again(server):
    server.script += [(200, [{"id": 1, "email": "ann@local.test"}])]
    client = LabelStudioClient(server.url, KEY)
    assert client.user_name(1) == "ann@local.test"
    server.script += [(200, [])]
    assert client.user_name(7) == client.user_name(7) == "user 7"
    assert client.user_name(None) == "unknown"


@pytest.mark.parametrize(
    ("review", "store", "words"),
    [
        ({}, {"root_url": "s3://a"}, "SEGVIGEN_REVIEW_API_KEY"),
        ({"api_key": SecretStr(KEY)}, {"root_url": "file:///tmp/x"}, "cannot read file://"),
    ],
)
def test_a_desk_that_cannot_work_says_what_is_missing(review, store, words, monkeypatch):
    monkeypatch.delenv("SEGVIGEN_REVIEW_API_KEY", raising=False)
    with pytest.raises(DeskError, match=words):
        open_desk(ReviewSettings(**review), StoreSettings(**store))
