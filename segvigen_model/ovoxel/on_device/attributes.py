"""Surface attributes of the active voxels: the twin of `ovoxel.attributes`.

Samples are float64, their weighted sums float32 in face order, as in the compiled kernel; so pure
white stays 255 and pure black 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from segvigen_model.ovoxel.attributes import Surface
from segvigen_model.ovoxel.on_device.dual_grid import compute_unit_normals
from segvigen_model.ovoxel.on_device.ragged import BUDGET, add_in_order
from segvigen_model.ovoxel.on_device.scan import ActiveVoxels, list_crossings
from segvigen_model.ovoxel.on_device.textures import (
    Materials,
    compute_tangent_frames,
    rotate_normals,
    sample,
)

NUM_SUMS = 13  # weight, colour 3, alpha, metal, rough, glow 3, normal 3


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceTensors:
    """`attributes.Surface` on a device.

    Attributes:
        triangles: (F, 3, 3) float64, voxel units from the grid's lower corner.
        normals: (F, 3, 3) float32, corner normals, unit or zero.
        uvs: (F, 3, 2) float32, v down.
        colors: (F, 3, 4) float32, 0..1, or a single row of ones.
        material: (F,) int64.
    """

    triangles: Tensor
    normals: Tensor
    uvs: Tensor
    colors: Tensor
    material: Tensor


def copy_surface(surface: Surface, device: torch.device) -> SurfaceTensors:
    """Copy a surface over."""
    return SurfaceTensors(
        triangles=torch.from_numpy(surface.triangles).to(device),
        normals=torch.from_numpy(surface.normals).to(device),
        uvs=torch.from_numpy(surface.uvs).to(device),
        colors=torch.from_numpy(surface.colors).to(device),
        material=torch.from_numpy(surface.material).to(device).long(),
    )


def sample_attributes(
    surface: SurfaceTensors, materials: Materials, voxels: ActiveVoxels, budget: int = BUDGET
) -> dict[str, Tensor]:
    """Average the surface's attributes over the active voxels.

    Returns:
        base_color, emissive, normal: (N, 3) uint8; metallic, roughness, alpha: (N,) uint8.
    """
    device = surface.triangles.device
    sums = torch.zeros(len(voxels), NUM_SUMS, dtype=torch.float32, device=device)
    for visits in _list_visits(surface.triangles, voxels, budget):
        for rows, faces in zip(*(torch.split(each, budget) for each in visits), strict=True):
            weight, values = _sample_visits(surface, materials, faces, voxels, rows)
            add_in_order(sums, rows, torch.cat([weight, weight * values], dim=1))
    mean = sums[:, 1:] / sums[:, :1]
    mean[:, 9:12] = mean[:, 9:12] * 0.5 + 0.5
    # Multiplying before the clip keeps the official order of rounding.
    quantised = (mean * 255.0).clamp_(0.0, 255.0).to(torch.uint8)
    color, alpha, metal, rough, glow, normal = torch.split(quantised, [3, 1, 1, 1, 3, 3], dim=1)
    return {
        "base_color": color,
        "alpha": alpha[:, 0],
        "metallic": metal[:, 0],
        "roughness": rough[:, 0],
        "emissive": glow,
        "normal": normal,
    }


def _list_visits(
    triangles: Tensor, voxels: ActiveVoxels, budget: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """List which triangles make which voxels active, each pair once, faces in rising order.

    Yields:
        (H,) int64 row and (H,) int64 face, by row, then face; a later list has no smaller face.
    """
    num = max(len(triangles), 1)
    last = torch.zeros(0, dtype=torch.int64, device=triangles.device)
    for found in list_crossings(triangles, voxels.grid, budget // 4):
        if not len(found.face):
            continue
        rows = voxels.find_rows(found.find_voxels_around())
        pairs = torch.unique((rows * num + found.face[:, None]).reshape(-1))
        # A triangle may go on in the next slice: its voxels are remembered.
        new = pairs[~torch.isin(pairs, last)]
        known = torch.cat([last, new])
        last = known[known % num == found.face[-1]]
        yield new // num, new % num


def _sample_visits(
    surface: SurfaceTensors,
    materials: Materials,
    face: Tensor,
    voxels: ActiveVoxels,
    rows: Tensor,
) -> tuple[Tensor, Tensor]:
    """(H, 1) float32 weights and (H, 12) float32 attributes of triangles seen from voxels."""
    triangles = surface.triangles[face]
    normal, _ = compute_unit_normals(triangles)
    keys, grid = voxels.keys[rows], voxels.grid
    cells = torch.stack([keys // grid**2, keys // grid % grid, keys % grid], dim=1)
    share, height = _compute_barycentric(triangles, cells + 0.5, normal)
    weight = (1.0 - height / grid).float()[:, None]
    return weight, _shade_samples(surface, materials, face, share, normal, grid).float()


def _compute_barycentric(triangles: Tensor, point: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """(H, 3) barycentric coordinates of points' projections, unclamped, and (H,) distances."""
    origin = triangles[:, 0]
    height = _sum_components((point - origin) * normal)
    side0, side1 = triangles[:, 1] - origin, triangles[:, 2] - origin
    foot = point - height[:, None] * normal - origin
    d00, d01, d11 = (
        _sum_components(side0 * side0),
        _sum_components(side0 * side1),
        _sum_components(side1 * side1),
    )
    d20, d21 = _sum_components(foot * side0), _sum_components(foot * side1)
    det = d00 * d11 - d01 * d01
    is_flat = det <= 1e-30  # no area: its middle
    det = torch.where(is_flat, 1.0, det)
    share1, share2 = (d11 * d20 - d01 * d21) / det, (d00 * d21 - d01 * d20) / det
    share = torch.stack([1.0 - share1 - share2, share1, share2], dim=1)
    share = torch.where(is_flat[:, None], 1.0 / 3.0, share)
    return share, torch.where(is_flat, 0.0, height)


