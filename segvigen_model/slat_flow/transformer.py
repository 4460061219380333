"""The texture flow transformer: predicts a velocity for every latent token.

Parameter names equal the official ones. The last block computes only the tokens whose output is
wanted; condition keys, rotations and lengths are made once by the caller and reused by all steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvigen_model.slat_flow.blocks import Context, FlowBlock, TokenLayout
from segvigen_model.sparse.attention import Lengths
from segvigen_model.sparse.tensor import SparseTensor

TIME_CHANNELS = 256
TIME_MAX_PERIOD = 10_000.0


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """Sizes of the flow transformer.

    Attributes:
        in_channels: texture latent + shape latent.
        out_channels: texture latent.
        model_channels: width C.
        cond_channels: width of condition tokens.
        num_blocks: depth.
        num_heads: C / num_heads must be even.
        mlp_ratio: hidden width of the mlp over C.
        has_head_norm: head norms in self-attention.
        has_cross_head_norm: head norms in cross-attention.
    """

    in_channels: int
    out_channels: int
    model_channels: int
    cond_channels: int
    num_blocks: int
    num_heads: int
    mlp_ratio: float = 4.0
    has_head_norm: bool = True
    has_cross_head_norm: bool = True

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.model_channels // self.num_heads


def embed_time(t: Tensor, channels: int = TIME_CHANNELS) -> Tensor:
    """(B,) times -> (B, channels) cosines, then sines, of falling frequencies."""
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(TIME_MAX_PERIOD) * steps)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


class TimeEmbedder(nn.Module):
    """(B,) times in 0..1000 -> (B, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(TIME_CHANNELS, channels), nn.SiLU(), nn.Linear(channels, channels)
        )

    def forward(self, t: Tensor) -> Tensor:
        """Embed times."""
        out: Tensor = self.mlp(embed_time(t))
        return out


class SLatFlowModel(nn.Module):
    """Flow transformer over packed latent tokens."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        width = config.model_channels
        self.t_embedder = TimeEmbedder(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.input_layer = nn.Linear(config.in_channels, width)
        self.blocks = nn.ModuleList(
            FlowBlock(
                width,
                config.cond_channels,
                config.num_heads,
                config.mlp_ratio,
                has_head_norm=config.has_head_norm,
                has_cross_head_norm=config.has_cross_head_norm,
            )
            for _ in range(config.num_blocks)
        )
        self.out_layer = nn.Linear(width, config.out_channels)
        _init_weights(self)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the torso."""
        layer: FlowBlock = self.blocks[0]  # type: ignore[assignment]
        return layer.mlp.mlp[0].weight.dtype  # type: ignore[return-value]

    def prepare_context(self, cond: Tensor | Sequence[Tensor]) -> Context:
        """Prepare condition tokens for every block.

        Args:
            cond: (B, L, D), or one (L_b, D) per asset.
        """
        per_asset = [*cond]
        lengths = Lengths(tuple(len(tokens) for tokens in per_asset), per_asset[0].device)
        packed = torch.cat(per_asset)
        pairs = [block.cross_attn.project_keys_values(packed) for block in self.blocks]  # type: ignore[union-attr,operator]
        return Context(tuple(k for k, _ in pairs), tuple(v for _, v in pairs), lengths)

    def compute_modulation(self, t: Tensor, extra: Tensor | None = None) -> Tensor:
        """(B,) times in 0..1000 -> (B, 6C); `extra` (B, C) is added to the time embedding."""
        embedded = self.t_embedder(t)
        out: Tensor = self.adaLN_modulation(embedded if extra is None else embedded + extra)
        return out

    def run_blocks(
        self, tokens: Tensor, modulation: Tensor, context: Context, layout: TokenLayout
    ) -> Tensor:
        """Run all blocks and the output layer.

        Args:
            tokens: (T, C) after the input layer.
            modulation: (B, 6C).
            context: condition keys and values.
            layout: the tokens.

        Returns:
            (K, out_channels) for the kept rows.
        """
        h = tokens.to(self.dtype)
        modulation = modulation.to(self.dtype)
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            h = block(h, modulation, context.select_block(index), layout, only_kept=index == last)
        h = h.to(tokens.dtype)
        out: Tensor = self.out_layer(F.layer_norm(h, h.shape[-1:]))
        return out

    def forward(
        self,
        x: SparseTensor,
        t: Tensor,
        cond: Tensor | Sequence[Tensor],
        concat_cond: SparseTensor | None = None,
    ) -> SparseTensor:
        """Predict the velocity of plain texture flow.

        Args:
            x: (T, C_tex) noisy latents.
            t: (B,) in 0..1000.
            cond: condition tokens.
            concat_cond: (T, C_shape) latents appended channel-wise.

        Returns:
            (T, out_channels).
        """
        feats = x.feats if concat_cond is None else torch.cat([x.feats, concat_cond.feats], dim=1)
        layout = TokenLayout(x.coords[:, 1:], x.lengths, self.config.head_dim)
        tokens = self.input_layer(feats)
        return x.replace(
            self.run_blocks(tokens, self.compute_modulation(t), self.prepare_context(cond), layout)
        )


def _init_weights(model: SLatFlowModel) -> None:
    """Scaled normal start; modulation and output start silent so that training starts calm."""
    width, depth = model.config.model_channels, model.config.num_blocks
    std = math.sqrt(2.0 / (5.0 * width))
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            is_branch_end = name.endswith(("to_out", "mlp.mlp.2"))
            nn.init.normal_(layer.weight, std=std / math.sqrt(2 * depth) if is_branch_end else std)
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        model.adaLN_modulation[1].weight.zero_()  # type: ignore[operator,union-attr]
    nn.init.zeros_(model.out_layer.weight)


def set_torso_dtype(model: SLatFlowModel, dtype: torch.dtype) -> None:
    """Store the blocks' linear layers in `dtype`; norms, gains and the rest stay float32."""
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            layer.to(dtype)
