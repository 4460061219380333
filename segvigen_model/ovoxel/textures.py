"""Materials packed into flat arrays that the attribute kernel can sample, with mip chains.

Textures become squares with a power-of-two side (next power of two of the longer side, at most
2048, bilinear), as the official data script makes them; each mip is the integer mean of 2 x 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segvigen_model.types import ByteArray, FloatArray, Material

MAX_SIDE = 2048  # official cap
SLOTS = ("base_color", "metallic_roughness", "emissive", "normal")
ALPHA_MODES = {"OPAQUE": 0, "MASK": 1, "BLEND": 2}


class PackedMaterials(NamedTuple):
    """What the kernel reads (numba takes named tuples, not dataclasses).

    Attributes:
        texels: (T,) uint8, all mip chains of all different textures.
        levels: (X, L) int64, where each mip level of texture x starts; level l has side >> l.
        sides: (X,) int64, side of level 0; num_levels = log2(side) + 1.
        channels: (X,) int64, 3 or 4.
        slots: (M, 4) int64 texture per material and slot (order of SLOTS), -1 for none.
        factors: (M, 9) float32: base colour 4, metallic, roughness, emissive 3.
        alpha: (M, 2) float32: mode (0 opaque, 1 mask, 2 blend) and cutoff.
    """

    texels: ByteArray
    levels: NDArray[np.int64]
    sides: NDArray[np.int64]
    channels: NDArray[np.int64]
    slots: NDArray[np.int64]
    factors: NDArray[np.float32]
    alpha: NDArray[np.float32]


def resize_to_power_of_two(texture: ByteArray) -> ByteArray:
    """Resize a texture to the square that the sampler needs.

    Args:
        texture: (H, W, C) uint8.

    Returns:
        (S, S, C) uint8, S a power of two, 1..2048.
    """
    height, width = texture.shape[:2]
    side = min(1 << max(height - 1, width - 1, 0).bit_length(), MAX_SIDE)
    if (height, width) == (side, side):
        return texture
    resized = Image.fromarray(texture).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8).reshape(side, side, texture.shape[2])


def build_mip_chain(texture: ByteArray) -> list[ByteArray]:
    """Halve a square power-of-two texture down to one texel; integer mean of 2 x 2."""
    chain = [texture]
    while chain[-1].shape[0] > 1:
        fine = chain[-1].astype(np.uint16)
        total = fine[0::2, 0::2] + fine[1::2, 0::2] + fine[0::2, 1::2] + fine[1::2, 1::2]
        chain.append((total // 4).astype(np.uint8))
    return chain


def pack_materials(materials: Sequence[Material]) -> PackedMaterials:
    """Pack materials; a texture that several of them share is stored once."""
    numbers: dict[int, int] = {}
    chains: list[list[ByteArray]] = []
    slots = np.full((len(materials), len(SLOTS)), -1, dtype=np.int64)
    for row, material in enumerate(materials):
        for column, texture in enumerate(_list_textures(material)):
            if texture is None:
                continue
            if id(texture) not in numbers:
                numbers[id(texture)] = len(chains)
                chains.append(build_mip_chain(resize_to_power_of_two(texture)))
            slots[row, column] = numbers[id(texture)]
    alpha = [(ALPHA_MODES.get(m.alpha_mode, 0), m.alpha_cutoff) for m in materials]
    return PackedMaterials(
        texels=np.concatenate([level.ravel() for chain in chains for level in chain])
        if chains
        else np.zeros(1, dtype=np.uint8),
        levels=_find_level_starts(chains),
        sides=np.array([len(chain[0]) for chain in chains] or [1], dtype=np.int64),
        channels=np.array([chain[0].shape[2] for chain in chains] or [1], dtype=np.int64),
        slots=slots,
        factors=np.stack([_list_factors(material) for material in materials]).astype(np.float32),
        alpha=np.array(alpha, dtype=np.float32),
    )


def _list_textures(material: Material) -> tuple[ByteArray | None, ...]:
    return (
        material.base_color_texture,
        material.metallic_roughness_texture,
        material.emissive_texture,
        material.normal_texture,
    )


def _list_factors(material: Material) -> FloatArray:
    # Base colour factors pass through bytes on the official path, so they do here.
    color = np.rint(np.clip(material.base_color_factor, 0.0, 1.0) * 255.0) / 255.0
    rest = (material.metallic_factor, material.roughness_factor, *material.emissive_factor)
    return np.concatenate([color, rest])


def _find_level_starts(chains: Sequence[Sequence[ByteArray]]) -> NDArray[np.int64]:
    starts = np.zeros((max(len(chains), 1), 12), dtype=np.int64)
    total = 0
    for row, chain in enumerate(chains):
        for level, texels in enumerate(chain):
            starts[row, level] = total
            total += texels.size
    return starts
