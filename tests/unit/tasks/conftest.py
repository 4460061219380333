"""A small world for stage tests: local stores, a SQLite catalogue, the real segmenter, tiny."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trimesh

from segvigen_model import checkpoint
from segvigen_model.segmenter import Segmenter
from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    Catalogue,
    ClickRow,
    ReviewTaskRow,
)
from tasks.parser import Parser
from tasks.settings import Settings, load_settings
from tasks.store import Store


def box_glb(num_boxes: int = 2, shift: float = 0.0) -> bytes:
    """A row of separate boxes as GLB; `shift` makes different bytes."""
    scene = trimesh.Scene()
    for number in range(num_boxes):
        box = trimesh.creation.box(extents=(1, 1, 1))
        box.apply_translation((2.0 * number + shift, 0, 0))
        scene.add_geometry(box)
    return bytes(scene.export(file_type="glb"))


@dataclass(frozen=True)
class World:
    """Everything that a stage is given."""

    raw: Store
    store: Store
    catalogue: Catalogue
    settings: Settings
    segmenter: Segmenter

    def ingest(self, parser: Parser | None = None) -> dict[str, str]:
        """Ingest all that is new; raw key -> outcome."""
        from tasks.ingest import ingest_object, scan_raw

        results = [
            ingest_object(
                info,
                raw=self.raw,
                store=self.store,
                catalogue=self.catalogue,
                settings=self.settings.ingest,
                parser=parser,
            )
            for info in scan_raw(self.raw, self.catalogue)
        ]
        return {result.key: result.reason or result.outcome for result in results}

    def proposed(self, num_boxes: int = 2, shift: float = 0.0) -> AssetRow:
        """A fresh asset with its first proposal."""
        from tasks.encode import encode_asset
        from tasks.propose import propose_asset

        self.raw.put(f"boxes-{num_boxes}-{shift}.glb", box_glb(num_boxes, shift))
        before = {asset.asset_id for asset in self.catalogue.assets()}
        self.ingest()
        (asset,) = [a for a in self.catalogue.assets() if a.asset_id not in before]
        common = {"store": self.store, "catalogue": self.catalogue, "segmenter": self.segmenter}
        encode_asset(asset.asset_id, **common)
        propose_asset(asset.asset_id, model=self.settings.model, **common)
        return self.catalogue.asset(asset.asset_id)

    def reviewed(self, asset: AssetRow, verdict: str, clicks: list[ClickRow]) -> str:
        """A reviewer's answer to the asset's present round, as pull would record it."""
        unique_id = f"u-{asset.asset_id[:8]}-{asset.round}"
        self.catalogue.reviews.add_task(
            ReviewTaskRow(asset.asset_id, asset.round, 1, 7, "p", "s", "b")
        )
        self.catalogue.move(asset.asset_id, "in_review")
        answer = AnnotationRow(
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
        self.catalogue.reviews.record_annotation(answer)
        mine = [
            replace(c, unique_id=unique_id, updated_at=answer.updated_at, round=asset.round)
            for c in clicks
        ]
        self.catalogue.reviews.interpret(
            unique_id, answer.updated_at, verdict=verdict, note="", clicks=mine
        )
        return unique_id


@pytest.fixture(scope="session")
def segmenter() -> Segmenter:
    return Segmenter(checkpoint.build("tiny"))


@pytest.fixture
def make_boxes() -> Callable[..., bytes]:
    return box_glb


@pytest.fixture
def world(tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)  # no segvigen.toml of the working folder
    overrides = {"model": {"num_draws": 2, "num_steps": 2}}
    return World(
        raw=Store(f"file://{tmp_path}/raw"),
        store=Store(f"file://{tmp_path}/store"),
        catalogue=Catalogue(f"sqlite:///{tmp_path}/catalogue.db"),
        settings=load_settings(None, overrides),
        segmenter=segmenter,
    )
