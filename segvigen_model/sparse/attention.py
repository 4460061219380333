"""Attention over packed sequences of different lengths: no padding, no mixing between assets.

On CUDA in half precision one variable-length kernel runs them all; elsewhere one
scaled-dot-product call per asset, or a single one when all lengths agree.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)
# Both take (q, k, v, ends of q, ends of k, longest of q, longest of k) and scale by 1 / sqrt(D).
VARLEN_KERNELS = (
    ("torch.nn.attention.varlen", "varlen_attn"),
    ("flash_attn", "flash_attn_varlen_func"),
)
CPU_DENSE_LIMIT = 2048  # keys; above this the full weight matrix no longer pays


class Lengths:
    """Sequence lengths of a packed batch, with what kernels want of them made once.

    Args:
        values: tokens per asset.
        device: where kernels will run.

    Attributes:
        is_uniform: whether all assets have equally many tokens.
        longest: tokens of the longest sequence.
        varlen: the device's variable-length kernel, or None.
    """

    def __init__(self, values: tuple[int, ...], device: torch.device | str) -> None:
        self.values = values
        self.device = torch.device(device)
        # Found here, not on use: compiled code would be tied to the very numbers it looked at.
        self.is_uniform = len(set(values)) == 1
        self.longest = max(values, default=0)
        self.varlen = find_varlen_kernel() if self.device.type == "cuda" else None

    @cached_property
    def ends(self) -> Tensor:
        """(B + 1,) int32 cumulated lengths, starting with 0."""
        sums = [0]
        for value in self.values:
            sums.append(sums[-1] + value)
        return torch.tensor(sums, dtype=torch.int32, device=self.device)

    @cached_property
    def batch_index(self) -> Tensor:
        """(T,) int64 asset of every token."""
        counts = torch.tensor(self.values, device=self.device)
        assets = torch.arange(len(self.values), device=self.device)
        return torch.repeat_interleave(assets, counts, output_size=sum(self.values))

    def spread_per_asset(self, per_asset: Tensor) -> Tensor:
        """(B, C) -> one row per token; a batch of one stays (1, C) and broadcasts."""
        if len(self.values) == 1:
            return per_asset
        return per_asset.index_select(0, self.batch_index)

    def add_scaled(self, base: Tensor, x: Tensor, factor: Tensor) -> Tensor:
        """Return base + x * factor.

        Args:
            base: (T, C), or (B, C) per asset.
            x: (T, C).
            factor: (B, C) per asset.
        """
        if len(self.values) == 1:
            return torch.addcmul(base, x, factor)
        if x.is_cuda:
            base = base if base.shape == x.shape else self.spread_per_asset(base)
            return torch.addcmul(base, x, self.spread_per_asset(factor))
        # On a CPU, broadcasting asset by asset beats writing the factors out per token.
        sizes = list(self.values)
        bases = torch.split(base, sizes if base.shape == x.shape else 1)
        parts = zip(bases, torch.split(x, sizes), torch.split(factor, 1), strict=True)
        return torch.cat([torch.addcmul(*part) for part in parts])


def attend_packed(
    q: Tensor, k: Tensor, v: Tensor, q_lengths: Lengths, kv_lengths: Lengths
) -> Tensor:
    """Attend within each asset.

    Args:
        q: (Tq, H, D).
        k: (Tk, H, D).
        v: (Tk, H, D).
        q_lengths: queries per asset.
        kv_lengths: keys per asset.

    Returns:
        (Tq, H, D).
    """
    if kv_lengths.longest == 1 and kv_lengths.is_uniform:
        return v.index_select(0, q_lengths.batch_index)  # attention over one token is that token
    kernel = q_lengths.varlen
    if kernel is not None and q.dtype in (torch.float16, torch.bfloat16):
        ends = q_lengths.ends, kv_lengths.ends
        out: Tensor = kernel(q, k, v, *ends, q_lengths.longest, kv_lengths.longest)
        return out
    if q_lengths.is_uniform and kv_lengths.is_uniform:
        return _attend_dense(q, k, v, len(q_lengths.values))
    parts = zip(
        torch.split(q, list(q_lengths.values)),
        torch.split(k, list(kv_lengths.values)),
        torch.split(v, list(kv_lengths.values)),
        strict=True,
    )
    return torch.cat([_attend_dense(*part, 1) for part in parts])


def _attend_dense(q: Tensor, k: Tensor, v: Tensor, batch: int) -> Tensor:
    q, k, v = (_pad_heads(x, batch) for x in (q, k, v))  # (B, H, T, D)
    is_training = torch.is_grad_enabled() and (q.requires_grad or v.requires_grad)
    if (
        is_training
        and q.dtype == torch.bfloat16
        and not q.is_cuda
        and k.shape[2] <= CPU_DENSE_LIMIT
    ):
        # The fused kernel's backward pass is about twice as slow here as plain products.
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        return (weights @ v).transpose(1, 2).flatten(0, 1)
    out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).flatten(0, 1)


def _pad_heads(x: Tensor, batch: int) -> Tensor:
    return x.view(batch, -1, *x.shape[1:]).transpose(1, 2)


@cache
def find_varlen_kernel() -> Any:
    """Find a variable-length kernel: torch's own, else flash-attn where installed, else None."""
    for module, name in VARLEN_KERNELS:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, OSError):
            logger.debug("varlen_kernel=absent module=%s", module)
    return None
