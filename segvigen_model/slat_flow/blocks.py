"""Layers of the flow transformer: attention with normed, rotated heads, mlp, modulated block.

Parameter names equal the official ones. Norms, head norms and rotations run in float32 whatever
the torso's dtype. Tokens of several assets are packed in one (T, C) array.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvigen_model.sparse.attention import Lengths, attend_packed
from segvigen_model.sparse.rope import apply_normed_rope, apply_rope, compute_rope_phases
from segvigen_model.vae.blocks import NORM_EPS, LayerNorm32


class TokenLayout:
    """Where packed tokens stand and which of them the output needs; made once per sample.

    Args:
        coords: (T, 3) latent grid coordinates, tokens of one asset contiguous.
        lengths: tokens per asset.
        head_dim: width of an attention head.
        kept: (K,) int64 rows that the output needs, ascending; None = all.
        kept_lengths: kept rows per asset.
    """

    # Token layout, and the rows that the last block keeps.
    def __init__(
        self,
        coords: Tensor,
        lengths: tuple[int, ...],
        head_dim: int,
        kept: Tensor | None = None,
        kept_lengths: tuple[int, ...] | None = None,
    ) -> None:
        self.lengths = Lengths(lengths, coords.device)
        self.kept = kept
        self.kept_lengths = (
            self.lengths if kept_lengths is None else Lengths(kept_lengths, coords.device)
        )
        self.phases = compute_rope_phases(coords, head_dim)  # (T, head_dim / 2) complex64
        self.kept_phases = self.keep(self.phases)  # (K, head_dim / 2)

    def keep(self, rows: Tensor) -> Tensor:
        """(T, ...) -> (K, ...)."""
        return rows if self.kept is None else rows.index_select(0, self.kept)


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """Condition tokens as every block's cross-attention wants them; constant while sampling.

    Attributes:
        keys: per block, (L, H, D).
        values: per block, (L, H, D).
        lengths: condition tokens per asset.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    lengths: Lengths

    def select_block(self, index: int) -> BlockContext:
        """Return what one block needs; a block that knew its number would be compiled anew."""
        return BlockContext(self.keys[index], self.values[index], self.lengths)


@dataclass(frozen=True, slots=True, eq=False)
class BlockContext:
    """Condition keys (L, H, D) and values (L, H, D) of one block, and tokens per asset."""

    key: Tensor
    value: Tensor
    lengths: Lengths


