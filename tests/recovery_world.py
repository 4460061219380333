"""A small pipeline with accepted assets, for tests of recovery: real files, real tiny model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trimesh

from segvigen_model.segmenter import Segmenter
from tasks.catalogue import AnnotationRow, AssetRow, Catalogue, ClickRow, ReviewTaskRow
from tasks.ingest.ingest import ingest_object, scan_raw
from tasks.labelling.label_sets import accept_asset
from tasks.review.push import draw_review_files
from tasks.settings import Settings, load_settings
from tasks.shards.build import ShardBuild, build_shards
from tasks.stages.encode import encode_asset
from tasks.stages.propose import propose_asset
from tasks.stages.refine import refine_asset
from tasks.storage.store import Store
from tasks.workspace import Workspace

OVERRIDES: dict[str, dict[str, Any]] = {
    "model": {"num_draws": 1, "num_steps": 1},
    "shard": {"num_palettes": 1, "num_guide_views": 1, "guide_pixels": 32},
    "review": {"sheet_pixels": 256},
}


@dataclass(frozen=True)
class World:
    """Store and raw bucket below one folder, and a catalogue."""

    folder: Path
    workspace: Workspace
    segmenter: Segmenter

    def build(self) -> ShardBuild:
        return build_shards(self.workspace)

    def add_proposed(self, number: int) -> AssetRow:
        """A row of two boxes; the number makes it another asset."""
        scene = trimesh.Scene()
        for place in range(2):
            box = trimesh.creation.box(extents=(1, 1, 1))
            box.apply_translation((2.0 * place + number / 8, 0, 0))
            scene.add_geometry(box)
        key = f"boxes-{number:03d}.glb"
        self.workspace.raw.put(key, bytes(scene.export(file_type="glb")))
        (info,) = [each for each in scan_raw(self.workspace) if each.key == key]
        asset_id = ingest_object(self.workspace, info).asset_id
        encode_asset(self.workspace, asset_id, self.segmenter)
        propose_asset(self.workspace, asset_id, self.segmenter)
        return self.workspace.catalogue.get_asset(asset_id)

    def add_accepted(self, number: int, *, is_refined: bool = False) -> str:
        """An asset that a reviewer accepted, on request after one click."""
        asset = self.add_proposed(number)
        if is_refined:
            self.review(asset, "refine", [make_click(asset)])
            self.workspace.catalogue.move(asset.asset_id, "refining")
            refine_asset(self.workspace, asset.asset_id, self.segmenter)
            asset = self.workspace.catalogue.get_asset(asset.asset_id)
        self.review(asset, "accept", [])
        accept_asset(self.workspace, asset.asset_id, "ann@local.test")
        return asset.asset_id

    def push(self, asset: AssetRow) -> None:
        """Draw the files of the present round and record its task, without any Label Studio."""
        catalogue, store = self.workspace.catalogue, self.workspace.store
        source = catalogue.get_proposal(asset.asset_id, asset.round)
        files, _ = draw_review_files(self.workspace, asset, source)
        for key, (data, content_type) in files.items():
            store.put(key, data, content_type)
        buffers, viewer, sheet = files
        place = (asset.asset_id, asset.round, 1, 7, source.key)
        catalogue.reviews.add_task(ReviewTaskRow(*place, sheet, buffers, viewer))
        catalogue.move(asset.asset_id, "in_review")

    def review(self, asset: AssetRow, verdict: str, clicks: list[ClickRow]) -> None:
        """A reviewer's answer to the present round, as pull would record it."""
        self.push(asset)
        reviews = self.workspace.catalogue.reviews
        key = (f"u-{asset.asset_id[:8]}-{asset.round}", f"2026-11-22T10:0{asset.round}:00Z")
        place = (3, 7, asset.asset_id, asset.round, "ann@local.test")
        reviews.record_annotation(AnnotationRow(*key, *place, {"id": 3}, 12.5))
        mine = [replace(each, unique_id=key[0], updated_at=key[1]) for each in clicks]
        reviews.interpret(*key, verdict=verdict, clicks=mine)

    def with_catalogue(self, url: str) -> World:
        """The same files with another catalogue."""
        catalogue = Catalogue(url)
        settings = load_settings(None, {**OVERRIDES, "catalogue": {"url": url}})
        return replace(self, workspace=open_files(self.folder, catalogue, settings))


def make_click(asset: AssetRow) -> ClickRow:
    """A click for a new part on the first face."""
    place = ("u", "t", 0, asset.asset_id, asset.round, "r", "sheet", 1.0, 2.0, "new part")
    return ClickRow(*place, "new_part", -1, 0, -0.5, 0.0, 0.0)


def open_files(folder: Path, catalogue: Catalogue, settings: Settings) -> Workspace:
    """A workspace on the files of a folder."""
    return Workspace(
        store=Store(f"file://{folder}/store", hashes=catalogue.blobs),
        raw=Store(f"file://{folder}/raw"),
        catalogue=catalogue,
        settings=settings,
    )


def open_world(folder: Path, segmenter: Segmenter) -> World:
    """The world of a folder; its catalogue is made where there is none."""
    url = f"sqlite:///{folder}/catalogue.db"
    settings = load_settings(None, {**OVERRIDES, "catalogue": {"url": url}})
    return World(folder, open_files(folder, Catalogue(url), settings), segmenter)
