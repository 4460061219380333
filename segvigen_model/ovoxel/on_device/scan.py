"""Where triangles cross the grid's edges, and the set of voxels round the crossings.

The twin of `voxel_set`: lines and columns of all triangles are listed at once instead of one by
one; every number goes through the same operations in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from segvigen_model.ovoxel.on_device.ragged import BUDGET, expand_counts, split_slices


@dataclass(frozen=True, slots=True, eq=False)
class Crossings:
    """Crossed grid edges, by face, then axis, line and column.

    Attributes:
        face: (H,) int64.
        axis: (H,) int64, 0..2, direction of the edge.
        cell: (H, 3) int64, the lowest of the four voxels round the edge.
        depth: (H,) float64, the crossing's coordinate along `axis`, voxel units.
    """

    face: Tensor
    axis: Tensor
    cell: Tensor
    depth: Tensor

    def find_voxels_around(self) -> Tensor:
        """(H, 4, 3) int64: the voxels round each edge, the lowest first."""
        corner = torch.arange(4, device=self.cell.device)
        steps = torch.stack([torch.zeros_like(corner), corner & 1, corner >> 1], dim=1)  # (4, 3)
        turned = torch.stack([steps.roll(axis, dims=1) for axis in range(3)])
        return self.cell[:, None, :] + turned[self.axis]

    def compute_points(self) -> Tensor:
        """(H, 3) float64: where the edges are crossed, voxel units."""
        point = self.cell.double() + 1.0
        return point.scatter(1, self.axis[:, None], self.depth[:, None])


@dataclass(frozen=True, slots=True, eq=False)
class ActiveVoxels:
    """The active voxels of a mesh.

    Attributes:
        grid: voxels along each axis.
        keys: (N,) int64 linear indices (x * grid + y) * grid + z, ascending.
    """

    grid: int
    keys: Tensor

    def __len__(self) -> int:
        """Number of voxels."""
        return len(self.keys)

    def list_coords(self) -> Tensor:
        """(N, 3) int32, ascending (x, y, z)."""
        x, rest = self.keys // self.grid**2, self.keys % self.grid**2
        return torch.stack([x, rest // self.grid, rest % self.grid], dim=1).int()

    def find_rows(self, cells: Tensor) -> Tensor:
        """(..., 3) int64 cells inside the grid -> (...) int64 row, -1 where not active."""
        wanted = compute_linear_index(cells, self.grid)
        rows = torch.searchsorted(self.keys, wanted).clamp_(max=max(len(self) - 1, 0))
        return torch.where(self.keys[rows] == wanted, rows, -1)


def compute_linear_index(cells: Tensor, grid: int) -> Tensor:
    """(..., 3) int64 -> (...) int64 linear index, ascending with (x, y, z)."""
    return (cells[..., 0] * grid + cells[..., 1]) * grid + cells[..., 2]


def find_active(
    triangles: Tensor, grid: int, max_crossings: int, budget: int = BUDGET
) -> ActiveVoxels | None:
    """Find the active voxels.

    Args:
        triangles: (F, 3, 3) float64, voxel units from the grid's lower corner.
        grid: voxels along each axis.
        max_crossings: give up on a mesh that crosses more grid edges.
        budget: rows worked on at once.

    Returns:
        The voxels, or None for such a mesh.
    """
    keys = torch.zeros(0, dtype=torch.int64, device=triangles.device)
    total = 0
    for found in list_crossings(triangles, grid, budget // 4):
        total += len(found.face)
        if total > max_crossings:
            return None
        keys = torch.unique(
            torch.cat([keys, compute_linear_index(found.find_voxels_around(), grid).reshape(-1)])
        )
    return ActiveVoxels(grid, keys)


def list_crossings(triangles: Tensor, grid: int, budget: int = BUDGET) -> Iterator[Crossings]:
    """List where triangles cross grid edges, in slices.

    Args:
        triangles: (F, 3, 3) float64, voxel units from the grid's lower corner.
        grid: voxels along each axis.
        budget: about how many lines, and how many crossings, are held at once.
    """
    budget = max(1, budget)
    step = max(1, budget // 3)  # a triangle makes a unit per axis
    for first in range(0, len(triangles), step):
        corners = _rotate_axes(triangles[first : first + step])
        start, middle, stop = _find_line_range(corners, grid)
        for units, total in split_slices((stop - start).clamp_(min=0), budget):
            unit, line = expand_counts((stop - start).clamp_(min=0)[units], total)
            line = line + start[units][unit]
            x0, x1, z0, z1 = _find_line_ends(corners[units][unit], line, middle[units][unit])
            unit = unit + (3 * first + units.start)
            yield from _list_columns(unit, line, (x0, x1, z0, z1), grid, budget)


def _rotate_axes(triangles: Tensor) -> Tensor:
    """(F, 3, 3) -> (3F, 3, 3): per axis, columns (axis, across, along), corners by rising along."""
    turned = torch.stack([triangles.roll(-axis, dims=2) for axis in range(3)], dim=1)
    units = turned.reshape(-1, 3, 3)
    order = torch.argsort(units[:, :, 2], dim=1, stable=True)
    return torch.gather(units, 1, order[:, :, None].expand(-1, -1, 3))


def _find_line_range(corners: Tensor, grid: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lines that each unit's corners lie behind, as (3F,) int64 first, middle and last."""
    first, middle, last = _truncate(corners[:, :, 2], grid).unbind(dim=1)
    return first, middle, last


