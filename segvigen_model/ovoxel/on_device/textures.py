"""Texture look-ups for many points at once: the twin of `ovoxel.texture_sampling`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segvigen_model.ovoxel.on_device.ragged import compute_root
from segvigen_model.ovoxel.textures import PackedMaterials

MIN_DETERMINANT = 1e-6  # official: below it texture coordinates have no direction


@dataclass(frozen=True, slots=True, eq=False)
class Materials:
    """`textures.PackedMaterials` on a device; fields as there, factors and alpha float64.

    Attributes:
        texels: (T,) uint8.
        levels: (X, 12) int64.
        num_levels: (X,) int64, mip levels of each texture.
        sides: (X,) int64.
        channels: (X,) int64.
        slots: (M, 4) int64.
        factors: (M, 9) float64.
        alpha: (M, 2) float64.
    """

    texels: Tensor
    levels: Tensor
    num_levels: Tensor
    sides: Tensor
    channels: Tensor
    slots: Tensor
    factors: Tensor
    alpha: Tensor


def copy_materials(packed: PackedMaterials, device: torch.device) -> Materials:
    """Copy packed materials over."""
    num_levels = [int(side).bit_length() for side in packed.sides]
    return Materials(
        texels=torch.from_numpy(packed.texels).to(device),
        levels=torch.from_numpy(packed.levels).to(device),
        num_levels=torch.tensor(num_levels, device=device),
        sides=torch.from_numpy(packed.sides).to(device),
        channels=torch.from_numpy(packed.channels).to(device),
        slots=torch.from_numpy(packed.slots).to(device),
        factors=torch.from_numpy(packed.factors).to(device).double(),
        alpha=torch.from_numpy(packed.alpha).to(device).double(),
    )


def compute_tangent_frames(triangles: Tensor, uvs: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Give dP/du and dP/dv of triangles, and texture widths per voxel.

    Args:
        triangles: (H, 3, 3) float64, voxel units.
        uvs: (H, 3, 2) float32, v down.
        grid: voxels along each axis.

    Returns:
        (H, 2, 3) float64, unit lengths per texture width, and (H,) float64; both zero where the
        coordinates have no area.
    """
    u, v = uvs.unbind(dim=2)
    # In float32, as coordinates come: whether an area is one is decided there.
    u0, v0, u1, v1 = u[:, 1] - u[:, 0], v[:, 0] - v[:, 1], u[:, 2] - u[:, 0], v[:, 0] - v[:, 2]
    det = (u0 * v1 - v0 * u1).double()
    has_area = det.abs() >= MIN_DETERMINANT
    u0, v0, u1, v1 = (each.double()[:, None] for each in (u0, v0, u1, v1))
    side0 = (triangles[:, 1] - triangles[:, 0]) / grid
    side1 = (triangles[:, 2] - triangles[:, 0]) / grid
    safe = torch.where(has_area, det, 1.0)[:, None]
    along_u, along_v = (side0 * v1 - side1 * v0) / safe, (side1 * u0 - side0 * u1) / safe
    scale = compute_root(_compute_length(along_u) * _compute_length(along_v))
    is_sound = has_area & (scale != 0.0)
    widths = torch.where(is_sound, 1.0 / (grid * torch.where(is_sound, scale, 1.0)), 0.0)
    return torch.stack([along_u, along_v], dim=1) * has_area[:, None, None], widths


def sample(materials: Materials, texture: Tensor, uv: Tensor, widths: Tensor) -> Tensor:
    """Sample textures: repeat wrapping, bilinear, between two mip levels.

    Args:
        materials: holds the textures.
        texture: (H,) int64 number of a texture.
        uv: (H, 2) float64, v down, any.
        widths: (H,) float64 texture widths per voxel; chooses the mip level.

    Returns:
        (H, 4) float64, 0..1; alpha is 1 where a texture has none.
    """
    uv = uv - uv.floor()
    sides, last = materials.sides[texture], materials.num_levels[texture] - 1
    level = torch.log2(torch.where(widths > 0.0, widths * sides, 1.0)).clamp(min=0.0)
    low = torch.minimum(level, last.double()).long()
    share = torch.where(low < last, level - low, 0.0)[:, None]
    fine = _sample_bilinear(materials, texture, uv, low)
    coarse = _sample_bilinear(materials, texture, uv, torch.minimum(low + 1, last))
    return fine * (1.0 - share) + coarse * share


def rotate_normals(texel: Tensor, frames: Tensor, normal: Tensor) -> Tensor:
    """Turn surface normals by normal-map texels.

    The frame is dP/du and dP/dv as they are, not made orthogonal to the normal: official.

    Args:
        texel: (H, 4) float64, 0..1.
        frames: (H, 2, 3) float64, not zero.
        normal: (H, 3) float64.
    """
    x, y, z = torch.split(texel[:, :3] * 2.0 - 1.0, 1, dim=1)
    lengths = [_compute_length(frames[:, k])[:, None] for k in range(2)]
    turned = x * frames[:, 0] / lengths[0] + y * frames[:, 1] / lengths[1] + z * normal
    length = _compute_length(turned)[:, None]
    unit: Tensor = turned / torch.where(length > 0.0, length, 1.0)
    return unit


def _sample_bilinear(materials: Materials, texture: Tensor, uv: Tensor, level: Tensor) -> Tensor:
    side = materials.sides[texture] >> level
    place = uv * side[:, None] - 0.5
    floor = place.floor()
    fx, fy = torch.split(place - floor, 1, dim=1)
    # Sides are powers of two, so a mask wraps; out-of-range coordinates were wrapped before.
    x0, y0 = (floor.long() & (side - 1)[:, None]).unbind(dim=1)
    x1, y1 = (x0 + 1) & (side - 1), (y0 + 1) & (side - 1)
    start, channels = materials.levels[texture, level], materials.channels[texture]
    a, b, c, d = (
        _read_texels(materials.texels, start + (y * side + x) * channels, channels)
        for y, x in ((y0, x0), (y0, x1), (y1, x0), (y1, x1))
    )
    upper = a * (1.0 - fx) + b * fx
    lower = c * (1.0 - fx) + d * fx
    value: Tensor = upper * (1.0 - fy) + lower * fy
    return value


def _read_texels(texels: Tensor, first: Tensor, channels: Tensor) -> Tensor:
    """(H,) place of each first byte -> (H, 4) float64 0..1; a missing fourth channel is 1."""
    places = first[:, None] + torch.arange(4, device=first.device)
    found = texels[places.clamp_(max=len(texels) - 1)].double() / 255.0
    has_alpha = (channels == 4)[:, None] | (torch.arange(4, device=first.device) < 3)
    return torch.where(has_alpha, found, 1.0)


def _compute_length(vectors: Tensor) -> Tensor:
    square = vectors * vectors
    return compute_root(square[:, 0] + square[:, 1] + square[:, 2])
