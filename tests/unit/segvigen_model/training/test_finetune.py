"""Tuning learns from a folder, keeps what it began with if nothing is better, and judges."""

from __future__ import annotations

import json

import pytest
import torch

from segvigen_model.checkpoints import native
from segvigen_model.checkpoints.loading import load_model
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.datasets.synthetic_pack import write_object
from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation.comparison import Change, Comparison
from segvigen_model.interactive.patch_network import PATCHES_FILE, read_patch_network
from segvigen_model.model.bundle import build_model
from segvigen_model.training import finetune, promotion
from segvigen_model.training.export import write_with_patch_network
from segvigen_model.training.finetune import TuneOptions, tune_network
from segvigen_model.training.promotion import decide_promotion, judge_promotion

pytestmark = pytest.mark.usefixtures("quick_tuning")

SPLITS = ("train", "train", "validation", "heldout")


def write_folder(folder, splits):
    rows = [
        {**write_object(folder, make_asset("stool", number, textured=False)), "split": split}
        for number, split in enumerate(splits)
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("labelled"), SPLITS)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    made = tmp_path_factory.mktemp("checkpoints") / "tiny"
    native.save_model(build_model("tiny"), made)
    return str(made)


def read_state(file):
    return read_patch_network(file).state_dict()


def test_a_killed_run_goes_on_and_the_checkpoint_differs_in_the_patch_network_only(
    folder, start, tmp_path
):
    options = TuneOptions(start=start, steps=2, threads=1)
    tune_network(folder, tmp_path, options)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "examples").iterdir()}
    assert {path.name for path in made} == {"train-00000.npz", "validation-00000.npz"}
    weights = tune_network(folder, tmp_path, TuneOptions(start=start, steps=3, threads=1))
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "examples").iterdir()}
    assert json.loads((tmp_path / "run/state.json").read_text())["step"] == 3
    tuned = write_with_patch_network(start, weights, tmp_path / "checkpoint", {"data": "stools"})
    assert tuned.sha256 == load_model(start).sha256, "encodings stay"
    assert tuned.patch_weights == tmp_path / "checkpoint" / PATCHES_FILE
    assert tuned.card["patch_network"] == {"data": "stools"}


def test_weights_that_training_ruins_are_not_kept(folder, start, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "RATE", 30.0)
    weights = tune_network(folder, tmp_path, TuneOptions(start=start, steps=3, threads=1))
    kept, before = read_state(weights), read_state(load_model(start).patch_weights)
    assert all(torch.equal(kept[name], before[name]) for name in before)


def test_a_folder_of_held_out_objects_alone_is_refused(start, tmp_path):
    write_folder(tmp_path, ("heldout", "validation"))
    with pytest.raises(SegvigenError, match="no object to train on: all rows are held out"):
        tune_network(tmp_path, tmp_path / "run", TuneOptions(start=start))


def test_both_checkpoints_are_evaluated_on_held_out_objects_only(folder, start, tmp_path):
    regression = write_folder(tmp_path / "regression", (None,))
    found = judge_promotion(folder, regression, (start, start), workers=1)
    assert found.own.objects == SPLITS.count("heldout") and found.regression.objects == 1
    assert not found.is_better and "1 held-out objects say nothing, 5 would" in found.reason
    assert json.loads(json.dumps(found.as_json()))["own"]["full"]["miou_matched"]["difference"] == 0


def make_comparison(clicks, full=None, objects=20, spread=0.03):
    def change(gain):
        return Change(0.5, 0.5 + gain, (gain - spread, gain + spread))

    changes = {f"interactive|iou@{n}": change(clicks) for n in promotion.CLICKS}
    if full is not None:
        changes[promotion.FULL] = change(full)
    return Comparison(changes, objects, 0)


@pytest.mark.parametrize(
    ("own", "regression", "is_better", "words"),
    [
        (
            make_comparison(0.04, 0.02),
            make_comparison(0.0),
            True,
            "better on 20 held-out objects: clicks +0.040",
        ),
        (make_comparison(0.04, -0.005), make_comparison(-0.005), True, "better"),
        (
            make_comparison(0.04, -0.02),
            make_comparison(0.0),
            False,
            "proposals lost more than 0.01",
        ),
        (
            make_comparison(0.04, 0.02),
            make_comparison(-0.02),
            False,
            "clicks on shapes made in code lost",
        ),
        (make_comparison(-0.005, 0.0), make_comparison(0.0), False, "gained nothing"),
        (
            make_comparison(0.04, 0.02, objects=4),
            make_comparison(0.0),
            False,
            "4 held-out objects say nothing",
        ),
        (
            make_comparison(0.02, 0.04, spread=0.06),
            make_comparison(0.0),
            False,
            "proposals may be chance",
        ),
        (make_comparison(0.0, 0.04, spread=0.04), make_comparison(0.0), True, "proposals +0.040"),
    ],
)
def test_a_gain_must_not_be_paid_for_elsewhere(own, regression, is_better, words):
    found = decide_promotion(own, regression)
    assert found.is_better is is_better and words in found.reason
