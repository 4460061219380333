"""Tuning learns from a folder, keeps what it began with if nothing is better, and judges."""

from __future__ import annotations

import json

import pytest
import torch

from segvigen_model.checkpoints import native
from segvigen_model.checkpoints.loading import load
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.datasets.synthetic_pack import write_object
from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation.comparison import Change, Comparison
from segvigen_model.interactive.patch_network import PATCHES_FILE, read_patch_network
from segvigen_model.model.bundle import build
from segvigen_model.training import finetune, promotion
from segvigen_model.training.export import with_patches
from segvigen_model.training.finetune import TuneOptions, tune
from segvigen_model.training.promotion import judge, verdict_of

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
    native.save(build("tiny"), made)
    return str(made)


def state(file):
    return read_patch_network(file).state_dict()


def test_a_killed_run_goes_on_and_the_checkpoint_differs_in_the_patch_network_only(
    folder, start, tmp_path
):
    options = TuneOptions(start=start, steps=2, threads=1)
    tune(folder, tmp_path, options)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "examples").iterdir()}
    assert {path.name for path in made} == {"train-00000.npz", "validation-00000.npz"}
    weights = tune(folder, tmp_path, TuneOptions(start=start, steps=3, threads=1))
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "examples").iterdir()}
    assert json.loads((tmp_path / "run/state.json").read_text())["step"] == 3
    tuned = with_patches(start, weights, tmp_path / "checkpoint", {"data": "stools"})
    assert tuned.sha256 == load(start).sha256, "encodings stay"
    assert tuned.patch_weights == tmp_path / "checkpoint" / PATCHES_FILE
    assert tuned.card["patch_network"] == {"data": "stools"}


def test_weights_that_training_ruins_are_not_kept(folder, start, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "RATE", 30.0)
    weights = tune(folder, tmp_path, TuneOptions(start=start, steps=3, threads=1))
    kept, before = state(weights), state(load(start).patch_weights)
    assert all(torch.equal(kept[name], before[name]) for name in before)


def test_a_folder_of_held_out_objects_alone_is_refused(start, tmp_path):
    write_folder(tmp_path, ("heldout", "validation"))
    with pytest.raises(SegvigenError, match="no object to train on: all rows are held out"):
        tune(tmp_path, tmp_path / "run", TuneOptions(start=start))


def test_both_checkpoints_are_asked_about_held_out_objects_only(folder, start, tmp_path):
    guard = write_folder(tmp_path / "guard", (None,))
    found = judge(folder, guard, (start, start), workers=1)
    assert found.own.objects == SPLITS.count("heldout") and found.guard.objects == 1
    assert not found.is_better and "1 held-out objects say nothing, 5 would" in found.reason
    assert json.loads(json.dumps(found.as_json()))["own"]["full"]["miou_matched"]["difference"] == 0


def compared(clicks, full=None, objects=20, spread=0.03):
    def change(gain):
        return Change(0.5, 0.5 + gain, (gain - spread, gain + spread))

    changes = {f"interactive|iou@{n}": change(clicks) for n in promotion.CLICKS}
    if full is not None:
        changes[promotion.FULL] = change(full)
    return Comparison(changes, objects, 0)


@pytest.mark.parametrize(
    ("own", "guard", "is_better", "words"),
    [
        (compared(0.04, 0.02), compared(0.0), True, "better on 20 held-out objects: clicks +0.040"),
        (compared(0.04, -0.005), compared(-0.005), True, "better"),
        (compared(0.04, -0.02), compared(0.0), False, "proposals lost more than 0.01"),
        (compared(0.04, 0.02), compared(-0.02), False, "clicks on shapes made in code lost"),
        (compared(-0.005, 0.0), compared(0.0), False, "gained nothing"),
        (compared(0.04, 0.02, objects=4), compared(0.0), False, "4 held-out objects say nothing"),
        (compared(0.02, 0.04, spread=0.06), compared(0.0), False, "proposals may be chance"),
        (compared(0.0, 0.04, spread=0.04), compared(0.0), True, "proposals +0.040"),
    ],
)
def test_a_gain_must_not_be_paid_for_elsewhere(own, guard, is_better, words):
    found = verdict_of(own, guard)
    assert found.is_better is is_better and words in found.reason