def _truncate(values: Tensor, grid: int) -> Tensor:
    """Truncate to a cell; clamped first, as far numbers have no integer."""
    return values.clamp(-1.0, float(grid)).long().clamp_(0, grid - 1)


def _find_line_ends(
    corners: Tensor, line: Tensor, middle: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where lines enter and leave their triangle: across and axis coordinates, entering first."""
    low, mid, high = corners.unbind(dim=1)
    is_low = (line < middle)[:, None]
    # Below the middle corner both sides start at the lowest corner, above it at the highest.
    tip, far = torch.where(is_low, low, high), torch.where(is_low, high, low)
    at = line.double() + 1.0
    z0, x0 = _interpolate(tip[:, 2], mid[:, 2], at, tip, mid)
    z1, x1 = _interpolate(tip[:, 2], far[:, 2], at, tip, far)
    is_turned = x0 > x1
    x0, x1 = torch.where(is_turned, x1, x0), torch.where(is_turned, x0, x1)
    z0, z1 = torch.where(is_turned, z1, z0), torch.where(is_turned, z0, z1)
    return x0, x1, z0, z1


def _interpolate(
    start: Tensor, end: Tensor, at: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Interpolate the first two columns of points; an empty way takes its start."""
    share = ((at - start) / (end - start))[:, None]
    between = (1.0 - share) * low[:, :2] + share * high[:, :2]
    axis, across = torch.where((start == end)[:, None], low[:, :2], between).unbind(dim=1)
    return axis, across


def _list_columns(
    unit: Tensor,
    line: Tensor,
    ends: tuple[Tensor, Tensor, Tensor, Tensor],
    grid: int,
    budget: int,
) -> Iterator[Crossings]:
    """List the grid edges between the ends of lines."""
    x0, x1, z0, z1 = ends
    first = _truncate(x0, grid)
    counts = (_truncate(x1, grid) - first).clamp_(min=0)
    for lines, total in split_slices(counts, budget):
        row, column = expand_counts(counts[lines], total)
        row = row + lines.start
        column = column + first[row]
        start, end = x0[row], x1[row]
        share = (column.double() + 1.0 - start) / (end - start)
        depth = (1.0 - share) * z0[row] + share * z1[row]
        depth = torch.where(start == end, z0[row], depth)
        cell = depth.clamp(-1.0, float(grid)).long()
        kept = torch.nonzero((cell >= 0) & (cell < grid))[:, 0]
        face, axis = unit[row[kept]] // 3, unit[row[kept]] % 3
        turned = torch.stack([cell[kept], column[kept], line[row[kept]]], dim=1)
        place = (torch.arange(3, device=axis.device) - axis[:, None]) % 3
        yield Crossings(face, axis, torch.gather(turned, 1, place), depth[kept])
