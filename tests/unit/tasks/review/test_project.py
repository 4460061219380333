"""The set-up of a project through the SDK, against a small server; the real one is in tests/e2e."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from label_studio_sdk.core import http_client
from pydantic import SecretStr

from tasks.errors import is_transient_error
from tasks.review import project as project_module
from tasks.review.client import LabelStudioError, LabelStudioUnavailable
from tasks.review.project import open_project
from tasks.review.sdk import SetupApi
from tasks.settings import ReviewSettings, StoreSettings

KEY = "0123456789abcdef"
LISTS = {
    "/api/projects/": "projects",
    "/api/storages/s3/": "storages",
    "/api/webhooks/": "webhooks",
    "/api/ml/": "backends",
}
STORE = {"root_url": "s3://bucket/home", "s3_access_key": "k", "s3_secret_key": SecretStr("s")}
REVIEW = {
    "api_key": SecretStr(KEY),
    "webhook_url": "http://hook.test/webhook",
    "webhook_token": SecretStr("token"),
    "live_url": "http://live.test/",
    "live_password": SecretStr("live-secret"),
}


class LabelStudioDouble:
    """Keeps what is made and changed; as much of the server as the set-up uses."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in LISTS.values()}
        self.writes: list[str] = []
        self.refused: set[str] = set()
        self.url = ""

    def respond(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        place = urlsplit(path).path
        name = next((LISTS[prefix] for prefix in LISTS if place.startswith(prefix)), "")
        rows = self.rows[name]
        if method == "GET":
            page = {"count": len(rows), "next": None, "previous": None, "results": rows}
            past = "page=2" in path
            return (404, {}) if past else (200, page if name == "projects" else rows)
        self.writes.append(f"{method} {name}")
        if name in self.refused:
            return 400, {"detail": f"cannot reach it with {body.get('basic_auth_pass')}"}
        if method == "POST":
            connected = {"state": "CO"} if name == "backends" else {}
            rows.append({"id": len(self.writes), **body, **connected})
            return 201, rows[-1]
        number = int(place.strip("/").rpartition("/")[2])
        found = next(row for row in rows if row["id"] == number)
        if method == "DELETE":
            rows.remove(found)
            return 204, None
        found.update(body)
        return 200, found


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabelStudioDouble]:
    made = LabelStudioDouble()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or "{}")
            status, reply = made.respond(self.command, self.path, body)
            data = b"" if reply is None else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = respond

        def log_message(self, *_args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{http.server_port}"
    monkeypatch.setattr(project_module.Store, "put", lambda *_args, **_fields: None)
    yield made
    http.shutdown()
    http.server_close()
    thread.join(5)


def opened(double: LabelStudioDouble, **review: Any) -> Any:
    settings = ReviewSettings(url=double.url, **{**REVIEW, **review})
    return open_project(settings, StoreSettings(**STORE))


def test_everything_is_made_once_and_then_left_alone(double: LabelStudioDouble) -> None:
    first = opened(double)
    made = ["POST projects", "POST storages", "POST webhooks", "POST backends"]
    assert double.writes == made
    (storage,) = double.rows["storages"]
    assert (storage["bucket"], storage["prefix"]) == ("bucket", "home/review")
    assert (storage["presign"], storage["project"]) == (False, first.project_id)
    assert opened(double).project_id == first.project_id and double.writes == made


def test_what_was_changed_is_put_back(double: LabelStudioDouble) -> None:
    opened(double)
    double.writes.clear()
    double.rows["projects"][0]["label_config"] = "<View/>"
    double.rows["storages"][0]["presign"] = True
    double.rows["backends"][0]["state"] = "ER"
    opened(double)
    assert double.writes == ["PATCH projects", "PATCH storages", "PATCH backends"]
    assert double.rows["storages"][0]["presign"] is False


def test_a_webhook_follows_a_new_token(double: LabelStudioDouble) -> None:
    opened(double)
    other = {"id": 99, "url": "http://else.test", "headers": {}}
    double.rows["webhooks"].append(other)
    opened(double, webhook_token=SecretStr("new"))
    mine = [row for row in double.rows["webhooks"] if row != other]
    assert [row["headers"] for row in mine] == [{"X-Segvigen-Token": "new"}]
    assert other in double.rows["webhooks"], "somebody else's stays"


def test_of_two_projects_made_at_once_the_older_counts(double: LabelStudioDouble) -> None:
    title, config = ReviewSettings().project_title, project_module.LABEL_CONFIG
    for number, name in ((7, title), (5, title), (3, f"{title} of others")):
        row = {"id": number, "title": name, "label_config": config}
        double.rows["projects"].append(row)
    assert opened(double).project_id == 5


def test_a_service_that_cannot_be_reached_costs_only_previews(
    double: LabelStudioDouble, caplog: pytest.LogCaptureFixture
) -> None:
    double.refused.add("backends")
    assert opened(double).project_id
    assert "ready=false" in caplog.text and "live-secret" not in caplog.text


def test_reads_are_repeated_and_writes_never(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "INITIAL_RETRY_DELAY_SECONDS", 0.0)
    api = SetupApi(server.url, KEY)
    server.script += [(500, "oops"), (200, [])]
    assert api.read(api.sdk.ml.list, project=1) == []
    server.script += [(502, "bad gateway")]
    with pytest.raises(LabelStudioUnavailable, match="status 502: bad gateway") as caught:
        api.write(api.sdk.ml.create, project=1, url="http://x")
    assert is_transient_error(caught.value)
    assert [method for method, *_ in server.seen] == ["GET", "GET", "POST"]
    assert {key for *_, key in server.seen} == {f"Token {KEY}"}


def test_a_refusal_has_its_words_but_never_the_key(server: Any) -> None:
    api = SetupApi(server.url, KEY)
    server.script += [(401, "x" * 5000)]
    with pytest.raises(LabelStudioError, match="SEGVIGEN_REVIEW_API_KEY") as caught:
        api.read(api.sdk.ml.list, project=1)
    assert KEY not in str(caught.value) and len(str(caught.value)) < 500
    assert not is_transient_error(caught.value)


def test_an_unresponsive_server_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "INITIAL_RETRY_DELAY_SECONDS", 0.0)
    api = SetupApi("http://127.0.0.1:9", KEY)
    with pytest.raises(LabelStudioUnavailable, match="does not answer"):
        api.read(api.sdk.ml.list, project=1)
