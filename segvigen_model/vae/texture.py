"""What the texture autoencoder's channels mean: colour, metallic, roughness, alpha in -1..1."""

from __future__ import annotations

import torch
from torch import Tensor

from segvigen_model.types import ByteArray

CHANNELS = 6  # red, green, blue, metallic, roughness, alpha


def encode_texture_features(attributes: Tensor) -> Tensor:
    """(N, 6) encoder input from attributes in 0..1."""
    return attributes * 2.0 - 1.0


def decode_texture_attributes(raw: Tensor) -> Tensor:
    """(N, 6) attributes, 0..1 where the decoder is right, from its raw output."""
    return raw * 0.5 + 0.5


def encode_pbr_features(
    base_color: ByteArray, metallic: ByteArray, roughness: ByteArray, alpha: ByteArray
) -> Tensor:
    """(N, 6) encoder input of one asset from its uint8 voxel attributes.

    Args:
        base_color: (N, 3) uint8.
        metallic: (N,) uint8.
        roughness: (N,) uint8.
        alpha: (N,) uint8.
    """
    scalars = [torch.from_numpy(value)[:, None] for value in (metallic, roughness, alpha)]
    stacked = torch.cat([torch.from_numpy(base_color), *scalars], dim=1)
    return encode_texture_features(stacked.float() / 255.0)


def encode_color_features(colors: Tensor) -> Tensor:
    """(N, 6) encoder input of a matt, opaque colouring such as a part palette.

    Args:
        colors: (N, 3) float, 0..1.
    """
    rest = colors.new_tensor([0.0, 1.0, 1.0]).expand(len(colors), 3)
    return encode_texture_features(torch.cat([colors, rest], dim=1))