def _sum_components(products: Tensor) -> Tensor:
    return products[:, 0] + products[:, 1] + products[:, 2]


def _shade_samples(
    surface: SurfaceTensors,
    materials: Materials,
    face: Tensor,
    share: Tensor,
    face_normal: Tensor,
    grid: int,
) -> Tensor:
    """(H, 12) float64: colour 3, alpha, metal, rough, glow 3, normal 3 of surface points."""
    material = surface.material[face]
    slots, factors = materials.slots[material], materials.factors[material]
    uvs = surface.uvs[face]
    uv = _interpolate(share, uvs)
    frames, widths = compute_tangent_frames(surface.triangles[face], uvs, grid)

    def look_up(slot: int, is_wanted: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.nonzero(is_wanted)[:, 0]
        return rows, sample(materials, slots[rows, slot], uv[rows], widths[rows])

    texels = torch.ones(3, len(face), 4, dtype=torch.float64, device=face.device)
    for slot in range(3):
        rows, found = look_up(slot, slots[:, slot] >= 0)
        texels[slot, rows] = found
    color = texels[0] * _interpolate_tints(surface, face, share) * factors[:, :4]
    alpha = _apply_alpha_mode(color[:, 3:], materials.alpha[material])
    metal, rough = factors[:, 4:5] * texels[1, :, 2:3], factors[:, 5:6] * texels[1, :, 1:2]
    glow = factors[:, 6:9] * texels[2, :, :3]
    # Not scaled to unit length, as in the official converter.
    normal = _interpolate(share, surface.normals[face])
    normal = torch.where((normal == 0.0).all(dim=1, keepdim=True), face_normal, normal)
    rows, found = look_up(3, (slots[:, 3] >= 0) & (widths > 0.0))
    normal[rows] = rotate_normals(found, frames[rows], normal[rows])
    return torch.cat([color[:, :3], alpha, metal, rough, glow, normal], dim=1)


def _interpolate(share: Tensor, corners: Tensor) -> Tensor:
    """(H, 3) shares of (H, 3, C) corner values -> (H, C) float64."""
    a, b, c = corners.double().unbind(dim=1)
    return share[:, :1] * a + share[:, 1:2] * b + share[:, 2:] * c


def _interpolate_tints(surface: SurfaceTensors, face: Tensor, share: Tensor) -> Tensor:
    """(H, 4) vertex colours, not continued beyond the triangle."""
    colors = surface.colors[face.clamp(max=len(surface.colors) - 1)]
    inner = share.clamp(0.0, 1.0)
    return _interpolate(inner, colors) / _sum_components(inner)[:, None]


def _apply_alpha_mode(alpha: Tensor, rules: Tensor) -> Tensor:
    """Apply the alpha mode; compared in float32, as a cutoff of 0.4 means 102 of 255."""
    mode, cutoff = rules[:, :1], rules[:, 1:]
    is_kept = (alpha.float() >= cutoff.float()).double()
    return torch.where(mode == 0.0, 1.0, torch.where(mode == 1.0, is_kept, alpha))
