"""Which voxels exist at one level, and what follows from it: lengths, neighbours, coarser levels.

A `Structure` is immutable; every derived map is computed on first use and then shared by all
tensors, layers and steps that live on it. Rows of one asset are contiguous. A coarse structure
remembers the fine one it was folded from, so that a decoder can follow the encoder's voxels.
"""

from __future__ import annotations

import weakref
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

KERNEL_VOLUME = 27
KEY_STRIDE = 8192  # twice the largest coordinate, so that a step off the grid meets nothing
DENSE_TABLE_LIMIT = 1 << 25  # entries; above this, sorted search needs less memory than a table


def list_kernel_offsets(device: torch.device | str = "cpu") -> Tensor:
    """(27, 3) int64 offsets of a 3x3x3 kernel in (x, y, z), x slowest: row 13 is the centre."""
    steps = torch.arange(-1, 2, device=device)
    return torch.cartesian_prod(steps, steps, steps)


class Structure:
    """The active voxels of a batch of assets at one level.

    Args:
        coords: (N, 4) int32 rows [batch, x, y, z], batch ascending, coordinates 0..4095.
        batch_size: number of assets; counts from `coords` when None.
        fine: the finer structure whose cells these voxels are, when known.
        fine_rows: (N_fine,) int64, 8 * (row here) + child slot of every fine voxel.
    """

    def __init__(
        self,
        coords: Tensor,
        batch_size: int | None = None,
        fine: Structure | None = None,
        fine_rows: Tensor | None = None,
    ) -> None:
        self.coords = coords
        self.fine = fine
        self._fine_rows = fine_rows
        self._batch_size = batch_size
        self._coarse: weakref.ref[Structure] | None = None
        self.backend_cache: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def device(self) -> torch.device:
        """Where the coordinates live."""
        return self.coords.device

    @property
    def batch_size(self) -> int:
        """Number of assets in the batch."""
        return len(self.lengths)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Voxels per asset."""
        counts = torch.bincount(self.coords[:, 0].long(), minlength=self._batch_size or 0)
        return tuple(int(count) for count in counts.tolist())

    @cached_property
    def batch_index(self) -> Tensor:
        """(N,) int64, asset of every voxel."""
        return self.coords[:, 0].long()

    @cached_property
    def neighbours(self) -> Tensor:
        """(N, 27) int32 row of the voxel at each kernel offset; N where there is none."""
        return _find_neighbours(self.coords)

    @property
    def fine_rows(self) -> Tensor:
        """(N_fine,) int64, 8 * (row here) + child slot of every voxel of `fine`."""
        if self._fine_rows is None:
            raise ValueError("this structure was not folded from a finer one")
        return self._fine_rows

    @cached_property
    def subdivision(self) -> Tensor:
        """(N, 8) bool, which children exist in `fine`; slot = x%2 + 2*(y%2) + 4*(z%2)."""
        mask = torch.zeros(len(self) * 8, dtype=torch.bool, device=self.device)
        mask[self.fine_rows] = True
        return mask.view(-1, 8)

    def without_fine(self) -> Structure:
        """Return the same voxels with no memory of finer levels: a decoder must predict them."""
        return Structure(self.coords, self._batch_size)

    def fold(self) -> Structure:
        """Return the structure of cells of 2x2x2 voxels, ascending (batch, x, y, z)."""
        known = self._coarse() if self._coarse is not None else None
        if known is not None:
            return known
        coarse = _fold_structure(self)
        # A strong reference would make a cycle, and cycles keep big neighbour maps alive.
        self._coarse = weakref.ref(coarse)
        return coarse

    def unfold(self, subdivision: Tensor) -> Structure:
        """Return this structure with `fine` made of the children that exist.

        Args:
            subdivision: (N, 8) bool.

        Returns:
            The same voxels, whose `fine` lists children parent by parent, slot ascending.
        """
        rows = subdivision.reshape(-1).nonzero()[:, 0]
        parents, slots = rows // 8, rows % 8
        bits = torch.stack([torch.zeros_like(slots), slots & 1, (slots >> 1) & 1, slots >> 2], 1)
        scale = torch.tensor([1, 2, 2, 2], device=self.device)
        fine = (self.coords.long()[parents] * scale + bits).to(torch.int32)
        return Structure(self.coords, self._batch_size, Structure(fine, self._batch_size), rows)


def fold_levels(coords: Tensor, num_levels: int, batch_size: int | None = None) -> Structure:
    """Fold voxels `num_levels` times; the result leads back to them through `fine`.

    Args:
        coords: (N, 4) int32 rows [batch, x, y, z].
        num_levels: how often to halve the grid.
        batch_size: number of assets, counted when None.
    """
    structure = Structure(coords, batch_size)
    for _ in range(num_levels):
        structure = structure.fold()
    return structure


def _compute_keys(coords: Tensor) -> Tensor:
    """(N,) int64, ascending in (batch, x, y, z)."""
    asset, x, y, z = coords.long().unbind(dim=1)
    return ((asset * KEY_STRIDE + x) * KEY_STRIDE + y) * KEY_STRIDE + z


def _fold_structure(structure: Structure) -> Structure:
    coords = structure.coords
    halved = coords.clone()
    halved[:, 1:] = coords[:, 1:] >> 1
    keys, parents = torch.unique(_compute_keys(halved), return_inverse=True)
    coarse = torch.stack(
        [
            keys // KEY_STRIDE**3,
            keys // KEY_STRIDE**2 % KEY_STRIDE,
            keys // KEY_STRIDE % KEY_STRIDE,
            keys % KEY_STRIDE,
        ],
        dim=1,
    ).to(torch.int32)
    slots = (coords[:, 1] & 1) + 2 * (coords[:, 2] & 1) + 4 * (coords[:, 3] & 1)
    return Structure(coarse, structure._batch_size, structure, parents * 8 + slots)


def _find_neighbours(coords: Tensor) -> Tensor:
    if len(coords) == 0:
        return torch.zeros(0, KERNEL_VOLUME, dtype=torch.int32, device=coords.device)
    size = coords.amax(dim=0).long() + torch.tensor([1, 3, 3, 3], device=coords.device)
    dims = [int(extent) for extent in size.tolist()]
    if dims[0] * dims[1] * dims[2] * dims[3] <= DENSE_TABLE_LIMIT:
        return _find_neighbours_by_table(coords, dims)
    return _find_neighbours_by_search(coords)


def _find_neighbours_by_table(coords: Tensor, dims: list[int]) -> Tensor:
    """Look rows up in a dense table padded by one voxel: fastest for small grids."""
    _, nx, ny, nz = dims
    num = len(coords)
    strides = torch.tensor([nx * ny * nz, ny * nz, nz, 1], device=coords.device)
    shift = torch.tensor([0, 1, 1, 1], device=coords.device)
    keys = ((coords + shift) * strides).sum(dim=1)
    table = torch.full((dims[0] * nx * ny * nz,), num, dtype=torch.int32, device=coords.device)
    table[keys] = torch.arange(num, dtype=torch.int32, device=coords.device)
    steps = (list_kernel_offsets(coords.device) * strides[1:]).sum(dim=1)
    return table[keys[:, None] + steps[None, :]]


def _find_neighbours_by_search(coords: Tensor) -> Tensor:
    """Binary search on sorted keys for 13 offsets; the other 13 follow by symmetry."""
    num = len(coords)
    padded = coords.clone()
    padded[:, 1:] += 1  # so that an offset of -1 cannot wrap into the next row of the grid
    keys, order = torch.sort(_compute_keys(padded))
    steps = (
        list_kernel_offsets(coords.device)
        * torch.tensor([KEY_STRIDE**2, KEY_STRIDE, 1], device=coords.device)
    ).sum(dim=1)
    rows = torch.arange(num, device=coords.device, dtype=torch.int32)
    result = torch.full((num, KERNEL_VOLUME), num, dtype=torch.int32, device=coords.device)
    result[:, KERNEL_VOLUME // 2] = rows
    for offset in range(KERNEL_VOLUME // 2):
        wanted = keys + steps[offset]
        found = torch.searchsorted(keys, wanted).clamp_(max=num - 1)
        hit = keys[found] == wanted
        here, there = order[hit], order[found[hit]]
        result[here, offset] = there.to(torch.int32)
        result[there, KERNEL_VOLUME - 1 - offset] = here.to(torch.int32)
    return result
