"""Building blocks of the autoencoders: ConvNeXt block, space-to-channel down, channel-to-space up.

Parameter names equal the official ones. Norms are computed in float32 whatever the torso's dtype.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvigen_model.sparse.conv import SparseConv3d
from segvigen_model.sparse.tensor import SparseTensor

NORM_EPS = 1e-6

_Module = TypeVar("_Module", bound=nn.Module)


class LayerNorm32(nn.LayerNorm):
    """LayerNorm in float32 that returns its input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C) over channels."""
        return super().forward(x.float()).to(x.dtype)


class ConvNeXtBlock(nn.Module):
    """x + mlp(norm(conv(x))).

    Args:
        channels: C, in and out.
        mlp_ratio: hidden width of the mlp over C.
    """

    def __init__(self, channels: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.norm = LayerNorm32(channels, eps=NORM_EPS)
        self.conv = SparseConv3d(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.SiLU(), _zero_weights(nn.Linear(hidden, channels))
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, C) -> (N, C)."""
        h = self.norm(self.conv(x).feats)
        return x.replace(x.feats + self.mlp(h))


class DownBlock(nn.Module):
    """Residual block that halves the grid by folding 2x2x2 voxels into channels.

    Args:
        channels: Ci.
        out_channels: Co; a multiple of 8 that divides 8 * Ci.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        if out_channels % 8 or (8 * channels) % out_channels:
            raise ValueError(f"cannot fold {channels} into {out_channels} channels")
        self.out_channels = out_channels
        self.norm1 = LayerNorm32(channels, eps=NORM_EPS)
        self.norm2 = LayerNorm32(out_channels, eps=NORM_EPS, elementwise_affine=False)
        self.conv1 = SparseConv3d(channels, out_channels // 8)
        self.conv2 = _zero_weights(SparseConv3d(out_channels, out_channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, Ci) -> (M, Co) on the coarser structure."""
        h = self.conv1(x.replace(F.silu(self.norm1(x.feats)))).fold()
        h = self._run_second_half(h)
        folded = x.fold().feats  # (M, 8 Ci)
        skip = folded.view(len(folded), self.out_channels, -1).mean(dim=-1)
        return h.replace(h.feats + skip)

    def _run_second_half(self, h: SparseTensor) -> SparseTensor:
        out: SparseTensor = self.conv2(h.replace(F.silu(self.norm2(h.feats))))
        return out


class UpBlock(nn.Module):
    """Residual block that doubles the grid by unfolding channels into 2x2x2 voxels.

    Args:
        channels: Ci, a multiple of 8.
        out_channels: Co; a multiple of Ci / 8.
        predicts_subdivision: whether it has a head that says which children exist.
    """

    def __init__(self, channels: int, out_channels: int, predicts_subdivision: bool) -> None:
        super().__init__()
        if channels % 8 or out_channels % (channels // 8):
            raise ValueError(f"cannot unfold {channels} into {out_channels} channels")
        self.repeats = out_channels // (channels // 8)
        self.norm1 = LayerNorm32(channels, eps=NORM_EPS)
        self.norm2 = LayerNorm32(out_channels, eps=NORM_EPS, elementwise_affine=False)
        self.conv1 = SparseConv3d(channels, out_channels * 8)
        self.conv2 = _zero_weights(SparseConv3d(out_channels, out_channels))
        self.to_subdiv = nn.Linear(channels, 8) if predicts_subdivision else None

    def forward(
        self, x: SparseTensor, subdivision: Tensor | None = None
    ) -> tuple[SparseTensor, SparseTensor | None]:
        """Unfold x onto the finer structure.

        Args:
            x: (M, Ci).
            subdivision: (M, 8) bool children to make. A finer level that x's structure already
                knows wins over it; with neither, the block's own prediction decides.

        Returns:
            (N, Co) on the finer structure, and the block's logits (M, 8) or None.
        """
        logits = (
            None if self.to_subdiv is None else x.replace(_apply_linear(self.to_subdiv, x.feats))
        )
        h = self.conv1(x.replace(F.silu(self.norm1(x.feats))))
        structure = x.structure
        if structure.fine is None:
            structure = structure.unfold(_decide_subdivision(subdivision, logits))
        h = SparseTensor(h.feats, structure).unfold()
        h = self.conv2(h.replace(F.silu(self.norm2(h.feats))))
        skip = SparseTensor(x.feats, structure).unfold().feats  # (N, Ci / 8)
        return h.replace(h.feats + skip.repeat_interleave(self.repeats, dim=1)), logits


def _decide_subdivision(subdivision: Tensor | None, logits: SparseTensor | None) -> Tensor:
    if subdivision is not None:
        return subdivision
    if logits is None:
        raise ValueError("this decoder predicts no structure: give guidance or a known one")
    return logits.feats > 0


def _apply_linear(linear: nn.Linear, feats: Tensor) -> Tensor:
    """Run a layer whose dtype may differ from the features'."""
    out: Tensor = linear(feats.to(linear.weight.dtype))
    return out


def _zero_weights(module: _Module) -> _Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module
