"""kill -9 round a live click, Label Studio restarted, webhooks lost and doubled: always right.

Real Label Studio, real S3, the real service in a process of its own.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from infra.home import read_record
from infra.local import start_label_studio, start_refine, stop_service
from infra.processes import is_running
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.mesh.io import mesh_to_glb
from segvigen_model.serialization import proposal_to_bytes
from segvigen_model.types import Proposal
from tasks.catalogue import AssetRow, AssetState, Catalogue, ProposalRow
from tasks.ingest.ingest import ingest_object, scan_raw
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.review.project import ReviewProject, open_project
from tasks.review.pull import Reply, pull_annotations
from tasks.review.push import push_assets
from tasks.settings import Settings, load_settings
from tasks.storage import keys
from tasks.storage.store import Store
from tasks.workspace import Workspace

pytestmark = pytest.mark.slow
TOKEN = "live-test-token"
WORKER = "live-test"


@dataclass
class LiveStack:
    """A project whose live backend is a process that may be killed."""

    home: Path
    env: dict[str, str]
    workspace: Workspace
    project: ReviewProject

    @property
    def store(self) -> Store:
        return self.workspace.store

    @property
    def catalogue(self) -> Catalogue:
        return self.workspace.catalogue

    @property
    def settings(self) -> Settings:
        return self.workspace.settings

    def push_asset(self, category: str, seed: int) -> AssetRow:
        """An asset in review, with its true parts shown."""
        made = make_asset(category, seed, textured=False)
        self.workspace.raw.put(f"{category}-{seed}.glb", mesh_to_glb(made.mesh))
        known = {asset.asset_id for asset in self.catalogue.list_assets()}
        for info in scan_raw(self.workspace):
            ingest_object(self.workspace, info)
        (asset,) = [row for row in self.catalogue.list_assets() if row.asset_id not in known]
        self.catalogue.move(asset.asset_id, AssetState.ENCODED)
        labels = np.unique(made.face_labels, return_inverse=True)[1].astype(np.int32)
        num_parts = int(labels.max()) + 1
        proposal = Proposal(labels, np.zeros(1, np.int32), np.ones(num_parts, np.float32), 0.5)
        key = keys.make_proposal_key(asset.asset_id, 0, "hand")
        sha = self.store.put(key, proposal_to_bytes(proposal)).sha256
        row = ProposalRow(asset.asset_id, 0, key, sha, num_parts, 0.5, "hand")
        self.catalogue.add_proposal(row)
        self.catalogue.move(asset.asset_id, AssetState.PROPOSED, round=0)
        self.catalogue.claim([AssetState.PROPOSED], 9, WORKER)
        (result,) = push_assets(self.workspace, self.project, [asset.asset_id])
        assert result.is_done, result
        return self.catalogue.get_asset(asset.asset_id)

    def click(self, asset: AssetRow, label: str, part: int) -> dict:
        """A smart keypoint in the middle of what is seen of a part."""
        task = self.catalogue.reviews.get_task(asset.asset_id, 0)
        buffers = buffers_from_bytes(self.store.get(task.buffers_key))
        rows, columns = np.nonzero(buffers.part == part)
        width, height = buffers.size
        middle = len(rows) // 2
        x = (columns[middle] + 0.5) / width * 100
        y = (rows[middle] + 0.5) / height * 100
        return {
            "id": uuid4().hex[:10],
            "from_name": "click",
            "to_name": "sheet",
            "type": "keypointlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "origin": "manual",
            "is_positive": True,
            "value": {"x": float(x), "y": float(y), "width": 0.9, "keypointlabels": [label]},
        }

    def ask(self, asset: AssetRow, *clicks: dict) -> dict:
        """What the editor gets for smart clicks, by way of Label Studio."""
        (backend,) = self.project.client.request(
            "GET", "/api/ml/", params={"project": self.project.project_id}
        )
        body = {"task": self.task_id(asset), "context": {"result": list(clicks)}}
        path = f"/api/ml/{backend['id']}/interactive-annotating"
        return dict(self.project.client.request("POST", path, body=body))

    def task_id(self, asset: AssetRow) -> int:
        """Of the asset's only task."""
        key = keys.make_review_key(asset.asset_id, 0)
        (task,) = self.project.client.find_tasks(self.project.project_id, [key])
        return int(task.task_id)

    def submit(self, asset: AssetRow, *results: dict) -> None:
        """Send the answer "refine" with these results."""
        verdict = {
            "id": "verdict001",
            "from_name": "verdict",
            "to_name": "sheet",
            "type": "choices",
            "value": {"choices": ["refine"]},
        }
        response = {"result": [verdict, *results], "lead_time": 5.0}
        self.project.client.create_annotation(self.task_id(asset), response)

    def pull(self) -> list[Reply]:
        """Pull once."""
        return pull_annotations(self.workspace, self.project)

    def start(self) -> str:
        """Bring the service up and wait for its model."""
        url = start_refine(self.home, self.env)
        for _ in range(1200):
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return url
            time.sleep(0.1)
        raise AssertionError(httpx.get(f"{url}/readyz", trust_env=False).text)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        record = read_record(self.home, "refine")
        os.kill(record.pid, signal.SIGKILL)
        while is_running(record.process):
            time.sleep(0.02)


