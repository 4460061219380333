"""Rotary position embedding over three axes, by adjacent channel pairs, with head norm.

A head of width d has d/2 pairs: d/6 (rounded down) frequencies for x, as many for y and z; pairs
that are left over do not turn. Norm, gain and rotation are one differentiable function, because
on a CPU these memory-bound steps would cost as much as the matrix products around them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MAX_PERIOD = 10_000.0
MIN_NORM = 1e-12  # a zero head stays zero


def compute_rope_frequencies(head_dim: int, device: torch.device | str = "cpu") -> Tensor:
    """(head_dim // 6,) float32 angular frequencies of one axis."""
    count = head_dim // 6
    exponents = torch.arange(count, dtype=torch.float32, device=device) / count
    return 1.0 / torch.pow(MAX_PERIOD, exponents)


def compute_rope_phases(coords: Tensor, head_dim: int) -> Tensor:
    """Return the rotation of every token's channel pairs.

    Args:
        coords: (T, 3) latent grid coordinates.
        head_dim: even width of a head.

    Returns:
        (T, head_dim / 2) complex64 of unit length.
    """
    frequencies = compute_rope_frequencies(head_dim, coords.device)
    angles = (coords.float()[:, :, None] * frequencies).reshape(len(coords), -1)
    still = angles.new_zeros(len(coords), head_dim // 2 - angles.shape[1])
    angles = torch.cat([angles, still], dim=1)
    return torch.polar(torch.ones_like(angles), angles)


def apply_rope(x: Tensor, phases: Tensor) -> Tensor:
    """Turn the channel pairs of x.

    Args:
        x: (T, H, D) of any dtype.
        phases: (T, D / 2) complex64.

    Returns:
        (T, H, D) float32.
    """
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * phases[:, None, :]).flatten(-2)


def apply_normed_rope(x: Tensor, gain: Tensor, phases: Tensor) -> Tensor:
    """Scale heads to unit length, multiply with a gain, turn their channel pairs.

    Args:
        x: (T, H, D) of any dtype.
        gain: (H, D) float32.
        phases: (T, D / 2) complex64.

    Returns:
        (T, H, D) in the dtype of x, computed in float32.
    """
    out: Tensor = _NormedRope.apply(x, gain, phases)  # type: ignore[no-untyped-call]
    return out


class _NormedRope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, phases: Tensor) -> Tensor:
        wide = x.float()
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).clamp_min_(MIN_NORM)
        inverse.reciprocal_()
        unit = wide * inverse
        ctx.save_for_backward(unit, inverse, gain, phases)
        ctx.dtype = x.dtype
        return _rotate_pairs(unit * gain, phases).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, inverse, gain, phases = ctx.saved_tensors
        # clone: float() may hand the caller's own gradient through, and the turn is in place
        grad = _rotate_pairs(grads[0].to(torch.float32, copy=True).contiguous(), phases.conj())
        overlap = grad * unit
        grad_gain = overlap.sum(dim=0)
        along = overlap.mul_(gain).sum(dim=-1, keepdim=True)
        grad *= gain
        grad.addcmul_(unit, along, value=-1.0)
        grad *= inverse
        return grad.to(ctx.dtype), grad_gain, None


def _rotate_pairs(x: Tensor, phases: Tensor) -> Tensor:
    """Turn (T, H, D) float32 in place."""
    pairs = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
    pairs *= phases[:, None, :]
    return x
