"""The encoder half of a sparse-compression autoencoder: voxels in, a latent posterior out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvigen_model.sparse.conv import SparseConv3d
from segvigen_model.sparse.tensor import SparseTensor
from segvigen_model.vae.blocks import ConvNeXtBlock, DownBlock


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Sizes of an encoder.

    Attributes:
        in_channels: channels of a voxel.
        channels: width of each level, fine to coarse; one level more than foldings.
        num_blocks: ConvNeXt blocks of each level.
        latent_channels: channels of a latent.
        logvar_bias: start value of the log variance; -5 lets a small codec learn from the start.
    """

    in_channels: int
    channels: tuple[int, ...]
    num_blocks: tuple[int, ...]
    latent_channels: int
    logvar_bias: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """A diagonal Gaussian over latents.

    Attributes:
        mean: (T, C) on the latent structure, which remembers the encoder's finer voxels.
        logvar: (T, C).
    """

    mean: SparseTensor
    logvar: Tensor

    def sample(self, generator: torch.Generator | None = None) -> SparseTensor:
        """Draw latents (T, C)."""
        noise = torch.randn(self.logvar.shape, generator=generator, dtype=self.logvar.dtype).to(
            self.logvar.device
        )
        return self.mean.replace(self.mean.feats + noise * torch.exp(0.5 * self.logvar))

    def compute_kl(self) -> Tensor:
        """Mean divergence per latent number from the standard normal."""
        mean = self.mean.feats
        return 0.5 * (mean.square() + self.logvar.exp() - 1.0 - self.logvar).mean()


class Encoder(nn.Module):
    """Voxel features -> latent posterior; folds the grid once per level change."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.input_layer = nn.Linear(config.in_channels, config.channels[0])
        self.to_latent = nn.Linear(config.channels[-1], 2 * config.latent_channels)
        self.blocks = nn.ModuleList(
            _build_level(config, level) for level in range(len(config.channels))
        )
        init_linears(self)
        with torch.no_grad():
            self.to_latent.bias[config.latent_channels :] = config.logvar_bias

    def forward(self, x: SparseTensor) -> Posterior:
        """Encode (N, in_channels) voxels."""
        h = x.replace(self.input_layer(x.feats).to(get_torso_dtype(self)))
        for level in self.blocks:
            for block in level:  # type: ignore[attr-defined]
                h = block(h)
        feats = F.layer_norm(h.feats.to(x.feats.dtype), h.feats.shape[-1:])
        mean, logvar = self.to_latent(feats).float().chunk(2, dim=-1)
        return Posterior(h.replace(mean), logvar)


def _build_level(config: EncoderConfig, level: int) -> nn.ModuleList:
    width = config.channels[level]
    blocks: list[nn.Module] = [ConvNeXtBlock(width) for _ in range(config.num_blocks[level])]
    if level + 1 < len(config.channels):
        blocks.append(DownBlock(width, config.channels[level + 1]))
    return nn.ModuleList(blocks)


def init_linears(module: nn.Module) -> None:
    """Xavier start for every linear layer that is not silent on purpose."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and (layer.weight.is_meta or bool(layer.weight.any())):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def get_torso_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype of the blocks' convolutions."""
    for layer in module.modules():
        if isinstance(layer, SparseConv3d):
            return layer.weight.dtype
    return torch.float32


def set_torso_dtype(module: Encoder | nn.Module, dtype: torch.dtype) -> None:
    """Store linear layers and convolutions inside `blocks` in `dtype`; all else stays float32."""
    for layer in module.blocks.modules():  # type: ignore[union-attr,operator]
        if isinstance(layer, nn.Linear | SparseConv3d):
            layer.to(dtype)
