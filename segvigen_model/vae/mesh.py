"""Dual grid -> triangles in torch, differentiable in its vertices: what a shape decoder outputs.

Every crossed voxel edge with all four voxels present becomes a quad. Ways to split it: by the
decoder's weights; by the better aligned pair of normals; along the first diagonal, which is what
the official code does without weights (it means to compare normals, but compares a triangle with
itself); or (training) into four triangles round a weighted middle vertex, so that the weights
receive gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segvigen_model.vae.shape import ShapeVoxels

Split = Literal["weights", "normals", "first", "train"]

# Voxels round the far edge of a voxel along x, y and z, in ring order.
RINGS = (
    ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)),
    ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)),
    ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
)
SPLIT_02 = (0, 1, 2, 0, 2, 3)
SPLIT_13 = (0, 1, 3, 3, 1, 2)
FAN = (0, 1, 4, 1, 2, 4, 2, 3, 4, 3, 0, 4)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedMesh:
    """Triangles of one asset.

    Attributes:
        vertices: (V, 3) unit frame; the voxels' dual vertices first, then middle vertices.
        faces: (F, 3) int64; winding is not oriented.
    """

    vertices: Tensor
    faces: Tensor


def extract_meshes(
    voxels: ShapeVoxels, grid: int, *, intersected: Tensor | None = None, split: Split = "weights"
) -> list[DecodedMesh]:
    """Make one mesh per asset of a decoded batch.

    Args:
        voxels: decoded dual grid, assets contiguous.
        grid: voxels along the unit cube.
        intersected: (N, 3) bool edge flags; the decoder's own when None.
        split: how quads become triangles.
    """
    flags = voxels.intersected_logits > 0 if intersected is None else intersected.bool()
    sizes = torch.bincount(voxels.coords[:, 0].long()).tolist()
    fields = (voxels.coords[:, 1:], voxels.dual, flags, voxels.split_weight)
    assets = zip(*(torch.split(field, sizes) for field in fields), strict=True)
    return [extract_mesh(*asset, grid=grid, split=split) for asset in assets]


# The arrays of a decoded grid, and how quads are split.
def extract_mesh(
    coords: Tensor, dual: Tensor, intersected: Tensor, weight: Tensor, *, grid: int, split: Split
) -> DecodedMesh:
    """Make the mesh of one dual grid.

    Args:
        coords: (N, 3) integer voxels.
        dual: (N, 3) vertex inside the voxel, 0..1.
        intersected: (N, 3) bool, far edge along x, y, z crossed.
        weight: (N, 1) > 0; unused by split "normals".
        grid: voxels along the unit cube.
        split: how quads become triangles.
    """
    vertices = (coords.to(dual.dtype) + dual) / grid - 0.5
    quads = _find_quads(coords, intersected)  # (Q, 4)
    if split == "train":
        middle, corners = _add_middle_vertices(vertices, quads, weight)
        return DecodedMesh(torch.cat([vertices, middle]), corners[:, FAN].reshape(-1, 3))
    if split == "weights":
        is_02 = _prefer_split_02(weight, quads)
    elif split == "normals":
        is_02 = _compute_alignment(vertices, quads, SPLIT_02) > _compute_alignment(
            vertices, quads, SPLIT_13
        )
    else:
        is_02 = (
            _compute_alignment(vertices, quads, SPLIT_02[:3] * 2) > 0
        )  # the triangle has an area
    faces = torch.where(is_02[:, None], quads[:, SPLIT_02], quads[:, SPLIT_13])
    return DecodedMesh(vertices, faces.reshape(-1, 3))


def _find_quads(coords: Tensor, intersected: Tensor) -> Tensor:
    """(Q, 4) int64 rows of the voxels round each crossed edge, by voxel, then by axis."""
    wide = coords.long()
    rings = torch.tensor(RINGS, device=coords.device)
    around = (wide[:, None, None, :] + rings)[intersected]  # (E, 4, 3)
    span = int(wide.max()) + 2 if len(wide) else 1
    strides = torch.tensor([span * span, span, 1], device=coords.device)
    keys, order = torch.sort((wide * strides).sum(dim=1))
    wanted = (around * strides).sum(dim=2)
    found = torch.searchsorted(keys, wanted).clamp_(max=max(0, len(keys) - 1))
    exists = (keys[found] == wanted).all(dim=1) if len(keys) else wanted.new_zeros(0).bool()
    return order[found[exists]]


def _add_middle_vertices(vertices: Tensor, quads: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, 3) vertices between the diagonals' middles, and (Q, 5) corners with them."""
    v0, v1, v2, v3 = (vertices[quads[:, corner]] for corner in range(4))
    w0, w1, w2, w3 = (weight[quads[:, corner]] for corner in range(4))
    on_02, on_13 = w0 * w2, w1 * w3
    middle = (on_02 * (v0 + v2) / 2 + on_13 * (v1 + v3) / 2) / (on_02 + on_13)
    rows = torch.arange(len(quads), device=quads.device) + len(vertices)
    return middle, torch.cat([quads, rows[:, None]], dim=1)


def _prefer_split_02(weight: Tensor, quads: Tensor) -> Tensor:
    w = weight[:, 0][quads]
    return w[:, 0] * w[:, 2] > w[:, 1] * w[:, 3]


def _compute_alignment(vertices: Tensor, quads: Tensor, split: tuple[int, ...]) -> Tensor:
    a, b, c, d, e, f = (vertices[quads[:, corner]] for corner in split)
    first = torch.linalg.cross(b - a, c - a)
    second = torch.linalg.cross(e - d, f - d)
    aligned: Tensor = (first * second).sum(dim=1).abs()
    return aligned
