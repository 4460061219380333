"""Real Label Studio and real S3 around assets whose proposal is made by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from infra.local import LabelStudioEndpoint, S3Endpoint
from segvigen_model.mesh_io import save_glb
from segvigen_model.procedural import make_asset
from segvigen_model.proposal_io import proposal_to_bytes
from segvigen_model.types import IntArray, Proposal
from tasks import keys
from tasks.assets import load_asset_mesh
from tasks.catalogue import AssetRow, AssetState, Catalogue, ProposalRow
from tasks.ingest import ingest_object, scan_raw
from tasks.review.desk import Desk, open_desk
from tasks.review.pull import Reply, pull_annotations
from tasks.review.push import push_assets
from tasks.settings import Settings, load_settings
from tasks.stage import StageResult
from tasks.store import Store

WORKER = "tester"


@dataclass
class DeskWorld:
    """A store in a bucket folder of its own, a fresh catalogue, a fresh project."""

    raw: Store
    store: Store
    catalogue: Catalogue
    settings: Settings
    desk: Desk
    truth: dict[str, IntArray] = field(default_factory=dict)

    def proposed(
        self, category: str, seed: int, change: Callable[[IntArray], IntArray] | None = None
    ) -> AssetRow:
        """An asset whose proposal is its true labels, changed by `change`."""
        made = make_asset(category, seed)
        self.raw.put(f"{category}-{seed}.glb", save_glb(made.mesh))
        known = {asset.asset_id for asset in self.catalogue.assets()}
        for info in scan_raw(self.raw, self.catalogue):
            ingest_object(
                info,
                raw=self.raw,
                store=self.store,
                catalogue=self.catalogue,
                settings=self.settings.ingest,
            )
        (asset,) = [a for a in self.catalogue.assets() if a.asset_id not in known]
        self.truth[asset.asset_id] = made.face_labels
        self.catalogue.move(asset.asset_id, AssetState.ENCODED)
        shown = made.face_labels if change is None else change(made.face_labels.copy())
        return self.propose(asset, shown, 0)

    def propose(self, asset: AssetRow, face_labels: IntArray, round_: int) -> AssetRow:
        """Record hand-made labels as a round's proposal."""
        labels = np.unique(face_labels, return_inverse=True)[1].astype(np.int32)
        num_parts = int(labels.max()) + 1
        proposal = Proposal(
            labels, np.zeros(1, np.int32), np.ones(num_parts, np.float32), 0.5, {"seed": 0}
        )
        key = keys.proposal(asset.asset_id, round_, "hand")
        blob = self.store.put(key, proposal_to_bytes(proposal))
        self.catalogue.add_proposal(
            ProposalRow(asset.asset_id, round_, key, blob.sha256, num_parts, 0.5, "hand")
        )
        return self.catalogue.move(asset.asset_id, AssetState.PROPOSED, round=round_)

    def push(self) -> list[StageResult]:
        """Claim what is proposed and push it."""
        claimed = self.catalogue.claim([AssetState.PROPOSED], 50, WORKER)
        results = push_assets(
            [asset.asset_id for asset in claimed],
            store=self.store,
            catalogue=self.catalogue,
            desk=self.desk,
            settings=self.settings.review,
            worker=WORKER,
        )
        self.catalogue.release([asset.asset_id for asset in claimed], WORKER)
        return results

    def pull(self) -> list[Reply]:
        """Ask the desk once."""
        return pull_annotations(
            store=self.store,
            catalogue=self.catalogue,
            desk=self.desk,
            settings=self.settings.review,
        )

    def tasks_of(self, asset: AssetRow) -> list[int]:
        """Ids of the desk's tasks for the asset's round."""
        key = keys.review_key(asset.asset_id, asset.round)
        found = self.desk.client.find_tasks(self.desk.project_id, [key])
        return [task.task_id for task in found]

    def state(self, asset: AssetRow) -> AssetState:
        """Where the asset stands now."""
        return self.catalogue.asset(asset.asset_id).state

    def num_faces(self, asset: AssetRow) -> int:
        """Faces of the stored mesh."""
        return load_asset_mesh(self.store, asset).num_faces


@pytest.fixture
def desk_world(
    s3_server: S3Endpoint,
    label_studio: LabelStudioEndpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[DeskWorld]:
    monkeypatch.chdir(tmp_path)
    for name, value in {**s3_server.environment(), **label_studio.environment()}.items():
        monkeypatch.setenv(name, value)
    folder = uuid4().hex  # a kept home holds the folders of earlier sessions
    monkeypatch.setenv("SEGVIGEN_STORE_ROOT_URL", f"s3://{s3_server.store_bucket}/{folder}")
    monkeypatch.setenv("SEGVIGEN_STORE_RAW_URL", f"s3://{s3_server.raw_bucket}/{folder}")
    title = f"test {folder[:8]}"
    pixels = 1536 if "SEGVIGEN_SCREENSHOTS" in os.environ else 768
    settings = load_settings(None, {"review": {"project_title": title, "sheet_pixels": pixels}})
    desk = open_desk(settings.review, settings.store)
    yield DeskWorld(
        raw=Store.from_settings(settings.store, raw=True),
        store=Store.from_settings(settings.store),
        catalogue=Catalogue(f"sqlite:///{tmp_path}/catalogue.db"),
        settings=settings,
        desk=desk,
    )
    desk.client.request("DELETE", f"/api/projects/{desk.project_id}/")
