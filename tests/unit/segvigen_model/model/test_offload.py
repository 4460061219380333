"""Networks visit a device and come home untouched; the meta device stands in for a small GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from segvigen_model.config import LimitConfig, SegmenterConfig
from segvigen_model.model import inference, offload
from segvigen_model.model.offload import is_offload_needed, on_device


def where(module: nn.Module) -> set[str]:
    return {value.device.type for value in [*module.parameters(), *module.buffers()]}


def test_all_weights_visit_and_return(tiny_model):
    module = tiny_model.dit
    before = dict(module.named_parameters())
    with on_device(module, "meta") as visiting:
        assert visiting is module
        assert where(module) == {"meta"}
    after = dict(module.named_parameters())
    assert all(after[name] is value for name, value in before.items())
    assert list(after) == list(before)


def test_they_return_after_an_error():
    module = nn.BatchNorm1d(3)
    weight, mean = module.weight, module.running_mean
    with pytest.raises(ZeroDivisionError), on_device(module, "meta"):
        assert where(module) == {"meta"}
        _ = 1 / 0
    assert module.weight is weight
    assert module.running_mean is mean


def test_a_network_on_its_device_is_left_alone():
    module = nn.Linear(2, 2)
    weight = module.weight
    with on_device(module, "cpu"):
        assert module.weight is weight


def test_half_a_move_is_undone(monkeypatch):
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = list(module.parameters())
    calls = []

    def failing(value, device):
        calls.append(value)
        if len(calls) == 3:
            raise torch.cuda.OutOfMemoryError
        return value.to(device)

    monkeypatch.setattr(offload, "_copy_to_device", failing)
    with pytest.raises(torch.cuda.OutOfMemoryError), on_device(module, "meta"):
        pass
    assert all(a is b for a, b in zip(module.parameters(), before, strict=True))


def test_only_one_network_at_a_time_is_on_the_device(tiny_model, monkeypatch):
    """Record which networks are out while an asset is encoded and drawn."""
    from contextlib import contextmanager

    from segvigen_model.datasets.procedural import CATEGORIES, make_asset
    from segvigen_model.ovoxel import mesh_to_ovoxel

    names = {id(module): name for name, module in tiny_model.list_modules().items()}
    out, log = [], []

    @contextmanager
    def recorded(module, device):
        out.append(names[id(module)])
        log.append(tuple(out))
        yield module
        out.pop()

    monkeypatch.setattr(inference, "on_device", recorded)
    mesh = make_asset(CATEGORIES[0], 0).mesh
    encoding = inference.encode_voxels(tiny_model, mesh_to_ovoxel(mesh, 32))
    inference.draw_colorings(tiny_model, encoding, num_draws=2, num_steps=1, seed=0)
    assert log == [("shape_encoder",), ("tex_encoder",), ("dit",), ("tex_decoder",)]


def test_bounded_batches_give_the_same_answer(tiny_model):
    from segvigen_model.datasets.procedural import CATEGORIES, make_asset
    from segvigen_model.ovoxel import mesh_to_ovoxel

    mesh = make_asset(CATEGORIES[0], 0).mesh
    encoding = inference.encode_voxels(tiny_model, mesh_to_ovoxel(mesh, 32))
    draws = {"num_draws": 3, "num_steps": 2, "seed": 4}
    together = inference.draw_colorings(tiny_model, encoding, **draws)
    small = SegmenterConfig(limits=LimitConfig(max_batch_tokens=1, max_decoded_voxels=1))
    bounded = replace(tiny_model, config=replace(tiny_model.config, segmenter=small))
    alone = inference.draw_colorings(bounded, encoding, **draws)
    assert np.allclose(together, alone, atol=1e-5)


def test_a_cpu_never_offloads():
    assert not is_offload_needed("cpu")


def test_small_memory_offloads(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (12 << 30, 12 << 30))
    assert is_offload_needed("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (23 << 30, 24 << 30))
    assert not is_offload_needed("cuda")
