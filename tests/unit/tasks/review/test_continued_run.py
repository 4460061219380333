"""A store and catalogue that commit a4d9af9 wrote are opened, upgraded and continued.

The run and the script that made it are described in tests/fixtures/a4d9af9/README.md.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segvigen_model.segmenter import Segmenter
from tasks.catalogue import AssetState, Catalogue
from tasks.labelling.label_sets import load_label_set
from tasks.labelling.loading import load_proposal
from tasks.review import push as push_module
from tasks.review.client import LabelStudioTask
from tasks.review.pull import pull_annotations
from tasks.review.push import push_assets
from tasks.settings import load_settings
from tasks.shards.build import build_shards
from tasks.shards.reader import ShardReader
from tasks.stages.encode import encode_asset
from tasks.stages.propose import propose_asset
from tasks.stages.refine import refine_asset, replay_labels
from tasks.storage.store import Store
from tasks.workspace import Workspace

RUN = Path(__file__).resolve().parents[3] / "fixtures" / "a4d9af9" / "pipeline.zip"
OVERRIDES = {
    "model": {"num_draws": 2, "num_steps": 2},
    "review": {"sheet_pixels": 384},
    "shard": {"num_palettes": 2, "num_guide_views": 2, "guide_pixels": 32},
}


@pytest.fixture
def run_info(tmp_path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(RUN) as archive:
        archive.extractall(tmp_path)
    return json.loads((tmp_path / "info.json").read_text())


@pytest.fixture
def workspace(tmp_path: Path, run_info: Any, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(push_module, "render_viewer", lambda *a, **k: b"<html></html>")
    return Workspace(
        store=Store(f"file://{tmp_path}/store"),
        raw=Store(f"file://{tmp_path}/raw"),
        catalogue=Catalogue(f"sqlite:///{tmp_path}/catalogue.db"),
        settings=load_settings(None, OVERRIDES),
        worker="w",
    )


@pytest.fixture
def project(fake_project: Any, run_info: Any) -> Any:
    """The double of Label Studio with the tasks that were open."""
    renamed = {"num_answers": "num_annotations"}
    for task in run_info["tasks"]:
        values = {renamed.get(name, name): value for name, value in task.items()}
        values["annotations"] = tuple(values["annotations"])
        fake_project.client.held.append(LabelStudioTask(**values))
    fake_project.client.clock = 40
    return fake_project


@pytest.fixture
def push(workspace: Workspace, project: Any) -> Callable[[], list[Any]]:
    def push_all() -> list[Any]:
        held = workspace.catalogue.claim([AssetState.PROPOSED], 9, "w")
        return push_assets(workspace, project, [asset.asset_id for asset in held])

    return push_all


def test_every_asset_is_where_it_was(workspace: Workspace, run_info: Any) -> None:
    for name, asset_id in run_info["assets"].items():
        asset = workspace.catalogue.get_asset(asset_id)
        assert asset.state == run_info["states"][name], name
        rows = workspace.catalogue.list_proposals(asset_id)
        assert [row.num_parts for row in rows] == run_info["parts"][name], name
        for row in rows:
            assert load_proposal(workspace.store, row).num_parts == row.num_parts, name
    assert list(Path.cwd().glob("catalogue.db.*.bak")), "no backup before the upgrade"


def test_label_sets_and_shards_read_as_before(workspace: Workspace, run_info: Any) -> None:
    for name, labels in run_info["face_labels"].items():
        row = workspace.catalogue.labels.get_latest(run_info["assets"][name])
        held = load_label_set(workspace.store, row)
        assert held.face_labels.tolist() == labels, name
        assert list(held.part_names) == run_info["part_names"][name], name
    reader = ShardReader(workspace.store, run_info["dataset"], run_info["dataset_version"])
    assert len(reader) == 2
    assert all(np.isfinite(reader[number].shape_slat).all() for number in range(2))


def test_accepted_labels_are_replayed_from_the_old_log(
    workspace: Workspace, run_info: Any, segmenter: Segmenter
) -> None:
    name = "refined_then_accepted"
    final = replay_labels(workspace, run_info["assets"][name], segmenter)
    assert final.face_labels.tolist() == run_info["face_labels"][name]
    assert final.parts.names[0] == "left leg"


def test_the_run_goes_on(
    workspace: Workspace, run_info: Any, segmenter: Segmenter, project: Any, push: Any
) -> None:
    assets, catalogue = run_info["assets"], workspace.catalogue
    assert segmenter.checkpoint == run_info["checkpoint"], "the tiny preset changed"
    alone = replace(workspace, worker=None)  # stages without leases
    encode_asset(alone, assets["registered"], segmenter)
    for name in ("registered", "encoded"):
        result = propose_asset(alone, assets[name], segmenter)
        assert result.state is AssetState.PROPOSED, f"{name}: {result.note}"
    before = catalogue.get_proposal(assets["refining"], 0)
    refined = refine_asset(alone, assets["refining"], segmenter)
    assert refined.state is AssetState.PROPOSED, refined.note
    after = catalogue.get_proposal(assets["refining"], 1)
    assert after.num_parts == before.num_parts - 1, "the stored merge was not carried out"
    assert load_proposal(workspace.store, after).parts.names[0] == "whole"
    states = {result.state for result in push()}
    assert states == {AssetState.IN_REVIEW}
    for task in list(project.client.held):
        if not task.annotations:
            project.client.submit_annotation(task.task_id, "accept", [])
    assert {reply.state for reply in pull_annotations(workspace, project)} == {AssetState.ACCEPTED}
    parked = catalogue.get_asset(assets["rejected"])
    assert parked.state is AssetState.REJECTED
    made = build_shards(workspace)
    done = [name for name in assets if name != "rejected"]
    assert made.num_samples == len(done) and made.version != run_info["dataset_version"]
    assert all(catalogue.get_asset(assets[name]).state is AssetState.SHARDED for name in done)


def test_old_samples_are_reused(workspace: Workspace, run_info: Any) -> None:
    """A version with the two old samples and one new copies the old ones."""
    made = build_shards(replace(workspace, worker=None))
    assert (made.num_samples, made.is_new) == (3, True)
    assert made.num_reused == 2, "samples that a4d9af9 wrote were made again"
