"""Waiting for services that are down, and what is no outage."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from segvigen_model.errors import NotReady
from tasks import outages
from tasks.outages import ServiceOutage, wait_for
from tasks.storage.errors import BucketUnusable
from tasks.workspace import open_workspace


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outages, "LONGEST_PAUSE_S", 0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_outage_that_ends_in_time_is_waited_for() -> None:
    answers = iter([ConnectionError("refused"), TimeoutError("late"), None])

    def ask() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "here"

    assert wait_for("x", ask, 60.0) == "here"


def test_one_that_does_not_end_is_reported_with_its_remedy() -> None:
    calls = []

    def ask() -> None:
        calls.append(1)
        raise ConnectionError("connection refused\nand a second line")

    with pytest.raises(
        ServiceOutage, match=r"the store did not answer for 0\.1 s .*refused; "
    ) as e:
        wait_for("the store", ask, 0.1)
    assert len(calls) > 2 and "SEGVIGEN_WORK_OUTAGE_WAIT_S" in str(e.value)
    assert isinstance(e.value, NotReady) and "second line" not in str(e.value)


def test_a_bug_and_a_wrong_setting_are_raised_at_once(tmp_path: Path) -> None:
    calls = []

    def ask() -> None:
        calls.append(1)
        raise KeyError("nonsense")

    with pytest.raises(KeyError):
        wait_for("x", ask, 60.0)
    (tmp_path / "folder.db").mkdir()
    catalogue = {"url": f"sqlite:///{tmp_path}/folder.db"}
    with pytest.raises(Exception, match="unable to open database file"):
        open_workspace(overrides={"catalogue": catalogue, "work": {"outage_wait_s": 60}})
    assert len(calls) == 1


@pytest.fixture
def s3_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGVIGEN_STORE_S3_ACCESS_KEY", "a")
    monkeypatch.setenv("SEGVIGEN_STORE_S3_SECRET_KEY", "b")


@pytest.mark.usefixtures("s3_keys")
def test_a_flow_waits_for_the_store_and_then_says_which_service_is_down(tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    overrides: dict[str, Any] = {
        "catalogue": {"url": f"sqlite:///{tmp_path}/c.db"},
        "store": {"root_url": "s3://somewhere/x", "s3_endpoint_url": endpoint},
        "work": {"outage_wait_s": 0.2},
    }
    with pytest.raises(ServiceOutage, match="the store did not answer"):
        open_workspace(overrides=overrides)


@pytest.mark.usefixtures("s3_keys")
def test_a_missing_bucket_is_no_outage(tmp_path: Path) -> None:
    class Nothing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        store = {"root_url": "s3://nowhere/x", "s3_endpoint_url": endpoint}
        catalogue = {"url": f"sqlite:///{tmp_path}/c.db"}
        with pytest.raises(BucketUnusable, match="no bucket 'nowhere'"):
            open_workspace(overrides={"store": store, "catalogue": catalogue})
        server.shutdown()
