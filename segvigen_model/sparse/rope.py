"""Rotary position embedding over three axes, by adjacent channel pairs.

A head of width d has d/2 pairs: d/6 (rounded down) frequencies for x, as many for y and z; pairs
that are left over do not turn.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_PERIOD = 10_000.0


def rope_frequencies(head_dim: int, device: torch.device | str = "cpu") -> Tensor:
    """(head_dim // 6,) float32 angular frequencies of one axis."""
    count = head_dim // 6
    exponents = torch.arange(count, dtype=torch.float32, device=device) / count
    return 1.0 / torch.pow(MAX_PERIOD, exponents)


def rope_phases(coords: Tensor, head_dim: int) -> Tensor:
    """Return the rotation of every token's channel pairs.

    Args:
        coords: (T, 3) latent grid coordinates.
        head_dim: even width of a head.

    Returns:
        (T, head_dim / 2) complex64 of unit length.
    """
    frequencies = rope_frequencies(head_dim, coords.device)
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
