"""Boundary edges: which voxels they pass, and the quadric of their lines.

The compiled kernel walks each edge from wall to wall. Here the walls of all edges are listed at
once and put in order by their distance; distances are added up one by one as the walk does it, so
that edges through a voxel's corner turn the same way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segvigen_model.ovoxel.dual_grid import MIN_EDGE
from segvigen_model.ovoxel.on_device.ragged import (
    add_in_order,
    compute_root,
    expand_counts,
    split_slices,
)
from segvigen_model.ovoxel.on_device.scan import ActiveVoxels


# Adds to `sums` in place, as a kernel does.
def add_boundary(
    triangles: Tensor,
    faces: Tensor,
    voxels: ActiveVoxels,
    sums: Tensor,
    weight: float,
    budget: int,
) -> None:
    """Add the quadrics of the lines through boundary edges to the active voxels they pass.

    Args:
        triangles: (F, 3, 3) float64, voxel units.
        faces: (F, 3) int64 vertex numbers.
        voxels: the mesh's active voxels.
        sums: (N, 14) float64, changed in place.
        weight: of a line.
        budget: rows worked on at once.
    """
    segments = triangles.reshape(-1, 3)[find_boundary_corners(faces)]  # (E, 2, 3)
    start, direction = segments[:, 0], segments[:, 1] - segments[:, 0]
    squares = direction * direction
    length = compute_root(squares[:, 0] + squares[:, 1] + squares[:, 2])
    kept = torch.nonzero(length >= MIN_EDGE * voxels.grid)[:, 0]
    start, length, direction = start[kept], length[kept], direction[kept] / length[kept, None]
    # Walls along each axis, with room for rounding; and the voxel that the edge starts in.
    span = (direction * length[:, None]).abs().ceil().long() + 2
    for run, total in split_slices(span.sum(dim=1) + 1, budget):
        passed, cells = _walk_edges(start[run], direction[run], length[run], span[run], total)
        is_inside = ((cells >= 0) & (cells < voxels.grid)).all(dim=1)
        rows = voxels.find_rows(cells.clamp(0, voxels.grid - 1))
        hit = torch.nonzero(is_inside & (rows >= 0))[:, 0]
        of = passed[hit] + run.start
        lines = _build_line_quadrics(direction[of], start[of] - cells[hit], weight)
        add_in_order(sums[:, 4:], rows[hit], lines)


def find_boundary_corners(faces: Tensor) -> Tensor:
    """Edges used by exactly one face, as (E, 2) numbers of corners (face * 3 + corner)."""
    start = torch.arange(faces.numel(), device=faces.device).reshape(-1, 3)
    ends = torch.stack([start, start.roll(-1, dims=1)], dim=-1).reshape(-1, 2)
    vertices = faces.reshape(-1)[ends]
    keys = vertices.amin(dim=1) * (faces.max() + 1) + vertices.amax(dim=1)
    _, edge, uses = torch.unique(keys, return_inverse=True, return_counts=True)
    return ends[uses[edge] == 1]


def _walk_edges(
    start: Tensor, direction: Tensor, length: Tensor, span: Tensor, total: int
) -> tuple[Tensor, Tensor]:
    """List the voxels along edges: (H,) edge and (H, 3) int64 cell, in the order of the walk."""
    counts = span.reshape(-1)
    num_walls = total - len(start)
    unit, _ = expand_counts(counts, num_walls)
    edge, axis = unit // 3, unit % 3
    distance = _compute_wall_distances(start, direction, counts, num_walls)
    num_taken = torch.nonzero(distance <= length[edge])[:, 0]
    edge, axis, distance = edge[num_taken], axis[num_taken], distance[num_taken]
    # Equal distances: the lower axis first. Stable sorts, so listing order decides.
    order = torch.argsort(distance, stable=True)
    order = order[torch.argsort(edge[order], stable=True)]
    edge, axis = edge[order], axis[order]
    sign = torch.where(direction > 0, 1, -1)
    steps = torch.nn.functional.one_hot(axis, 3) * sign[edge]
    # The voxel each edge starts in stands before its steps.
    edges = torch.arange(len(start), device=edge.device)
    passed = torch.cat([edges, edge])
    moves = torch.cat([start.floor().long(), steps])
    ranked = torch.argsort(passed, stable=True)
    passed, walked = passed[ranked], torch.cumsum(moves[ranked], 0)
    first = torch.searchsorted(passed, edges)
    before = walked[first] - start.floor().long()
    return passed, walked - before[passed]


def _compute_wall_distances(
    start: Tensor, direction: Tensor, counts: Tensor, num_walls: int
) -> Tensor:
    """(W,) float64 distance of each wall from its edge's start; infinite along still axes."""
    cell = start.floor()
    wall = cell + (direction > 0).double()
    is_still = direction == 0.0
    ahead = torch.where(is_still, torch.inf, (wall - start) / direction).reshape(-1)
    stride = torch.where(is_still, torch.inf, (1.0 / direction).abs()).reshape(-1)
    table = torch.zeros(num_walls, dtype=torch.float64, device=start.device)
    begin = torch.cumsum(counts, 0) - counts
    # Longest lists first: those that still have a wall are always the front of the list.
    order = torch.argsort(counts, descending=True)
    begin, ahead, stride = begin[order], ahead[order], stride[order]
    alive = torch.bincount(counts).flip(0).cumsum(0).flip(0).tolist()
    for step in range(len(alive) - 1):
        front = alive[step + 1]  # lists with more than `step` walls
        table[begin[:front] + step] = ahead[:front]
        ahead[:front] += stride[:front]
    return table


def _build_line_quadrics(direction: Tensor, start: Tensor, weight: float) -> Tensor:
    """(H, 3) directions and starts in the voxel -> (H, 10) entries of the lines' quadrics."""
    products = direction * start
    along = products[:, 0] + products[:, 1] + products[:, 2]
    entries = []
    for i in range(3):
        for j in range(i, 3):
            unit = 1.0 if i == j else 0.0
            entries.append(weight * (unit - direction[:, i] * direction[:, j]))
    for i in range(3):
        entries.append(-(weight * (start[:, i] - direction[:, i] * along)))
    square = start * start
    entries.append(weight * (square[:, 0] + square[:, 1] + square[:, 2] - along * along))
    return torch.stack(entries, dim=1)
