"""Convolution on CUDA: native against the CPU, spconv against native."""

from __future__ import annotations

import pytest
import torch

from segvigen_model.sparse.conv_native import convolve_native
from segvigen_model.sparse.structure import Structure

TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def inputs(structure, dtype, device):
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(len(structure), 32, generator=generator)
    weight = torch.randn(48, 3, 3, 3, 32, generator=generator) / (27 * 32) ** 0.5
    moved = Structure(structure.coords.to(device))
    return feats.to(device, dtype), weight.to(device, dtype), moved


def test_neighbours_equal_the_cpus(device, shell):
    structure = shell(48)
    moved = Structure(structure.coords.to(device))
    assert torch.equal(moved.neighbours.cpu(), structure.neighbours)
    assert torch.equal(moved.fold().coords.cpu(), structure.fold().coords)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_native_equals_the_cpu(device, shell, dtype):
    structure = shell(32)
    feats, weight, _ = inputs(structure, torch.float32, "cpu")
    wanted = convolve_native(feats, weight, structure.neighbours)
    feats, weight, moved = inputs(structure, dtype, device)
    got = convolve_native(feats, weight, moved.neighbours).float().cpu()
    assert (got - wanted).abs().max() < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_spconv_equals_native(device, shell, dtype):
    pytest.importorskip("spconv")
    if device.type != "cuda":
        pytest.skip("spconv's CPU build is compared in the unit tests")
    from segvigen_model.sparse.conv_spconv import convolve_spconv

    feats, weight, moved = inputs(shell(64), dtype, device)
    native = convolve_native(feats, weight, moved.neighbours)
    foreign = convolve_spconv(feats, weight, moved)
    # spconv may round products to TF32 in float32
    tolerance = 5e-3 if dtype == torch.float32 else TOLERANCES[dtype]
    assert (native.float() - foreign.float()).abs().max() < tolerance


def test_native_gradients_equal_the_cpus(device, shell):
    grads = []
    for place in ("cpu", device):
        feats, weight, moved = inputs(shell(24), torch.float32, place)
        feats.requires_grad_(), weight.requires_grad_()
        convolve_native(feats, weight, moved.neighbours).square().sum().backward()
        grads.append((feats.grad.cpu(), weight.grad.cpu()))
    for ours, wanted in zip(grads[1], grads[0], strict=True):
        assert torch.allclose(ours, wanted, rtol=1e-3, atol=1e-3)