@pytest.fixture(scope="module")
def live(
    s3_server, label_studio, tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path
) -> Iterator[LiveStack]:
    folder = tmp_path_factory.mktemp("live-stack")
    name = uuid4().hex
    s3 = s3_server.make_environment()
    env = {
        **s3,
        **label_studio.make_environment(),
        "SEGVIGEN_STORE_ROOT_URL": f"s3://{s3_server.store_bucket}/{name}",
        "SEGVIGEN_STORE_RAW_URL": f"s3://{s3_server.raw_bucket}/{name}",
        "SEGVIGEN_CATALOGUE_URL": f"sqlite:///{folder}/catalogue.db",
        "SEGVIGEN_MODEL_CHECKPOINT": str(tiny_checkpoint),
        "SEGVIGEN_REVIEW_LIVE_PASSWORD": TOKEN,
        "SEGVIGEN_LIVE_IS_OPEN": "true",
        "SEGVIGEN_REVIEW_WEBHOOK_TOKEN": TOKEN,
        "SEGVIGEN_REVIEW_PROJECT_TITLE": f"live {name[:8]}",
        "SEGVIGEN_REVIEW_SHEET_PIXELS": "512",
    }
    url = start_refine(folder, env)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for variable, text in env.items():
            patch.setenv(variable, text)
        patch.setenv("SEGVIGEN_REVIEW_LIVE_URL", url)
        patch.setenv("SEGVIGEN_REVIEW_WEBHOOK_URL", f"{url}/webhook")
        settings = load_settings()
    project = open_project(settings.review, settings.store)
    workspace = replace(Workspace.from_settings(settings), worker=WORKER)
    stack = LiveStack(folder, env, workspace, project)
    stack.start()
    yield stack
    stop_service(folder, "refine")
    project.client.request("DELETE", f"/api/projects/{project.project_id}/")


def test_the_backend_is_registered_once_and_only_our_webhook_stays(live):
    open_project(live.settings.review, live.settings.store)
    requested = {"project": live.project.project_id}
    (backend,) = live.project.client.request("GET", "/api/ml/", params=requested)
    assert backend["is_interactive"] and backend["url"] == live.settings.review.live_url
    hooks = live.project.client.request("GET", "/api/webhooks/", params=requested)
    assert [list(hook["headers"]) for hook in hooks] == [["X-Segvigen-Token"]]
    wrong = live.settings.review.model_copy(update={"live_password": SecretStr("other")})
    open_project(
        wrong, live.settings.store
    )  # refused by the service; the project opens all the same
    open_project(live.settings.review, live.settings.store)
    assert len(live.project.client.request("GET", "/api/ml/", params=requested)) == 1


def test_opening_a_task_stores_no_prediction(live):
    asset = live.push_asset("stool", 1)
    task = live.project.client.request("GET", f"/api/tasks/{live.task_id(asset)}/")
    assert task["predictions"] == []
    assert task["total_predictions"] == 0


def test_killed_between_click_and_answer(live):
    asset = live.push_asset("chair", 1)
    click = live.click(asset, "part 0", 1)
    os.kill(read_record(live.home, "refine").pid, signal.SIGSTOP)  # the click waits for ever
    got: list[dict] = []
    requesting = threading.Thread(target=lambda: got.append(live.ask(asset, click)))
    requesting.start()
    time.sleep(1.5)
    live.kill()
    requesting.join(60)
    assert got and "errors" in got[0], got
    assert live.start() == live.settings.review.live_url, "not on its old port"
    response = live.ask(asset, click)
    assert response["data"]["result"][0]["from_name"] == "preview", response
    live.submit(asset, click)
    (reply,) = live.pull()
    assert (reply.state, reply.num_clicks) == (AssetState.REFINING, 1)


def test_killed_between_answer_and_submit_loses_only_the_webhook(live):
    asset = live.push_asset("lamp", 2)
    click = live.click(asset, "new part", 0)
    brush, echo = live.ask(asset, click)["data"]["result"]
    live.kill()
    before = live.catalogue.raw.get_cursor("webhook")
    live.submit(asset, brush, echo)  # the preview was accepted: the editor kept the echo
    assert live.catalogue.raw.get_cursor("webhook") == before, "nobody was there to hear"
    (reply,) = live.pull()
    assert (reply.state, reply.num_clicks) == (AssetState.REFINING, 1), "a preview is no geometry"
    (stored,) = live.catalogue.reviews.list_clicks(asset.asset_id, 0)
    (width, height) = (click["original_width"], click["original_height"])
    assert abs(stored.pixel_x - click["value"]["x"] / 100 * width) < 1
    assert abs(stored.pixel_y - click["value"]["y"] / 100 * height) < 1
    assert stored.kind == "new_part" and stored.is_positive
    live.start()


def test_label_studio_restarted(live, stack_home):
    asset = live.push_asset("table", 3)
    click = live.click(asset, "part 1", 0)
    first = live.ask(asset, click)
    assert stop_service(stack_home, "label-studio")
    assert start_label_studio(stack_home).url == live.settings.review.url
    assert live.ask(asset, click)["data"]["result"] == first["data"]["result"]
    live.submit(asset, click)
    (reply,) = live.pull()
    assert (reply.state, reply.num_clicks) == (AssetState.REFINING, 1)


def test_the_same_webhook_twice_is_one_answer(live):
    asset = live.push_asset("stool", 4)
    click = live.click(asset, "not an object", 0)
    live.submit(asset, click)
    url = live.settings.review.webhook_url
    stamps = []
    for _ in range(2):
        body = {"action": "ANNOTATION_CREATED"}
        header = {"X-Segvigen-Token": TOKEN}
        assert httpx.post(url, json=body, headers=header, trust_env=False).status_code == 200
        stamps.append(live.catalogue.raw.get_cursor("webhook"))
    assert stamps[0] < stamps[1]
    (reply,) = live.pull()
    assert reply.num_clicks == 1
    assert live.pull() == []
    assert len(live.catalogue.reviews.list_clicks(asset.asset_id, 0)) == 1
