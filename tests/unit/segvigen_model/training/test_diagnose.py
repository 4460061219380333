"""The diagnosis: oracles bound the scores, sizes are separate, sets stand side by side."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from segvigen_model.datasets import synthetic_pack
from segvigen_model.errors import SegvigenError
from segvigen_model.interactive.patch_network import PatchNetwork, save_patch_network
from segvigen_model.training.diagnose import (
    ALL,
    COUNTS,
    classify_size,
    compute_best_cut_iou,
    compute_mask_iou,
    diagnose,
    load_examples,
    main,
    parse_set,
    score_object,
)
from segvigen_model.training.patch_data import ExampleOptions, make_file

AREAS = np.array([0.4, 0.3, 0.2, 0.1])
TARGET = np.array([1.0, 0.5, 0.0, 0.0])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    objects, shards = (tmp_path_factory.mktemp(name) for name in ("objects", "shards"))
    synthetic_pack.write_pack(objects, split="train", each=1, most=3)
    make_file(shards / "train-00000.npz", range(4), ExampleOptions(counts=(40, 60)))
    return objects, shards


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return PatchNetwork(16, 2, (1, 1), 8).eval()


def test_iou_counts_shares_of_patches():
    assert compute_mask_iou(np.array([True, False, False, False]), TARGET, AREAS) == pytest.approx(
        0.4 / 0.55
    )
    assert compute_mask_iou(np.array([True, True, False, False]), TARGET, AREAS) == pytest.approx(
        0.55 / 0.7
    )
    assert compute_mask_iou(np.zeros(4, bool), TARGET, AREAS) == 0


def test_the_best_cut_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    for _ in range(20):
        areas, target = rng.random(30), rng.random(30)
        scores = np.round(rng.normal(size=30), 1)  # some are equal
        tried = max(compute_mask_iou(scores >= value, target, areas) for value in scores)
        assert compute_best_cut_iou(scores, target, areas) == pytest.approx(tried)
    assert compute_best_cut_iou(TARGET, TARGET, AREAS) == pytest.approx(0.55 / 0.7)


@pytest.mark.parametrize(
    ("share", "size"), [(0.006, "< 2 %"), (0.02, "2-10 %"), (0.0999, "2-10 %"), (1.0, "> 10 %")]
)
def test_parts_are_reported_apart_by_size(share, size):
    assert classify_size(share) == size


def test_no_score_is_above_its_oracles(network, folders):
    chosen = parse_set(f"train={folders[1]}:train")
    for number, example in enumerate(load_examples(chosen, 9)):
        values = score_object(network, example, np.random.default_rng(number))
        sizes = {name.split("|")[0] for name in values}
        assert ALL in sizes
        assert len(sizes) > 1
        for size in sizes:
            ceiling = np.array(values[f"{size}|ceiling"])
            for count in COUNTS:
                plain, best = (
                    np.array(values[f"{size}|{name}@{count}"]) for name in ("iou", "best cut")
                )
                assert (plain <= best + 1e-9).all()
                assert (best <= ceiling + 1e-6).all()


def test_sets_stand_side_by_side(network, folders, tmp_path, caplog):
    save_patch_network(network, tmp_path / "weights.safetensors")
    objects, shards = folders
    with caplog.at_level("INFO"):
        main(
            [
                *("--set", f"train={shards}:train", "--set", f"unseen={objects}"),
                *("--objects", "3", "--patches", "64", "--surface", "as-is"),
                *("--weights", str(tmp_path / "weights.safetensors")),
                *("--json", str(tmp_path / "result.json")),
            ]
        )
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result) == {"train", "unseen"}
    assert result["unseen"]["objects"] == 3
    mean, low, high = result["train"][ALL]["iou@10"]
    assert low <= mean <= high
    assert "| train (3 objects" in caplog.text
    assert "| > 10 %, ceiling |" in caplog.text


def test_the_same_seed_gives_the_same_numbers(network, folders):
    chosen = parse_set(f"train={folders[1]}:train")
    one, two, other = (
        diagnose(network, {"train": load_examples(chosen, 3)}, seed=seed) for seed in (0, 0, 1)
    )
    assert one == two != other


@pytest.mark.parametrize("text", ["train", "=folder", "train="])
def test_a_set_of_another_form_is_refused(text):
    with pytest.raises(SegvigenError, match="is not of the form NAME=FOLDER"):
        parse_set(text)


def test_an_empty_folder_is_refused(network, tmp_path):
    with pytest.raises(SegvigenError, match=r"no manifest\.jsonl and no shards"):
        diagnose(network, {"train": load_examples(parse_set(f"train={tmp_path}"), 3)})
