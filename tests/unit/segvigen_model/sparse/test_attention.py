"""Packed attention and rotary embedding."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from segvigen_model.sparse.attention import Lengths, attend_packed, find_varlen_kernel
from segvigen_model.sparse.rope import apply_normed_rope, apply_rope, compute_rope_phases


@pytest.mark.parametrize(("q_sizes", "k_sizes"), [((3, 5), (7, 2)), ((4, 4), (6, 6)), ((5,), (1,))])
def test_assets_do_not_see_each_other(q_sizes, k_sizes):
    q, k, v = (torch.randn(sum(n), 2, 8) for n in (q_sizes, k_sizes, k_sizes))
    found = attend_packed(q, k, v, Lengths(q_sizes, "cpu"), Lengths(k_sizes, "cpu"))
    parts = zip(q.split(q_sizes), k.split(k_sizes), v.split(k_sizes), strict=True)
    wanted = [
        torch.einsum("hqk,khd->qhd", (torch.einsum("qhd,khd->hqk", a, b) / 8**0.5).softmax(-1), c)
        for a, b, c in parts
    ]
    assert torch.allclose(found, torch.cat(wanted), atol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 5, 1), (9,)])
def test_scaled_add_is_per_asset(sizes):
    lengths, total = Lengths(sizes, "cpu"), sum(sizes)
    x, factor = torch.randn(total, 4), torch.randn(len(sizes), 4)
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    for base in (torch.randn(total, 4), torch.randn(len(sizes), 4)):
        wide = base if len(base) == total else base[index]
        assert torch.allclose(lengths.add_scaled(base, x, factor), wide + x * factor[index])
    assert lengths.ends.tolist() == [0, *torch.tensor(sizes).cumsum(0).tolist()]


def test_rotation_depends_on_differences_only():
    coords = torch.randint(0, 20, (6, 3))
    q, k = torch.randn(6, 2, 32), torch.randn(6, 2, 32)

    def scores(shift):
        phases = compute_rope_phases(coords + shift, 32)
        return torch.einsum("qhd,khd->hqk", apply_rope(q, phases), apply_rope(k, phases))

    shift = torch.tensor([3, 1, 5])
    assert torch.allclose(scores(0), scores(shift), atol=1e-4)
    assert not torch.allclose(scores(0), scores(shift * (torch.arange(6) > 2)[:, None]), atol=1e-2)


def test_normed_rope_equals_its_parts_with_gradients():
    x = torch.randn(7, 3, 16, requires_grad=True)
    gain = torch.randn(3, 16, requires_grad=True)
    phases, upstream = compute_rope_phases(torch.randint(0, 9, (7, 3)), 16), torch.randn(7, 3, 16)
    found = apply_normed_rope(x, gain, phases)
    wanted = apply_rope(F.normalize(x, dim=-1) * gain, phases)
    assert torch.allclose(found, wanted, atol=1e-6)
    kept = upstream.clone()
    got = torch.autograd.grad(found, (x, gain), upstream)
    want = torch.autograd.grad(wanted, (x, gain), upstream)
    assert torch.equal(kept, upstream)
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_zero_head_stays_zero():
    x = torch.zeros(1, 1, 6, requires_grad=True)
    out = apply_normed_rope(x, torch.ones(1, 6), compute_rope_phases(torch.ones(1, 3), 6))
    out.sum().backward()
    assert not out.any()
    assert bool(torch.isfinite(x.grad).all())


@pytest.fixture
def _fresh_kernel():
    find_varlen_kernel.cache_clear()
    yield
    find_varlen_kernel.cache_clear()


@pytest.mark.usefixtures("_fresh_kernel")
def test_flash_attention_is_taken_where_torch_has_no_kernel_of_its_own(monkeypatch):
    def flash_attn_varlen_func():
        raise AssertionError("only looked up")

    flash = SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    monkeypatch.setitem(sys.modules, "flash_attn", flash)
    assert find_varlen_kernel() is flash_attn_varlen_func
    find_varlen_kernel.cache_clear()
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert find_varlen_kernel() is None


@pytest.mark.usefixtures("_fresh_kernel")
def test_torchs_kernel_comes_first_and_a_cpu_uses_none():
    module = pytest.importorskip("torch.nn.attention.varlen")
    assert find_varlen_kernel() is module.varlen_attn
    assert Lengths((3, 4), "cpu").varlen is None


def test_a_kernel_gets_packed_rows_and_their_ends():
    """A plain stand-in for the kernels, called the way both are called."""

    def kernel(q, k, v, q_ends, k_ends, most_q, most_k):
        assert (most_q, most_k) == (5, 7)
        parts = []
        for asset in range(2):
            rows, columns = (slice(*ends[asset : asset + 2].tolist()) for ends in (q_ends, k_ends))
            scores = torch.einsum("qhd,khd->hqk", q[rows], k[columns]) / q.shape[-1] ** 0.5
            parts.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[columns]))
        return torch.cat(parts)

    q, k, v = (torch.randn(n, 2, 8).bfloat16() for n in (8, 9, 9))
    plain = [Lengths((3, 5), "cpu"), Lengths((7, 2), "cpu")]
    wanted = attend_packed(q, k, v, *plain)
    plain[0].varlen = kernel
    assert torch.allclose(attend_packed(q, k, v, *plain), wanted, atol=2e-2)
    assert attend_packed(q.float(), k.float(), v.float(), *plain).dtype == torch.float32
