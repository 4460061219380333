"""Features on the voxels of a `Structure`: the value that every sparse layer takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segvigen_model.sparse.structure import Structure


@dataclass(frozen=True, slots=True, eq=False)
class SparseTensor:
    """A batch of sparse feature grids.

    Attributes:
        feats: (N, C), one row per voxel.
        structure: the N voxels; shared, with all its derived maps, by tensors made from this one.
    """

    feats: Tensor
    structure: Structure

    @property
    def coords(self) -> Tensor:
        """(N, 4) int32 rows [batch, x, y, z]."""
        return self.structure.coords

    @property
    def batch_size(self) -> int:
        """Number of assets."""
        return self.structure.batch_size

    @property
    def lengths(self) -> tuple[int, ...]:
        """Voxels per asset."""
        return self.structure.lengths

    def replace(self, feats: Tensor) -> SparseTensor:
        """Return other features on the same voxels."""
        return SparseTensor(feats, self.structure)

    def split(self) -> list[Tensor]:
        """Return the features of each asset, (N_b, C) each."""
        return list(torch.split(self.feats, list(self.lengths)))

    def without_fine(self) -> SparseTensor:
        """Return the same tensor with no memory of finer levels, for free-running decoding."""
        return SparseTensor(self.feats, self.structure.without_fine())

    def fold(self) -> SparseTensor:
        """Space to channel: (N, C) -> (M, 8C), children laid out slot by slot, absent ones 0."""
        coarse = self.structure.fold()
        channels = self.feats.shape[1]
        dense = self.feats.new_zeros(len(coarse) * 8, channels)
        dense = dense.index_copy(0, coarse.fine_rows, self.feats)
        return SparseTensor(dense.view(-1, 8 * channels), coarse)

    def unfold(self) -> SparseTensor:
        """Channel to space: (M, 8C) -> (N, C) onto the structure's known finer voxels."""
        fine = self.structure.fine
        if fine is None:
            raise ValueError("the structure knows no finer level; subdivide it first")
        rows = self.feats.view(len(self.feats) * 8, -1)
        return SparseTensor(rows.index_select(0, self.structure.fine_rows), fine)


def make_sparse_tensor(
    feats: Tensor, coords: Tensor, batch_size: int | None = None
) -> SparseTensor:
    """Make a tensor from features (N, C) and coordinates (N, 4) int32 [batch, x, y, z]."""
    return SparseTensor(feats, Structure(coords.to(torch.int32), batch_size))
