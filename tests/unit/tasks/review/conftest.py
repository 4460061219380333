"""A double of Label Studio, and one asset that is pushed to it and pulled from it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from segvigen_model.serialization import proposal_to_bytes
from segvigen_model.types import Proposal
from tasks.catalogue import AssetState, ProposalRow
from tasks.labelling.loading import load_proposal
from tasks.review import client as client_module
from tasks.review import push as push_module
from tasks.review.client import LabelStudioTask
from tasks.review.pull import pull_annotations
from tasks.review.push import push_assets
from tasks.storage import keys

STAMP = "2026-11-23T10:00:{:02d}.000000Z"


def make_result(verdict: str, lines: list[str]) -> list[dict[str, Any]]:
    """An annotation's result: a verdict and command lines."""
    commands = {"id": "v1", "from_name": "verbs", "type": "textarea", "value": {"text": lines}}
    return [{"from_name": "verdict", "value": {"choices": [verdict]}}, commands]


@dataclass
class FakeClient:
    """As much of Label Studio as push and pull use; ids are never reused."""

    url: str = "http://desk.test"
    held: list[LabelStudioTask] = field(default_factory=list)
    clock: int = 0

    def find_tasks(self, _project: int, wanted: list[str]) -> list[LabelStudioTask]:
        return [task for task in self.held if task.key in wanted]

    def find_annotated_tasks(self, project: int, wanted: list[str]) -> list[LabelStudioTask]:
        return [task for task in self.find_tasks(project, wanted) if task.annotations]

    def import_tasks(self, _project: int, tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            self.clock += 1
            data = task["data"]
            self.held.append(LabelStudioTask(self.clock, data["key"], 0, self.now(), data))

    def delete_task(self, task_id: int) -> None:
        self.held = [task for task in self.held if task.task_id != task_id]

    def delete_annotation(self, annotation_id: int) -> None:
        for number, task in enumerate(self.held):
            kept = tuple(a for a in task.annotations if a["id"] != annotation_id)
            self.held[number] = replace(task, annotations=kept, num_annotations=len(kept))

    def list_tasks_updated_since(self, _project: int, since: str) -> list[LabelStudioTask]:
        return [task for task in self.held if task.updated_at > since]

    def fetch_tasks(self, _project: int, wanted: list[int]) -> list[LabelStudioTask]:
        return [task for task in self.held if task.task_id in wanted]

    def get_user_name(self, _user: object) -> str:
        return "ann@local.test"

    def now(self) -> str:
        return STAMP.format(self.clock)

    def update_annotation(self, task_id: int, verdict: str, lines: list[str]) -> None:
        """Update the task's one answer."""
        self.clock += 1
        for number, task in enumerate(self.held):
            if task.task_id == task_id:
                (old,) = task.annotations
                new = {**old, "updated_at": self.now(), "result": make_result(verdict, lines)}
                self.held[number] = replace(task, updated_at=self.now(), annotations=(new,))

    def submit_annotation(self, task_id: int, verdict: str, lines: list[str], *more: dict) -> None:
        """Submit: a verdict, command lines, other results."""
        self.clock += 1
        made = {"id": self.clock, "created_at": self.now(), "updated_at": self.now()}
        made["was_cancelled"] = verdict == "skip"
        annotation = {
            **made,
            "completed_by": 1,
            "lead_time": 5.0,
            "result": [*make_result(verdict, lines), *more],
        }
        for number, task in enumerate(self.held):
            if task.task_id == task_id:
                self.held[number] = replace(
                    task,
                    num_annotations=task.num_annotations + 1,
                    updated_at=self.now(),
                    annotations=(*task.annotations, annotation),
                )


@dataclass
class FakeProject:
    client: FakeClient = field(default_factory=FakeClient)
    project_id: int = 1


@dataclass
class ReviewLoop:
    """Push and pull of one asset whose first proposal is known."""

    pipeline: Any
    project: FakeProject
    asset_id: str

    def push(self, **review: Any) -> LabelStudioTask:
        pipeline = self.pipeline
        rules = {"sheet_pixels": 384, **review}
        pipeline.catalogue.claim([AssetState.PROPOSED], 9, "w")
        workspace = pipeline.with_settings("w", review=rules)
        (result,) = push_assets(workspace, self.project, [self.asset_id])
        assert result.state is AssetState.IN_REVIEW, result.note
        return self.project.client.held[-1]

    def pull(self, **review: Any) -> list[Any]:
        return pull_annotations(self.pipeline.with_settings(review=review), self.project)

    def set_proposal(self, labels: np.ndarray, round_: int = 0) -> str:
        """Make this the proposal of a round; its hash."""
        pipeline, num_parts = self.pipeline, int(labels.max()) + 1
        old = pipeline.catalogue.get_proposal(self.asset_id, 0)
        voxels = load_proposal(pipeline.store, old).voxel_labels
        made = Proposal(
            labels.astype(np.int32),
            voxels % num_parts,
            np.full(num_parts, 0.5, np.float32),
            0.5,
            checkpoint=old.checkpoint,
        )
        key = keys.make_proposal_key(self.asset_id, round_, f"test{num_parts}")
        blob = pipeline.store.put(key, proposal_to_bytes(made))
        row = ProposalRow(self.asset_id, round_, key, blob.sha256, num_parts, 0.5, old.checkpoint)
        pipeline.catalogue.add_proposal(row)
        return str(blob.sha256)


@pytest.fixture
def fake_project() -> FakeProject:
    return FakeProject()


@pytest.fixture
def loop(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> ReviewLoop:
    # The page needs the bundle that set-up builds; what it holds is test_viewer's business.
    monkeypatch.setattr(push_module, "render_viewer", lambda *a, **k: b"<html></html>")
    asset = pipeline.add_proposed(num_boxes=3)
    made = ReviewLoop(pipeline, FakeProject(), asset.asset_id)
    made.set_proposal(np.repeat(np.arange(6), 6))
    return made


@pytest.fixture
def server(monkeypatch):
    """Answers what `script` says (or makes of a path), in turn; `seen` holds the requests."""
    monkeypatch.setattr(client_module, "RETRY_PAUSE_S", 0.0)
    script: list = []
    seen: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            seen.append((self.command, self.path, self.headers.get("Authorization", "")))
            step = script.pop(0)
            status, body = step(self.path) if callable(step) else step
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