class HeadNorm(nn.Module):
    """Unit-length heads times a learned gain, in float32."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(num_heads, head_dim))

    @property
    def gain(self) -> Tensor:
        """(H, D) factor of unit-length heads."""
        gain: Tensor = self.gamma * self.gamma.shape[1] ** 0.5
        return gain

    def forward(self, x: Tensor) -> Tensor:
        """(T, H, D) -> (T, H, D) float32."""
        return F.normalize(x.float(), dim=-1) * self.gain


class SelfAttention(nn.Module):
    """Attention among the tokens of an asset, heads normed and rotated."""

    def __init__(self, channels: int, num_heads: int, has_head_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)
        if has_head_norm:
            self.q_rms_norm = HeadNorm(num_heads, channels // num_heads)
            self.k_rms_norm = HeadNorm(num_heads, channels // num_heads)
        self.has_head_norm = has_head_norm

    def forward(self, x: Tensor, layout: TokenLayout, only_kept: bool) -> Tensor:
        """(T, C) -> (T, C), or (K, C) for the kept rows only."""
        if only_kept and layout.kept is not None:
            # All tokens are attended to, but only the kept ones attend.
            channels = x.shape[1]
            weight, bias = self.to_qkv.weight, self.to_qkv.bias
            q = _split_heads(
                F.linear(layout.keep(x), weight[:channels], bias[:channels]), self.num_heads
            )
            kv = F.linear(x, weight[channels:], bias[channels:])
            k, v = _split_heads(kv, 2 * self.num_heads).chunk(2, dim=1)
            q_lengths, q_phases = layout.kept_lengths, layout.kept_phases
        else:
            q, k, v = _split_heads(self.to_qkv(x), 3 * self.num_heads).chunk(3, dim=1)
            q_lengths, q_phases = layout.lengths, layout.phases
        if self.has_head_norm:
            q = apply_normed_rope(q, self.q_rms_norm.gain, q_phases)
            k = apply_normed_rope(k, self.k_rms_norm.gain, layout.phases)
        else:
            q = apply_rope(q, q_phases).to(v.dtype)
            k = apply_rope(k, layout.phases).to(v.dtype)
        out = attend_packed(q, k, v, q_lengths, layout.lengths)
        projected: Tensor = self.to_out(out.flatten(1))
        return projected


class CrossAttention(nn.Module):
    """Attention from tokens to condition tokens."""

    def __init__(self, channels: int, cond_channels: int, num_heads: int, norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(cond_channels, 2 * channels)
        self.to_out = nn.Linear(channels, channels)
        if norm:
            self.q_rms_norm = HeadNorm(num_heads, channels // num_heads)
            self.k_rms_norm = HeadNorm(num_heads, channels // num_heads)
        self.has_head_norm = norm

    def project_keys_values(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """(L, cond_channels) -> keys and values, (L, H, D) each."""
        cond = cond.to(self.to_kv.weight.dtype)
        k, v = _split_heads(self.to_kv(cond), 2 * self.num_heads).chunk(2, dim=1)
        if self.has_head_norm:
            k = self.k_rms_norm(k).to(v.dtype)
        return k.contiguous(), v.contiguous()

    def forward(self, x: Tensor, context: BlockContext, lengths: Lengths) -> Tensor:
        """(T, C) -> (T, C)."""
        q = _split_heads(self.to_q(x), self.num_heads)
        k, v = context.key, context.value
        if self.has_head_norm:
            q = self.q_rms_norm(q)
        out = attend_packed(q.to(v.dtype), k, v, lengths, context.lengths)
        projected: Tensor = self.to_out(out.flatten(1))
        return projected


class FeedForward(nn.Module):
    """Two linear layers with a tanh GELU between."""

    def __init__(self, channels: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(T, C) -> (T, C)."""
        out: Tensor = self.mlp(x)
        return out


class FlowBlock(nn.Module):
    """Modulated self-attention, plain cross-attention, modulated mlp.

    Args:
        channels: C.
        cond_channels: width of condition tokens.
        num_heads: heads of both attentions.
        mlp_ratio: hidden width of the mlp over C.
        has_head_norm: head norms in self-attention.
        has_cross_head_norm: head norms in cross-attention.
    """

    def __init__(
        self,
        channels: int,
        cond_channels: int,
        num_heads: int,
        mlp_ratio: float,
        *,
        has_head_norm: bool,
        has_cross_head_norm: bool,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels, eps=NORM_EPS, elementwise_affine=False)
        self.norm2 = LayerNorm32(channels, eps=NORM_EPS)
        self.norm3 = LayerNorm32(channels, eps=NORM_EPS, elementwise_affine=False)
        self.self_attn = SelfAttention(channels, num_heads, has_head_norm)
        self.cross_attn = CrossAttention(channels, cond_channels, num_heads, has_cross_head_norm)
        self.mlp = FeedForward(channels, mlp_ratio)
        self.modulation = nn.Parameter(torch.randn(6 * channels) / channels**0.5)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        context: BlockContext,
        layout: TokenLayout,
        *,
        only_kept: bool = False,
    ) -> Tensor:
        """Run the block.

        Args:
            x: (T, C).
            modulation: (B, 6C), shared by all blocks; the block adds its own.
            context: the block's condition keys and values.
            layout: the tokens.
            only_kept: compute (K, C), the kept rows only.
        """
        parts = (modulation + self.modulation).to(x.dtype).chunk(6, dim=1)
        lengths = layout.lengths
        h = lengths.add_scaled(parts[0], self.norm1(x), 1 + parts[1])
        h = self.self_attn(h, layout, only_kept)
        if only_kept:
            x, lengths = layout.keep(x), layout.kept_lengths
        x = lengths.add_scaled(x, h.to(x.dtype), parts[2])
        x = x + self.cross_attn(self.norm2(x), context, lengths).to(x.dtype)
        h = lengths.add_scaled(parts[3], self.norm3(x), 1 + parts[4])
        return lengths.add_scaled(x, self.mlp(h).to(x.dtype), parts[5])


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(T, H * D) -> (T, H, D)."""
    return x.view(len(x), num_heads, -1)
