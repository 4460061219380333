"""State of long runs: what is stored comes back, and the live tensors equal what is stored."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from segvigen_model.errors import CheckpointMismatch
from segvigen_model.interactive.patch_network import PatchNetwork
from segvigen_model.training.optimizers import compute_rate_factor, make_optimizers
from segvigen_model.training.run_state import (
    Progress,
    decode_values,
    encode_linear,
    encode_log,
    load_state,
    save_state,
)
from segvigen_model.training.runs import Average


def trained(kind, seed=0, steps=3):
    torch.manual_seed(seed)
    network = PatchNetwork(64, 2, (1, 1), 8)
    optimizers, average = make_optimizers(network, kind, 1e-2), Average(network, 0.9)
    for step in range(steps):
        for value in network.parameters():
            value.grad = torch.randn_like(value)
        for optimizer in optimizers:
            optimizer.step()
        average.update(network, step)
    return network, average, optimizers


def tensors_of_run(network, average, optimizers):
    yield from network.state_dict().items()
    yield from ((f"average {k}", v) for k, v in average.values.items())
    for number, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            yield from ((f"{number} {index} {k}", v) for k, v in moments.items())


def test_linear_codes_are_off_by_less_than_a_half_step_of_their_block():
    values = torch.randn(1000) * torch.logspace(-6, 3, 1000)
    back = decode_values(encode_linear(values), values.shape)
    for start in range(0, 1000, 128):
        block = slice(start, start + 128)
        assert (back - values)[block].abs().max() <= values[block].abs().max() / 253


def test_log_codes_keep_zero_and_the_size_of_small_values():
    values = torch.logspace(-9, 0, 500)
    values[7] = 0.0
    back = decode_values(encode_log(values), values.shape)
    assert back[7] == 0
    is_kept = values > 0
    assert (back[is_kept] / values[is_kept] - 1).abs().max() < 0.05


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_restored_run_equals_the_live_one(kind, tmp_path):
    live = trained(kind)
    before = {name: value.clone() for name, value in tensors_of_run(*live)}
    progress = Progress(step=3, cpu_s=1.5, best=0.4, cooldown_step=2, sizes="small")
    save_state(tmp_path / "state", progress, *live)
    other = trained(kind, seed=1)
    assert load_state(tmp_path / "state", *other, "small") == progress
    restored = dict(tensors_of_run(*other))
    for name, value in tensors_of_run(*live):
        assert torch.equal(value, restored[name]), name
        scale = before[name].abs().max()
        assert (value - before[name]).abs().max() <= 0.05 * scale + 1e-12, name
    size = sum(value.numel() for value in live[0].parameters())
    assert (tmp_path / "state").stat().st_size < 8 * size


def test_a_run_without_a_file_begins_anew(tmp_path):
    assert load_state(tmp_path / "none", *trained("adamw"), "small") == Progress(sizes="small")


def test_a_state_of_another_run_is_refused(tmp_path):
    path = tmp_path / "state"
    save_state(path, Progress(sizes="width 64"), *trained("adamw"))
    with pytest.raises(CheckpointMismatch, match="belongs to a run of width 64, not width 128"):
        load_state(path, *trained("adamw"), "width 128")
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointMismatch, match="format None"):
        load_state(path, *trained("adamw"), "width 64")
    path.write_bytes(b"cut short")
    with pytest.raises(CheckpointMismatch, match="no run state"):
        load_state(path, *trained("adamw"), "width 64")


def test_muon_takes_the_matrices_of_blocks_only():
    network = PatchNetwork(16, 2, (1, 1), 8)
    adamw, muon = make_optimizers(network, "muon", 1e-3)
    shapes = {tuple(p.shape) for p in muon.param_groups[0]["params"]}
    assert shapes == {(48, 16), (16, 16), (64, 16), (16, 64)}
    count = sum(len(each.param_groups[0]["params"]) for each in (adamw, muon))
    assert count == len(list(network.parameters()))
    with pytest.raises(ValueError, match="'sgd' is not one of adamw, muon"):
        make_optimizers(network, "sgd", 1e-3)


def test_the_rate_warms_up_stays_and_cools_down():
    common = {"warmup": 10, "cooldown_steps": 100}
    assert compute_rate_factor(0, cooldown_step=-1, **common) == pytest.approx(0.1)
    assert compute_rate_factor(10**6, cooldown_step=-1, **common) == 1.0
    cooling = [
        compute_rate_factor(step, cooldown_step=1000, **common) for step in (999, 1000, 1025, 1100)
    ]
    assert cooling == pytest.approx([1.0, 1.0, 0.5, 0.0])
