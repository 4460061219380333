"""Training the patch network: data is the same for the same seed; a few objects can be learned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segvigen_model.interactive.patch_network import PatchNetwork, build_patch_tensors, with_depth
from segvigen_model.training import patch_data
from segvigen_model.training.click_sampling import draw_question, rotate_example, thin_example
from segvigen_model.training.runs import Run
from segvigen_model.training.train_patch_network import (
    Examples,
    FitOptions,
    compute_example_gradient,
    fit_network,
    validate,
)

FEW = (40, 60)  # patches: enough to tell parts apart, and quick


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("patches")
    for split in ("train", "validation"):
        how = patch_data.ExampleOptions(split=split, counts=FEW)
        patch_data.make_file(out / f"{split}-00000.npz", range(4), how)
    return out


def test_the_same_seed_makes_the_same_objects(folder, tmp_path):
    again = tmp_path / "train-00000.npz"
    patch_data.make_file(again, range(4), patch_data.ExampleOptions(counts=FEW))
    first, second = (list(patch_data.read_file(p)) for p in (folder / "train-00000.npz", again))
    assert len(first) == len(second) >= 3
    for left, right in zip(first, second, strict=True):
        assert (left.features.scalars == right.features.scalars).all()
        assert (left.features.geodesic_distances == right.features.geodesic_distances).all()
        assert (left.shares == right.shares).all()


def test_questions_click_inside_and_outside(folder):
    example = Examples([folder], "train").rows[0]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        question = draw_question(rotate_example(example, rng), rng)
        assert (question.target[question.positive] > 0).all()
        assert (question.target[question.negative] < 1).all()


def test_turning_keeps_distances(folder):
    example = Examples([folder], "train").rows[1]
    moved = rotate_example(example, np.random.default_rng(0)).features
    before = np.linalg.norm(example.features.centers[:, None] - example.features.centers, axis=2)
    after = np.linalg.norm(moved.centers[:, None] - moved.centers, axis=2)
    assert after == pytest.approx(before, abs=1e-5)


def test_a_run_of_version_0_1_goes_on(folder, tmp_path):
    torch.manual_seed(0)
    network = PatchNetwork(48, 2, (2, 2), 16)
    fit_network(network, Run(tmp_path), [folder], FitOptions(60, 2, 2, 2e-3, decay=0.9))
    state = tmp_path / "state.safetensors"
    earlier = {
        name.replace("read_prediction.", "read_answer.").replace(
            "pair_logits.", "pair_odds."
        ): value
        for name, value in load_file(state).items()
    }
    assert {"model.pair_odds.bias", "average.read_answer.1.bias"} <= set(earlier)
    save_file(earlier, state)
    run = Run(tmp_path)
    fit_network(network, run, [folder], FitOptions(60, 4, 2, 2e-3, decay=0.9))
    assert run.step == 4
    assert "average.read_prediction.1.bias" in load_file(state)


def test_a_handful_of_objects_is_learned_and_a_run_goes_on(folder, tmp_path):
    torch.manual_seed(0)
    network = PatchNetwork(48, 2, (2, 2), 16)
    rows = Examples([folder], "train").rows
    before = np.mean(list(validate(network, rows).values()))
    fit_network(network, Run(tmp_path), [folder], FitOptions(60, 60, 2, 2e-3, decay=0.9))
    half = np.mean(list(validate(network, rows).values()))
    run = Run(tmp_path)
    fit_network(network, run, [folder], FitOptions(60, 360, 2, 2e-3, decay=0.9))
    assert run.step == 360
    after = np.mean(list(validate(network, rows).values()))
    assert max(before, half) < after
    assert after > 0.65
    assert (tmp_path / "patches.safetensors").exists()


def test_threads_share_a_batch_and_agree(folder):
    torch.manual_seed(0)
    network = PatchNetwork(16, 2, (1, 1), 8)
    rows = Examples([folder], "train").rows
    seeds = [[0, number] for number in range(len(rows))]
    alone = [compute_example_gradient(network, *each) for each in zip(rows, seeds, strict=True)]
    with ThreadPoolExecutor(3) as pool:
        beside = list(pool.map(partial(compute_example_gradient, network), rows, seeds))
    for (loss, gradient), (again, same) in zip(alone, beside, strict=True):
        assert loss == pytest.approx(again, rel=1e-3)
        for left, right in zip(gradient, same, strict=True):
            assert (left is None) == (right is None)
            assert left is None or torch.allclose(left, right, rtol=0.05, atol=5e-3)


def test_thinning_keeps_everything_about_the_patches_that_stay(folder):
    example = Examples([folder], "train").rows[0]
    fewer = thin_example(example, np.random.default_rng(0))
    number = fewer.features.count
    assert number % 16 == 0
    assert 0 <= example.features.count - number < 16
    kept = [
        int(np.flatnonzero((example.features.centers == at).all(axis=1))[0])
        for at in fewer.features.centers
    ]
    assert (
        fewer.features.geodesic_distances == example.features.geodesic_distances[np.ix_(kept, kept)]
    ).all()
    assert (fewer.shares == example.shares[kept]).all()
    before = {tuple(pair) for pair in example.pairs}
    after = {(kept[left], kept[right]) for left, right in fewer.pairs}
    assert after == {pair for pair in before if set(pair) <= set(kept)}


def test_a_deeper_network_predicts_as_before_and_can_learn(folder):
    torch.manual_seed(0)
    network = PatchNetwork(16, 2, (1, 1), 8)
    deeper = with_depth(network, (3, 2))
    example = rotate_example(Examples([folder], "train").rows[0], np.random.default_rng(0))
    features = build_patch_tensors(example.features)
    question = [(torch.tensor([0, 5]), torch.tensor([9]))]
    responses = [each.predict_clicks(each.encode(features), question) for each in (network, deeper)]
    assert torch.allclose(*responses, atol=1e-6)
    assert torch.allclose(
        *(each.predict_affinity(each.encode(features)) for each in (network, deeper)), atol=1e-6
    )
    responses[1].sum().backward()
    assert all((block.to_out.weight.grad != 0).any() for block in deeper.encoder)


def test_a_network_never_grows_smaller():
    with pytest.raises(ValueError, match=r"depth \(1, 1\) is less than the network's \(2, 1\)"):
        with_depth(PatchNetwork(16, 2, (2, 1), 8), (1, 1))
