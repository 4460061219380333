"""What the shape autoencoder's channels mean: dual vertices, crossed edges, quad split weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segvigen_model.sparse.tensor import SparseTensor, make_sparse_tensor
from segvigen_model.types import BoolArray, ByteArray, IntArray

IN_CHANNELS = 6  # dual vertex xyz, crossed edges xyz
OUT_CHANNELS = 7  # dual vertex xyz, crossed-edge logits xyz, split weight
DUAL_MARGIN = 0.5  # a decoded dual vertex may leave its voxel by half a voxel


@dataclass(frozen=True, slots=True, eq=False)
class ShapeVoxels:
    """A decoded dual grid.

    Attributes:
        dual: (N, 3) vertex inside the voxel, 0..1 (with half a voxel of margin).
        intersected_logits: (N, 3), > 0 = edge crossed.
        split_weight: (N, 1) > 0, weight of the voxel's vertex in splitting quads.
        coords: (N, 4) int32 rows [batch, x, y, z].
    """

    dual: Tensor
    intersected_logits: Tensor
    split_weight: Tensor
    coords: Tensor


def encode_shape_features(dual: Tensor, intersected: Tensor) -> Tensor:
    """(N, 6) encoder input from dual (N, 3) in 0..1 and flags (N, 3) in {0, 1}."""
    return torch.cat([dual - 0.5, intersected.to(dual.dtype) - 0.5], dim=1)


def decode_shape_voxels(raw: SparseTensor) -> ShapeVoxels:
    """Interpret the shape decoder's raw output (N, 7)."""
    feats = raw.feats
    return ShapeVoxels(
        dual=(1 + 2 * DUAL_MARGIN) * torch.sigmoid(feats[:, :3]) - DUAL_MARGIN,
        intersected_logits=feats[:, 3:6],
        split_weight=F.softplus(feats[:, 6:7]),
        coords=raw.coords,
    )


def make_shape_tensor(coords: IntArray, dual: ByteArray, intersected: BoolArray) -> SparseTensor:
    """Encoder input of one asset.

    Args:
        coords: (N, 3) int32 voxels.
        dual: (N, 3) uint8, 0..255 = 0..1.
        intersected: (N, 3) bool.
    """
    voxels = F.pad(torch.from_numpy(coords.astype("int32")), (1, 0))
    feats = encode_shape_features(
        torch.from_numpy(dual.astype("float32") / 255.0),
        torch.from_numpy(intersected.astype("float32")),
    )
    return make_sparse_tensor(feats, voxels, batch_size=1)
