"""One asset in review, in a store on disk, with a tiny model: what the live service works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from deployments.refine_service.app import create_app
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.mesh.io import mesh_to_glb
from segvigen_model.serialization import proposal_to_bytes
from segvigen_model.types import Proposal
from tasks.catalogue import AssetRow, AssetState, Catalogue, ProposalRow, ReviewTaskRow
from tasks.ingest.ingest import ingest_object, scan_raw
from tasks.labelling.loading import load_asset_mesh
from tasks.live.session import LiveSession
from tasks.rendering.contact_sheet import render_sheet
from tasks.rendering.pixel_buffers import Buffers, buffers_from_bytes, buffers_to_bytes
from tasks.settings import Settings, load_settings
from tasks.storage import keys
from tasks.workspace import Workspace

LOGIN = ("label-studio", "live-secret")
TOKEN = "0123456789abcdef"


@dataclass
class LiveEnvironment:
    """An asset in review, without Label Studio."""

    folder: Path
    settings: Settings
    asset: AssetRow
    buffers: Buffers
    shown: np.ndarray
    user: str = ""

    @property
    def key(self) -> str:
        """Of the task."""
        return keys.make_review_key(self.asset.asset_id, 0)

    def open_catalogue(self) -> Catalogue:
        """Opened anew."""
        return Catalogue(self.settings.catalogue.url.get_secret_value())

    def make_keypoint(
        self, label: str, part: int, name: str = "c1", nth: int = 0, **more: Any
    ) -> dict:
        """A keypoint on a pixel that shows a part."""
        rows, columns = np.nonzero(self.buffers.part == part)
        pick = (len(rows) // 2 + 37 * nth) % len(rows)
        width, height = self.buffers.size
        x, y = (columns[pick] + 0.5) / width * 100, (rows[pick] + 0.5) / height * 100
        value = {"x": float(x), "y": float(y), "width": 0.9, "keypointlabels": [label]}
        place = {"original_width": width, "original_height": height, "image_rotation": 0}
        ends = {"from_name": "click", "to_name": "sheet", "type": "keypointlabels"}
        return {"id": name, **ends, **place, "value": value, "is_positive": True, **more}

    def make_body(self, *points: dict, saved: tuple = (), key: str | None = None) -> dict:
        """An interactive request as Label Studio sends it, with what the draft has."""
        draft = {"user": self.user, "updated_at": "2026-01-01T00:00:00Z", "result": list(saved)}
        task = {"id": 1, "data": {"key": key or self.key}, "drafts": [draft]}
        return {"tasks": [task], "params": {"context": {"result": list(points)}}}


@pytest.fixture(autouse=True)
def _another_reviewer(request: pytest.FixtureRequest) -> None:
    """Every test is somebody else: clicks of other tests do not count."""
    if "live_env" in request.fixturenames:
        request.getfixturevalue("live_env").user = f"{uuid4().hex}@local.test"


@pytest.fixture(scope="session")
def live_env(tmp_path_factory: pytest.TempPathFactory) -> LiveEnvironment:
    return make_live_env(tmp_path_factory.mktemp("live"))


@pytest.fixture
def fresh_env(tmp_path: Path) -> LiveEnvironment:
    """For tests that move the asset."""
    return make_live_env(tmp_path)


def make_live_env(folder: Path) -> LiveEnvironment:
    """One asset, proposed by hand, drawn and in review."""
    settings = load_settings(
        overrides={
            "store": {"root_url": f"file://{folder}/store", "raw_url": f"file://{folder}/raw"},
            "catalogue": {"url": SecretStr(f"sqlite:///{folder}/catalogue.db")},
            "review": {"webhook_token": SecretStr(TOKEN), "live_password": SecretStr(LOGIN[1])},
            "live": {"max_waiting": 2, "timeout_s": 120.0, "is_open": True},
        }
    )
    workspace = Workspace.from_settings(settings)
    store, catalogue = workspace.store, workspace.catalogue
    made = make_asset("table", 1, textured=False)
    workspace.raw.put("table.glb", mesh_to_glb(made.mesh))
    (info,) = scan_raw(workspace)
    ingest_object(workspace, info)
    (asset,) = catalogue.list_assets()
    catalogue.move(asset.asset_id, AssetState.ENCODED)
    shown = np.unique(made.face_labels, return_inverse=True)[1].astype(np.int32)
    num_parts = int(shown.max()) + 1
    proposal = Proposal(shown, np.zeros(1, np.int32), np.ones(num_parts, np.float32), 0.5)
    key = keys.make_proposal_key(asset.asset_id, 0, "hand")
    blob = store.put(key, proposal_to_bytes(proposal))
    row = ProposalRow(asset.asset_id, 0, key, blob.sha256, num_parts, 0.5, "hand")
    catalogue.add_proposal(row)
    sheet = render_sheet(load_asset_mesh(store, asset), shown, width=512, meta={})
    store.put("review/buffers.npz", buffers_to_bytes(sheet.buffers))
    catalogue.move(asset.asset_id, AssetState.PROPOSED, round=0)
    task = ReviewTaskRow(asset.asset_id, 0, 1, 1, key, "review/s.png", "review/buffers.npz")
    catalogue.reviews.add_task(task)
    asset = catalogue.move(asset.asset_id, AssetState.IN_REVIEW)
    buffers = buffers_from_bytes(store.get("review/buffers.npz"))
    return LiveEnvironment(folder, settings, asset, buffers, shown)


@pytest.fixture
def open_fresh_session(fresh_env: LiveEnvironment) -> Callable[[], LiveSession]:
    """The same for `fresh_env`."""
    return lambda: make_opener(fresh_env)


@pytest.fixture(scope="session")
def open_live_session(live_env: LiveEnvironment) -> Callable[[], LiveSession]:
    """Loads the tiny model."""
    return lambda: make_opener(live_env)


def make_opener(environment: LiveEnvironment) -> LiveSession:
    """A world's desk with the tiny model."""
    from segvigen_model.model.bundle import build_model
    from segvigen_model.segmenter import Segmenter

    return LiveSession(
        Workspace.from_settings(environment.settings), Segmenter(build_model("tiny"))
    )


@pytest.fixture(scope="session")
def live_client(live_env: LiveEnvironment, open_live_session: Callable) -> Iterator[TestClient]:
    """The service, ready, as Label Studio logs in."""
    with TestClient(create_app(live_env.settings, open_live_session)) as client:
        client.auth = LOGIN
        wait_until_ready(client)
        yield client


def wait_until_ready(client: TestClient) -> None:
    """Ask until the model is there."""
    import time

    for _ in range(600):
        if client.get("/readyz").status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError(client.get("/readyz").text)
