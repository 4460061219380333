"""Long training of the patch network: a stopped and resumed run equals one that went on."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from segvigen_model.errors import SegvigenError
from segvigen_model.interactive.patch_network import read_patch_network
from segvigen_model.training.patch_data import ExampleOptions, make_file
from segvigen_model.training.pretrain_patch_network import (
    PretrainOptions,
    main,
    open_run,
    train_run,
)

TINY = {
    "width": 32,
    "heads": 2,
    "depth": (1, 1),
    "pair_width": 8,
    "warmup": 3,
    "batch": 2,
    "num_questions": 2,
    "save_every": 2,
    "judge_every": 4,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    seen, unseen = (tmp_path_factory.mktemp(name) for name in ("seen", "unseen"))
    for folder, split, start in (
        (seen, "train", 0),
        (seen, "validation", 9),
        (unseen, "validation", 20),
    ):
        path = folder / f"{split}-00000.npz"
        make_file(path, range(start, start + 4), ExampleOptions(counts=(40, 60)))
    return seen, unseen


def run_of(out, folders, **changes):
    return open_run(out, [folders[0]], [folders[1]], PretrainOptions(**TINY | changes))


def rows_of(out):
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "cpu_s"} for row in rows]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_curve_of_a_resumed_run_equals_the_uninterrupted_one(optimizer, folders, tmp_path):
    whole = run_of(tmp_path / "whole", folders, optimizer=optimizer)
    train_run(whole, minutes=9, max_step=12)
    for last in (2, 4, 12):
        train_run(run_of(tmp_path / "cut", folders, optimizer=optimizer), minutes=9, max_step=last)
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert sum("loss" in row for row in rows_of(tmp_path / "cut")) == 6
    for name in ("patches.safetensors", "state.safetensors"):
        left, right = (load_file(tmp_path / out / name) for out in ("cut", "whole"))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left), name


def test_steps_after_the_last_save_are_taken_again(folders, tmp_path):
    first = run_of(tmp_path, folders)
    train_run(first, minutes=9, max_step=4)
    kept = (tmp_path / "state.safetensors").read_bytes()
    train_run(first, minutes=9, max_step=8)
    expected = rows_of(tmp_path)
    (tmp_path / "state.safetensors").write_bytes(kept)  # killed before the next save
    again = run_of(tmp_path, folders)
    assert again.progress.step == 4
    train_run(again, minutes=9, max_step=8)
    assert rows_of(tmp_path) == expected


def test_a_cooldown_ends_the_run_with_a_rate_of_nothing(folders, tmp_path):
    train_run(run_of(tmp_path, folders), minutes=9, max_step=4)
    cooling = run_of(tmp_path, folders, cooldown=6)
    train_run(cooling, minutes=9, max_step=6)
    assert cooling.progress.cooldown_step == 4
    resumed = run_of(tmp_path, folders, cooldown=6)
    train_run(resumed, minutes=9)
    assert resumed.progress.step == 10
    assert 0 < resumed.optimizers[0].param_groups[0]["lr"] < 0.1 * resumed.options.rate


def test_scores_are_of_validation_unseen_and_training_objects(folders, tmp_path):
    run = run_of(tmp_path, folders)
    train_run(run, minutes=9, max_step=4)
    scored = [row for row in rows_of(tmp_path) if "unseen" in row]
    assert len(scored) == 1
    assert {"validation", "unseen", "train"} <= set(scored[0])
    assert run.progress.best == pytest.approx(
        (scored[0]["validation"] + scored[0]["unseen"]) / 2, abs=1e-4
    )
    assert read_patch_network(tmp_path / "patches.safetensors").sizes["width"] == 32


def test_the_command_begins_and_continues(folders, tmp_path, caplog):
    command = ["--data", str(folders[0]), "--out", str(tmp_path / "run"), "--width", "32"]
    command += ["--heads", "2", "--depth", "1", "1", "--batch", "1", "--num-questions", "2"]
    command += ["--save-every", "1", "--judge-every", "2", "--max-step"]
    with caplog.at_level("INFO"):
        main([*command, "1"])
        main([*command, "2"])
    assert "step=1 cpu_s" in caplog.text
    assert "step=2 cpu_s" in caplog.text


def test_what_cannot_be_trained_on_says_why(folders, tmp_path):
    with pytest.raises(SegvigenError, match=r"no train-\*.npz in .*unseen"):
        open_run(tmp_path, [folders[1]], [], PretrainOptions(**TINY))
    with pytest.raises(SegvigenError, match="judge_every 5 is no multiple of save_every 2"):
        run_of(tmp_path, folders, judge_every=5)
