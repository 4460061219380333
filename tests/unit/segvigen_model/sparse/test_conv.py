"""Submanifold convolution: against a plain definition, in both backends, with gradients."""

from __future__ import annotations

import pytest
import torch

from segvigen_model.sparse import conv_native as native
from segvigen_model.sparse.conv import SparseConv3d, choose_backend, use_conv_backend
from segvigen_model.sparse.conv_native import convolve_native
from segvigen_model.sparse.tensor import SparseTensor


def plain_conv(feats, weight, neighbours):
    padded = torch.cat([feats, feats.new_zeros(1, feats.shape[1])])
    kernel = weight.reshape(len(weight), 27, -1)
    return torch.einsum("nvi,ovi->no", padded[neighbours.long()], kernel)


@pytest.fixture(params=[1 << 12, 4 << 20], ids=["many chunks", "one chunk"])
def _chunks(request, monkeypatch):
    monkeypatch.setattr(native, "CPU_CHUNK_BYTES", request.param)


def random_case(structure, dtype, channels=(5, 7)):
    generator = torch.Generator().manual_seed(1)
    feats = torch.randn(len(structure), channels[0], generator=generator, dtype=dtype)
    weight = torch.randn(channels[1], 3, 3, 3, channels[0], generator=generator, dtype=dtype)
    return feats.requires_grad_(), weight.requires_grad_()


@pytest.mark.usefixtures("_chunks")
def test_values_and_gradients_equal_the_definition(make_structure):
    structure = make_structure(150)
    feats, weight = random_case(structure, torch.float64)
    upstream = torch.randn(len(structure), 7, dtype=torch.float64)
    found = convolve_native(feats, weight, structure.neighbours)
    wanted = plain_conv(feats, weight, structure.neighbours)
    assert torch.allclose(found, wanted, atol=1e-10)
    got = torch.autograd.grad(found, (feats, weight), upstream)
    want = torch.autograd.grad(wanted, (feats, weight), upstream)
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_float32_gradients_are_close_to_float64(make_structure):
    structure = make_structure(150)
    feats, weight = random_case(structure, torch.float64)
    exact = torch.autograd.grad(
        convolve_native(feats, weight, structure.neighbours).square().sum(), (feats, weight)
    )
    single = [x.detach().float().requires_grad_() for x in (feats, weight)]
    found = torch.autograd.grad(
        convolve_native(*single, structure.neighbours).square().sum(), single
    )
    for a, b in zip(found, exact, strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 1e-5


def test_native_equals_spconv(make_structure):
    pytest.importorskip("spconv.pytorch", reason="spconv is not installed")
    structure = make_structure(150)
    layer = SparseConv3d(8, 16)
    x = SparseTensor(torch.randn(len(structure), 8), structure)
    with torch.no_grad():
        plain = layer(x).feats
        with use_conv_backend("spconv"):
            other = layer(x).feats
            again = layer(x).feats
    assert float((plain - other).abs().max()) < 1e-5
    assert torch.equal(other, again)


def test_spconv_refuses_to_train_on_a_cpu(make_structure):
    pytest.importorskip("spconv.pytorch", reason="spconv is not installed")
    structure = make_structure(20)
    x = SparseTensor(torch.randn(len(structure), 8), structure)
    with use_conv_backend("spconv"), pytest.raises(ValueError, match="native backend"):
        SparseConv3d(8, 8)(x)


def test_a_cpu_uses_the_native_backend():
    assert choose_backend(torch.device("cpu")) == "native"


def test_autocast_computes_in_bfloat16(make_structure):
    structure = make_structure(40)
    layer = SparseConv3d(4, 8)
    x = SparseTensor(torch.randn(len(structure), 4), structure)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x).feats
    assert out.dtype == torch.bfloat16
    assert float((out.float() - layer(x).feats).detach().abs().max()) < 0.05


def test_no_voxels_give_no_rows():
    from segvigen_model.sparse.structure import Structure

    empty = Structure(torch.zeros(0, 4, dtype=torch.int32), batch_size=1)
    layer = SparseConv3d(4, 8)
    out = layer(SparseTensor(torch.zeros(0, 4, requires_grad=True), empty)).feats
    out.sum().backward()
    assert out.shape == (0, 8)
    assert not layer.weight.grad.any()
