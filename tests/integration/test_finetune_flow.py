"""From raw meshes to a tuned checkpoint: the flows on a real Prefect server, training for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.build_shards import build_shards
from flows.cli.main import make_app
from flows.finetune import RUNS, finetune
from flows.ingest import ingest
from flows.model_stages import encode, propose
from segvigen_model.command.options import OK, WENT_WRONG
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.mesh.io import mesh_from_bytes, mesh_to_glb
from segvigen_model.training import promotion
from tasks.checkpoints import list_published, load_segmenter, use_checkpoint
from tasks.labelling.label_sets import accept_asset
from tasks.workspace import open_workspace

NUM_ASSETS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture
def variables(folder, monkeypatch, quick_tuning):
    """Settings by environment, with the shipped checkpoint; training for seconds."""
    for name, text in {
        "SEGVIGEN_STORE_ROOT_URL": f"file://{folder}/store",
        "SEGVIGEN_STORE_RAW_URL": f"file://{folder}/raw",
        "SEGVIGEN_CATALOGUE_URL": f"sqlite:///{folder}/catalogue.db",
        "SEGVIGEN_MODEL_CHECKPOINT_CACHE": f"{folder}/checkpoints",
        "SEGVIGEN_MODEL_NUM_DRAWS": "1",
        "SEGVIGEN_MODEL_NUM_STEPS": "1",
    }.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(promotion, "REGRESSION_OBJECTS", 1)


def _label(folder: Path) -> None:
    """Accepted label sets of a few stools, in shards."""
    (folder / "raw").mkdir()
    for number in range(NUM_ASSETS):
        mesh = make_asset("stool", number, textured=False).mesh
        (folder / "raw" / f"stool-{number}.glb").write_bytes(mesh_to_glb(mesh))
    for flow in (ingest, encode, propose):
        flow()
    workspace = open_workspace()
    for asset in workspace.catalogue.list_assets("proposed"):
        workspace.catalogue.move(asset.asset_id, "in_review")
        accept_asset(workspace, asset.asset_id, "ann")
    assert build_shards()["counts"]["samples"] == NUM_ASSETS


def test_accepted_labels_become_a_judged_checkpoint(folder, variables, prefect_api):
    with pytest.raises(Exception, match="has no shards yet"):
        finetune(minutes=0.02)
    _label(folder)
    first = finetune(minutes=0.02)
    assert sum(first["counts"].values()) == NUM_ASSETS
    assert not first["is_in_use"] and "held-out objects say nothing" in first["note"]
    catalogue = open_workspace().catalogue
    (row,) = list_published(catalogue)
    assert row.alias == first["version"] and row.detail["own"]["objects"] < promotion.MIN_OBJECTS

    steps = next((folder / "checkpoints" / RUNS).glob("*/run/state.json"))
    before = steps.read_text()
    again = finetune(minutes=0.02)
    assert again["version"] == first["version"] and steps.read_text() == before, "found, not made"

    use_checkpoint(catalogue, row.alias)
    workspace = open_workspace()
    assert load_segmenter(workspace).weights["patch_network"] == row.sha256
    assert "accept more assets first" in finetune(minutes=0.02)["note"]
    assert propose()["counts"] == {}, "what is labelled stays labelled"


def test_people_see_and_choose_checkpoints(folder, variables, tmp_path):
    (row,) = list_published(open_workspace().catalogue)
    home = ["--home", str(tmp_path / "none")]
    reported = CliRunner().invoke(make_app(), ["use", "default", *home])
    assert reported.exit_code == OK and "in use now: default" in reported.output
    listed = CliRunner().invoke(make_app(), ["checkpoints", "--json", *home])
    rows = {each["version"]: each for each in json.loads(listed.stdout)}
    assert rows["default"]["is_in_use"] and not rows[row.alias]["is_in_use"]
    assert "say nothing" in rows[row.alias]["reason"]
    shown = CliRunner().invoke(make_app(), ["checkpoints", *home], env={"COLUMNS": "200"})
    assert row.alias in shown.stdout and "in use" in shown.stdout
    wrong = CliRunner().invoke(make_app(), ["use", "nothing", *home])
    assert wrong.exit_code == WENT_WRONG and row.alias in " ".join(wrong.output.split())


def test_the_dataset_comes_out_as_a_labelled_folder(folder, variables, tmp_path):
    out = tmp_path / "labelled"
    home = ["--home", str(tmp_path / "none")]
    reported = CliRunner().invoke(make_app(), ["export", "--out", str(out), *home])
    assert reported.exit_code == OK, reported.output
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) == NUM_ASSETS and all((out / row["glb"]).is_file() for row in rows)
    assert f"{sum(row['split'] == 'train' for row in rows)} train" in reported.output


def test_one_asset_is_shown_whole_and_its_parts_come_out_as_a_glb(folder, variables, tmp_path):
    home = ["--home", str(tmp_path / "none")]
    out, painted = tmp_path / "parts.glb", tmp_path / "painted.glb"
    files = ["--glb", str(out), "--painted", str(painted)]
    reported = CliRunner().invoke(make_app(), ["show", "stool-1.glb", *files, *home])
    assert reported.exit_code == OK, reported.output
    assert f"{out}: " in reported.output and "accepted parts, one node each" in reported.output
    assert "sharded, round 0" in reported.output and "Label sets" in reported.output
    held = json.loads(
        CliRunner().invoke(make_app(), ["show", "stool-1.glb", "--json", *home]).stdout
    )
    (labels,) = held["label_sets"]
    mesh = mesh_from_bytes(out.read_bytes(), ".glb")
    assert mesh.num_faces == held["asset"]["num_faces"]
    assert len(set(mesh.geometry_names)) == labels["num_parts"]
    shown = mesh_from_bytes(painted.read_bytes(), ".glb")
    colors = {row.base_color_factor for row in shown.materials}
    assert len(colors) == labels["num_parts"] and shown.num_faces == mesh.num_faces
    assert held["events"][0]["kind"] == "registered"
    wrong = CliRunner().invoke(make_app(), ["show", "chair.glb", *home])
    assert wrong.exit_code == WENT_WRONG and "0 assets begin with" in wrong.output
