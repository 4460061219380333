"""Training the patch network: data is the same for the same seed; a few objects can be learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segvigen_model.patch_network import PatchNetwork
from segvigen_model.training import patch_data
from segvigen_model.training.patch_fit import (
    Examples,
    FitOptions,
    draw_question,
    fit,
    turned,
    validate,
)
from segvigen_model.training.runs import Run

FEW = (40, 60)  # patches: enough to tell parts apart, and quick


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("patches")
    for split in ("train", "validation"):
        patch_data.make_file(out / f"{split}-00000.npz", range(4), 0, None, split, FEW)
    return out


def test_the_same_seed_makes_the_same_objects(folder, tmp_path):
    again = tmp_path / "train-00000.npz"
    patch_data.make_file(again, range(4), 0, None, "train", FEW)
    first, second = (list(patch_data.read_file(p)) for p in (folder / "train-00000.npz", again))
    assert len(first) == len(second) >= 3
    for left, right in zip(first, second, strict=True):
        assert (left.facts.scalars == right.facts.scalars).all()
        assert (left.facts.ways == right.facts.ways).all()
        assert (left.shares == right.shares).all()


def test_questions_click_inside_and_outside(folder):
    example = Examples(folder, "train").rows[0]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        question = draw_question(turned(example, rng), rng)
        assert (question.target[question.positive] > 0).all()
        assert (question.target[question.negative] < 1).all()


def test_turning_keeps_distances(folder):
    example = Examples(folder, "train").rows[1]
    moved = turned(example, np.random.default_rng(0)).facts
    before = np.linalg.norm(example.facts.centers[:, None] - example.facts.centers, axis=2)
    after = np.linalg.norm(moved.centers[:, None] - moved.centers, axis=2)
    assert after == pytest.approx(before, abs=1e-5)


def test_a_handful_of_objects_is_learned_and_a_run_goes_on(folder, tmp_path):
    torch.manual_seed(0)
    network = PatchNetwork(48, 2, (2, 2), 16)
    rows = Examples(folder, "train").rows
    before = np.mean(list(validate(network, rows).values()))
    fit(network, Run(tmp_path), folder, FitOptions(60, 60, 2, 2e-3, decay=0.9))
    half = np.mean(list(validate(network, rows).values()))
    run = Run(tmp_path)
    fit(network, run, folder, FitOptions(60, 360, 2, 2e-3, decay=0.9))
    assert run.step == 360
    after = np.mean(list(validate(network, rows).values()))
    assert max(before, half) < after
    assert after > 0.65
    assert (tmp_path / "patches.safetensors").exists()
