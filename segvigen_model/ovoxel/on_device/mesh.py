"""From a dual grid back to triangles on a device: the twin of `ovoxel.mesh`, same face order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segvigen_model.ovoxel.mesh import QUAD_OFFSETS, SPLIT_02, SPLIT_13, Split
from segvigen_model.ovoxel.on_device.dual_grid import dot3
from segvigen_model.ovoxel.on_device.ragged import compute_root
from segvigen_model.ovoxel.on_device.scan import ActiveVoxels, compute_linear_index
from segvigen_model.types import FloatArray, IntArray, OVoxel


@torch.no_grad()
def ovoxel_to_mesh_on(
    ovoxel: OVoxel,
    device: str | torch.device,
    split_weight: FloatArray | None = None,
    split: Split = Split.ANGLE,
) -> tuple[FloatArray, IntArray]:
    """Extract the surface of an O-Voxel like `ovoxel.mesh.ovoxel_to_mesh`, on a device.

    Args:
        ovoxel: coordinates, dual vertices and flags are used.
        device: where to compute.
        split_weight: (N,) float32 > 0 for WEIGHT and TRAIN.
        split: how quads are split.

    Returns:
        (V, 3) float32 vertices, unit frame, and (F, 3) int64 faces, on the host.
    """
    coords = torch.from_numpy(ovoxel.coords).to(device)
    dual = torch.from_numpy(ovoxel.dual).to(device).float() / 255.0
    vertices = (coords.float() + dual) * float(np.float32(1.0 / ovoxel.grid)) - 0.5
    quads = find_quads(coords.long(), torch.from_numpy(ovoxel.intersected).to(device), ovoxel.grid)
    if split is Split.ANGLE:
        faces = _split_by(quads, _is_flatter_along_02(vertices[quads]))
    elif split is Split.FIXED:
        faces = _split_by(quads, _has_area(vertices[quads]))
    elif split_weight is None:
        raise ValueError(f"split {split.value!r} needs split_weight")
    else:
        weight = torch.from_numpy(np.asarray(split_weight, dtype=np.float32).reshape(-1)).to(device)
        share_02 = weight[quads[:, 0]] * weight[quads[:, 2]]
        share_13 = weight[quads[:, 1]] * weight[quads[:, 3]]
        if split is Split.WEIGHT:
            faces = _split_by(quads, share_02 > share_13)
        else:
            vertices, faces = _split_in_four(vertices, quads, share_02, share_13)
    return vertices.cpu().numpy(), faces.cpu().numpy()


def find_quads(coords: Tensor, intersected: Tensor, grid: int) -> Tensor:
    """List the complete quads.

    Args:
        coords: (N, 3) int64, ascending (x, y, z).
        intersected: (N, 3) bool.
        grid: voxels along each axis.

    Returns:
        (Q, 4) int64 rows, by voxel row and then axis.
    """
    voxels = ActiveVoxels(grid, compute_linear_index(coords, grid))
    rows, axes = torch.nonzero(intersected).unbind(dim=1)
    offsets = torch.from_numpy(QUAD_OFFSETS).to(coords.device)
    corners = coords[rows][:, None, :] + offsets[axes]  # (Q, 4, 3)
    found = voxels.find_rows(corners)
    is_there = (found >= 0) & (corners < grid).all(dim=2)
    return found[is_there.all(dim=1)]


def _split_by(quads: Tensor, is_along_02: Tensor) -> Tensor:
    faces = torch.where(is_along_02[:, None], quads[:, SPLIT_02], quads[:, SPLIT_13])
    return faces.reshape(-1, 3)


def _compute_cross(a: Tensor, b: Tensor) -> Tensor:
    turned = [(a[:, i] * b[:, j] - a[:, j] * b[:, i]) for i, j in ((1, 2), (2, 0), (0, 1))]
    return torch.stack(turned, dim=1)


def _has_area(corners: Tensor) -> Tensor:
    a, b, c, _ = corners.unbind(dim=1)
    return dot3(_compute_cross(b - a, c - a), _compute_cross(c - b, a - b)).abs() > 0


def _is_flatter_along_02(corners: Tensor) -> Tensor:
    first, second = (_compute_alignment(corners, split) for split in (SPLIT_02, SPLIT_13))
    return first >= second


def _compute_alignment(corners: Tensor, split: IntArray) -> Tensor:
    a, b, c, d, e, f = corners[:, torch.from_numpy(split)].unbind(dim=1)
    first, second = _compute_cross(b - a, c - a), _compute_cross(e - d, f - d)
    lengths = compute_root(dot3(first, first)) * compute_root(dot3(second, second))
    return dot3(first, second).abs() / lengths.clamp(min=1e-30)


def _split_in_four(
    vertices: Tensor, quads: Tensor, share_02: Tensor, share_13: Tensor
) -> tuple[Tensor, Tensor]:
    v0, v1, v2, v3 = vertices[quads].unbind(dim=1)
    on_02, on_13 = share_02[:, None], share_13[:, None]
    middle = (on_02 * ((v0 + v2) * 0.5) + on_13 * ((v1 + v3) * 0.5)) / (on_02 + on_13)
    hub = len(vertices) + torch.arange(len(quads), device=quads.device)
    fans = [torch.stack([quads[:, k], quads[:, (k + 1) % 4], hub], dim=1) for k in range(4)]
    return torch.cat([vertices, middle]), torch.stack(fans, dim=1).reshape(-1, 3)
