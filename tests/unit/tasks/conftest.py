"""Local stores, a SQLite catalogue, a tiny segmenter, small meshes, a catalogue with answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from segvigen_model.model.bundle import build_model
from segvigen_model.segmenter import Segmenter
from segvigen_model.serialization import proposal_to_bytes
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import AssetMesh, IntArray, Material, Proposal
from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    Catalogue,
    ClickRow,
    EditCommandRow,
    ProposalRow,
    ReviewTaskRow,
)
from tasks.ingest.sandbox import Parser
from tasks.labelling.label_sets import accept_asset
from tasks.labelling.loading import load_asset_mesh
from tasks.quality.adjudication import adjudicate
from tasks.rendering.contact_sheet import Sheet, render_sheet
from tasks.settings import QualitySettings, Settings, load_settings
from tasks.storage import keys
from tasks.storage.store import Store
from tasks.workspace import Workspace


def make_box_glb(num_boxes: int = 2, shift: float = 0.0) -> bytes:
    """A row of separate boxes as GLB; `shift` makes different bytes."""
    scene = trimesh.Scene()
    for number in range(num_boxes):
        box = trimesh.creation.box(extents=(1, 1, 1))
        box.apply_translation((2.0 * number + shift, 0, 0))
        scene.add_geometry(box)
    return bytes(scene.export(file_type="glb"))


@dataclass(frozen=True)
class PipelineEnvironment:
    """A workspace without a worker, and a tiny model."""

    workspace: Workspace
    segmenter: Segmenter

    @property
    def raw(self) -> Store:
        return self.workspace.raw

    @property
    def store(self) -> Store:
        return self.workspace.store

    @property
    def catalogue(self) -> Catalogue:
        return self.workspace.catalogue

    @property
    def settings(self) -> Settings:
        return self.workspace.settings

    def with_settings(self, worker: str | None = None, **sections: Any) -> Workspace:
        """The workspace with other settings: section -> a whole one, or field -> value."""
        changed = {
            name: getattr(self.settings, name).model_copy(update=given)
            if isinstance(given, dict)
            else given
            for name, given in sections.items()
        }
        return replace(
            self.workspace, settings=self.settings.model_copy(update=changed), worker=worker
        )

    def ingest(self, parser: Parser | None = None) -> dict[str, str]:
        """Ingest all that is new; raw key -> outcome."""
        from tasks.ingest.ingest import ingest_object, scan_raw

        found = scan_raw(self.workspace)
        results = [ingest_object(self.workspace, info, parser) for info in found]
        return {result.key: result.reason or result.outcome for result in results}

    def add_proposed(self, num_boxes: int = 2, shift: float = 0.0) -> AssetRow:
        """A fresh asset with its first proposal."""
        from tasks.stages.encode import encode_asset
        from tasks.stages.propose import propose_asset

        self.raw.put(f"boxes-{num_boxes}-{shift}.glb", make_box_glb(num_boxes, shift))
        before = {asset.asset_id for asset in self.catalogue.list_assets()}
        self.ingest()
        (asset,) = [a for a in self.catalogue.list_assets() if a.asset_id not in before]
        encode_asset(self.workspace, asset.asset_id, self.segmenter)
        propose_asset(self.workspace, asset.asset_id, self.segmenter)
        return self.catalogue.get_asset(asset.asset_id)

    def add_reviewed(self, asset: AssetRow, verdict: str, clicks: list[ClickRow]) -> str:
        """A reviewer's answer to the asset's present round, as pull would record it."""
        unique_id = f"u-{asset.asset_id[:8]}-{asset.round}"
        self.catalogue.reviews.add_task(
            ReviewTaskRow(asset.asset_id, asset.round, 1, 7, "p", "s", "b")
        )
        self.catalogue.move(asset.asset_id, "in_review")
        annotation = AnnotationRow(
            unique_id=unique_id,
            updated_at=f"2026-11-22T10:0{asset.round}:00Z",
            annotation_id=3,
            task_id=7,
            asset_id=asset.asset_id,
            round=asset.round,
            reviewer="ann@local.test",
            raw={"id": 3},
            lead_time_s=12.5,
        )
        self.catalogue.reviews.record_annotation(annotation)
        mine = [
            replace(c, unique_id=unique_id, updated_at=annotation.updated_at, round=asset.round)
            for c in clicks
        ]
        self.catalogue.reviews.interpret(
            unique_id, annotation.updated_at, verdict=verdict, note="", clicks=mine
        )
        return unique_id


@pytest.fixture(scope="session")
def segmenter() -> Segmenter:
    return Segmenter(build_model("tiny"))


@pytest.fixture
def make_boxes() -> Callable[..., bytes]:
    return make_box_glb


@pytest.fixture
def pipeline(
    tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> PipelineEnvironment:
    monkeypatch.chdir(tmp_path)  # no segvigen.toml of the working folder
    overrides = {"model": {"num_draws": 2, "num_steps": 2}}
    catalogue = Catalogue(f"sqlite:///{tmp_path}/catalogue.db")
    workspace = Workspace(
        store=Store(f"file://{tmp_path}/store", hashes=catalogue.blobs),
        raw=Store(f"file://{tmp_path}/raw"),
        catalogue=catalogue,
        settings=load_settings(None, overrides),
    )
    return PipelineEnvironment(workspace, segmenter)


QUALITY = QualitySettings(double_share=1.0, gold_share=0.0)
BOXES = 3


def make_box_mesh(
    boxes: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> tuple[AssetMesh, IntArray]:
    """One part per (extents, centre) box."""
    parts = []
    for extents, center in boxes:
        box = trimesh.creation.box(extents=extents)
        box.apply_translation(center)
        parts.append(box)
    labels = np.concatenate([np.full(len(p.faces), i) for i, p in enumerate(parts)])
    whole = trimesh.util.concatenate(parts)
    mesh = AssetMesh(
        vertices=np.asarray(whole.vertices, dtype=np.float64),
        faces=np.asarray(whole.faces, dtype=np.int64),
        face_material=np.zeros(len(whole.faces), dtype=np.int32),
        materials=(Material(base_color_factor=(1.0, 0.5, 0.0, 1.0)),),
    )
    return mesh, labels.astype(np.int32)


TABLE = (
    ((2.0, 0.2, 1.0), (10.0, 1.0, 0.0)),
    ((0.2, 0.9, 0.2), (9.2, 0.45, 0.3)),
    ((0.2, 0.9, 0.2), (10.8, 0.45, 0.3)),
)


@pytest.fixture(scope="session")
def make_mesh() -> Callable[..., tuple[AssetMesh, IntArray]]:
    return make_box_mesh


@pytest.fixture(scope="session")
def table() -> tuple[AssetMesh, IntArray]:
    return make_box_mesh(TABLE)


@pytest.fixture(scope="session")
def table_sheet(table) -> Sheet:
    return render_sheet(*table, width=384, meta={"asset_id": "a", "round": 0})


@dataclass
class ReviewScenario:
    """The catalogue after people answered, without any Label Studio."""

    pipeline: object
    number: int = 0
    made: dict = field(default_factory=dict)

    @property
    def workspace(self):
        return self.pipeline.workspace

    def get_asset(self, asset_id):
        return self.pipeline.catalogue.get_asset(asset_id)

    def add_proposed(self, make_boxes, shown=None, confidence=0.9):
        """A row of boxes, one part each unless shown otherwise."""
        self.number += 1
        self.pipeline.raw.put(f"{self.number}.glb", make_boxes(BOXES, float(self.number)))
        known = {row.asset_id for row in self.pipeline.catalogue.list_assets()}
        self.pipeline.ingest()
        (asset,) = [a for a in self.pipeline.catalogue.list_assets() if a.asset_id not in known]
        self.pipeline.catalogue.move(asset.asset_id, "encoded")
        labels = self.compute_true_labels(asset) if shown is None else shown
        return self.propose(asset.asset_id, labels, 0, confidence)

    def compute_true_labels(self, asset):
        surface = measure_surface(load_asset_mesh(self.pipeline.store, asset))
        return surface.components.astype(np.int32)

    def propose(self, asset_id, labels, round_, confidence=0.9):
        num_parts = int(labels.max()) + 1
        proposal = Proposal(
            labels.astype(np.int32),
            np.zeros(1, np.int32),
            np.ones(num_parts, np.float32),
            confidence,
            checkpoint="hand",
            num_draws=4,
        )
        key = keys.make_proposal_key(asset_id, round_, f"hand{confidence}")
        blob = self.pipeline.store.put(key, proposal_to_bytes(proposal))
        row = ProposalRow(asset_id, round_, key, blob.sha256, num_parts, confidence, "hand")
        self.pipeline.catalogue.add_proposal(row)
        return self.pipeline.catalogue.move(asset_id, "proposed", round=round_)

    def record_annotation(self, asset_id, verdict, reviewer, labels=None, merge=()):
        """What push, the person and pull do together; `labels`: refined to these first."""
        catalogue = self.pipeline.catalogue
        if labels is not None:
            catalogue.move(asset_id, "in_review")
            catalogue.move(asset_id, "refining")
            self.propose(asset_id, labels, self.get_asset(asset_id).round + 1)
        asset = self.get_asset(asset_id)
        catalogue.reviews.add_task(ReviewTaskRow(asset_id, asset.round, 1, 7, "p", "s", "b"))
        catalogue.move(asset_id, "in_review")
        self.number += 1
        row = AnnotationRow(
            *(f"u{self.number}", f"2026-11-22T10:00:{self.number:02d}Z", 3, 7, asset_id),
            *(asset.round, reviewer, {"id": 3}, 12.5),
        )
        catalogue.reviews.record_annotation(row)
        key = (row.unique_id, row.updated_at)
        commands = (
            [EditCommandRow(*key, 0, asset_id, asset.round, "r", "merge", merge)] if merge else []
        )
        catalogue.reviews.interpret(*key, verdict=verdict, commands=commands)
        if verdict == "reject":
            catalogue.move(asset_id, "rejected", reason="reviewer_rejected", detail="broken")
        elif verdict == "skip":
            catalogue.move(asset_id, "skipped", reason="reviewer_skipped")
        elif not catalogue.quality.is_held(asset_id):
            accept_asset(self.workspace, asset_id, reviewer)

    def adjudicate(self, rules=QUALITY):
        workspace = self.pipeline.with_settings(quality=rules)
        return [(row.result, row.asset_id) for row in adjudicate(workspace)]

    def adjudicate_twice(self, rules=QUALITY):
        """Settle, and see that doing it again does nothing."""
        results = self.adjudicate(rules)
        events = len(self.pipeline.catalogue.list_events())
        assert self.adjudicate(rules) == []
        assert len(self.pipeline.catalogue.list_events()) == events
        return results

    def get_finding(self, asset, kind):
        (found,) = self.pipeline.catalogue.quality.list_findings(kind, asset.asset_id)
        return found


@pytest.fixture
def scenario(pipeline) -> ReviewScenario:
    return ReviewScenario(pipeline)


@pytest.fixture(autouse=True)
def no_pauses_between_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that fails its proof is tried again at once."""
    monkeypatch.setattr("tasks.storage.checked_reads.RETRY_DELAYS_S", (0.0, 0.0, 0.0))
