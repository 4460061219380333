"""Flow runs of the real Prefect worker: one after another, through Prefect's REST interface."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from infra.services import make_login_header
from tests.chaos.forks import HarnessError
from tests.chaos.inputs import PREFIX
from tests.chaos.stack import REPOSITORY

DEPLOYMENT = ("label_dataset", "gpu")
POLL_S = 2.0
LOST_S = 45.0  # a run that has not begun or ended after so long lost its process
TIMEOUT_S = 10.0
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def apply_deployments(env: Mapping[str, str]) -> None:
    """Create pools and deployments on the server; nothing to do the second time."""
    done = subprocess.run(
        [sys.executable, "-m", "deployments.apply"],
        env={**os.environ, **env},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise HarnessError(f"deployments were not applied: {done.stderr[-1500:]}")


@dataclass
class WorkerRuns:
    """Keeps one run of `label_dataset` going on the worker.

    Attributes:
        api_url, login: of the Prefect server.
        review_wait_s: of each run.
        has_run: whether the worker has a process for a run now.
        states: final states of the runs so far.
    """

    api_url: str
    login: str
    review_wait_s: float
    has_run: Callable[[], bool]
    states: list[str] = field(default_factory=list)
    num_outages: int = 0
    _run: str | None = None
    _idle_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._work, name="worker-runs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Start no more runs."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)

    def _work(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                self._step()
            except (httpx.HTTPError, KeyError, IndexError):
                self.num_outages += 1

    def _step(self) -> None:
        if self._run is None:
            name = {"deployments": {"name": {"any_": [DEPLOYMENT[1]]}}}
            flow = {"flows": {"name": {"any_": [DEPLOYMENT[0]]}}}
            deployment = self._call("POST", "deployments/filter", {**name, **flow})[0]["id"]
            parameters = {"prefix": PREFIX, "review_wait_s": self.review_wait_s}
            body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
            self._run = self._call("POST", f"deployments/{deployment}/create_flow_run", body)["id"]
            self._idle_s = 0.0
            return
        state = self._call("GET", f"flow_runs/{self._run}", None)["state"]
        if state["type"] in FINAL:
            self.states.append(state["type"])
            self._run = None
            return
        self._idle_s = 0.0 if self.has_run() else self._idle_s + POLL_S
        if self._idle_s > LOST_S:  # as the automation for dead runs does after its three minutes
            crashed = {"state": {"type": "CRASHED", "name": "Crashed"}, "force": True}
            self._call("POST", f"flow_runs/{self._run}/set_state", crashed)

    def _call(self, method: str, path: str, body: Any) -> Any:
        url = f"{self.api_url}/{path}"
        headers = make_login_header(self.login)
        with httpx.Client(trust_env=False, timeout=TIMEOUT_S, headers=headers) as client:
            reply = client.request(method, url, json=body)
            reply.raise_for_status()
            return reply.json()
