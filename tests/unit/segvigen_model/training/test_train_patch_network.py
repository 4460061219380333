"""Training the patch network: data is the same for the same seed; a few objects can be learned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from segvigen_model.interactive.patch_network import PatchNetwork, grown, tensors_of
from segvigen_model.training import patch_data
from segvigen_model.training.click_sampling import draw_question, thinned, turned
from segvigen_model.training.runs import Run
from segvigen_model.training.train_patch_network import (
    Examples,
    FitOptions,
    example_gradient,
    fit,
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
        assert (left.facts.scalars == right.facts.scalars).all()
        assert (left.facts.ways == right.facts.ways).all()
        assert (left.shares == right.shares).all()


def test_questions_click_inside_and_outside(folder):
    example = Examples([folder], "train").rows[0]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        question = draw_question(turned(example, rng), rng)
        assert (question.target[question.positive] > 0).all()
        assert (question.target[question.negative] < 1).all()


def test_turning_keeps_distances(folder):
    example = Examples([folder], "train").rows[1]
    moved = turned(example, np.random.default_rng(0)).facts
    before = np.linalg.norm(example.facts.centers[:, None] - example.facts.centers, axis=2)
    after = np.linalg.norm(moved.centers[:, None] - moved.centers, axis=2)
    assert after == pytest.approx(before, abs=1e-5)


def test_a_handful_of_objects_is_learned_and_a_run_goes_on(folder, tmp_path):
    torch.manual_seed(0)
    network = PatchNetwork(48, 2, (2, 2), 16)
    rows = Examples([folder], "train").rows
    before = np.mean(list(validate(network, rows).values()))
    fit(network, Run(tmp_path), [folder], FitOptions(60, 60, 2, 2e-3, decay=0.9))
    half = np.mean(list(validate(network, rows).values()))
    run = Run(tmp_path)
    fit(network, run, [folder], FitOptions(60, 360, 2, 2e-3, decay=0.9))
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
    alone = [example_gradient(network, *each) for each in zip(rows, seeds, strict=True)]
    with ThreadPoolExecutor(3) as pool:
        beside = list(pool.map(partial(example_gradient, network), rows, seeds))
    for (loss, gradient), (again, same) in zip(alone, beside, strict=True):
        assert loss == pytest.approx(again, rel=1e-3)
        for left, right in zip(gradient, same, strict=True):
            assert (left is None) == (right is None)
            assert left is None or torch.allclose(left, right, rtol=0.05, atol=5e-3)


def test_thinning_keeps_everything_about_the_patches_that_stay(folder):
    example = Examples([folder], "train").rows[0]
    fewer = thinned(example, np.random.default_rng(0))
    number = fewer.facts.count
    assert number % 16 == 0
    assert 0 <= example.facts.count - number < 16
    kept = [
        int(np.flatnonzero((example.facts.centers == at).all(axis=1))[0])
        for at in fewer.facts.centers
    ]
    assert (fewer.facts.ways == example.facts.ways[np.ix_(kept, kept)]).all()
    assert (fewer.shares == example.shares[kept]).all()
    before = {tuple(pair) for pair in example.pairs}
    after = {(kept[left], kept[right]) for left, right in fewer.pairs}
    assert after == {pair for pair in before if set(pair) <= set(kept)}


def test_a_grown_network_answers_as_before_and_can_learn(folder):
    torch.manual_seed(0)
    network = PatchNetwork(16, 2, (1, 1), 8)
    deeper = grown(network, (3, 2))
    example = turned(Examples([folder], "train").rows[0], np.random.default_rng(0))
    facts = tensors_of(example.facts)
    question = [(torch.tensor([0, 5]), torch.tensor([9]))]
    answers = [each.ask(each.encode(facts), question) for each in (network, deeper)]
    assert torch.allclose(*answers, atol=1e-6)
    assert torch.allclose(
        *(each.together(each.encode(facts)) for each in (network, deeper)), atol=1e-6
    )
    answers[1].sum().backward()
    assert all((block.to_out.weight.grad != 0).any() for block in deeper.encoder)


def test_a_network_never_grows_smaller():
    with pytest.raises(ValueError, match=r"depth \(1, 1\) is less than the network's \(2, 1\)"):
        grown(PatchNetwork(16, 2, (2, 1), 8), (1, 1))
