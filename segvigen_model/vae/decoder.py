"""The decoder half of a sparse-compression autoencoder: latents in, voxel features out.

Which finer voxels exist is decided, level by level, by the first of: the structure's own memory
(the encoder's voxels, or `sparse.structure.pyramid` of known voxels; then output rows are those
voxels in their order), given guidance, the decoder's own prediction. To predict, decode
`latents.without_fine()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvigen_model.sparse.tensor import SparseTensor
from segvigen_model.vae.blocks import ConvNeXtBlock, UpBlock
from segvigen_model.vae.encoder import get_torso_dtype, init_linears


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes of a decoder.

    Attributes:
        out_channels: channels of a voxel.
        channels: width of each level, coarse to fine.
        num_blocks: ConvNeXt blocks of each level.
        latent_channels: channels of a latent.
        predicts_subdivision: whether it can tell by itself which voxels exist.
    """

    out_channels: int
    channels: tuple[int, ...]
    num_blocks: tuple[int, ...]
    latent_channels: int
    predicts_subdivision: bool


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What a decoder gives.

    Attributes:
        voxels: (N, out_channels) raw output at full resolution.
        subdivisions: per level, coarse to fine, the logits (M, 8) that children exist; empty
            when the decoder does not predict them.
    """

    voxels: SparseTensor
    subdivisions: tuple[SparseTensor, ...]


class Decoder(nn.Module):
    """Latents -> voxel features; unfolds the grid once per level change."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.from_latent = nn.Linear(config.latent_channels, config.channels[0])
        self.output_layer = nn.Linear(config.channels[-1], config.out_channels)
        self.blocks = nn.ModuleList(
            _build_level(config, level) for level in range(len(config.channels))
        )
        init_linears(self)

    def forward(self, latents: SparseTensor, guides: Sequence[Tensor] | None = None) -> Decoded:
        """Decode latents.

        Args:
            latents: (T, C).
            guides: per level, coarse to fine, (M, 8) logits of another decoder; > 0 = exists.

        Returns:
            Voxels and, where predicted, subdivision logits.
        """
        h = latents.replace(self.from_latent(latents.feats).to(get_torso_dtype(self)))
        logits: list[SparseTensor] = []
        for index, level in enumerate(self.blocks):
            for block in level:  # type: ignore[attr-defined]
                if isinstance(block, UpBlock):
                    guide = None if guides is None else guides[index] > 0
                    h, predicted = block(h, guide)
                    logits += [predicted] if predicted is not None else []
                else:
                    h = block(h)
        feats = F.layer_norm(h.feats.to(latents.feats.dtype), h.feats.shape[-1:])
        return Decoded(h.replace(self.output_layer(feats)), tuple(logits))


def _build_level(config: DecoderConfig, level: int) -> nn.ModuleList:
    width = config.channels[level]
    blocks: list[nn.Module] = [ConvNeXtBlock(width) for _ in range(config.num_blocks[level])]
    if level + 1 < len(config.channels):
        finer = config.channels[level + 1]
        blocks.append(UpBlock(width, finer, config.predicts_subdivision))
    return nn.ModuleList(blocks)


def compute_subdivision_loss(decoded: Decoded) -> Tensor:
    """Sum over levels of the mean cross-entropy against the structure that was followed."""
    terms = [
        F.binary_cross_entropy_with_logits(
            logits.feats.float(), logits.structure.subdivision.to(torch.float32)
        )
        for logits in decoded.subdivisions
    ]
    return torch.stack(terms).sum()
