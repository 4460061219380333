"""Dual vertices and edge flags: the twin of `ovoxel.dual_grid`, in the same voxel coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segvigen_model.ovoxel.dual_grid import BOUNDARY_WEIGHT, REGULARIZATION
from segvigen_model.ovoxel.on_device.boundary import add_boundary
from segvigen_model.ovoxel.on_device.ragged import (
    BUDGET,
    add_in_order,
    compute_root,
    expand_counts,
    split_slices,
)
from segvigen_model.ovoxel.on_device.scan import ActiveVoxels, list_crossings
from segvigen_model.ovoxel.on_device.solve import solve

UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # stored half of a symmetric matrix


def compute_dual_grid(
    triangles: Tensor, faces: Tensor, voxels: ActiveVoxels, budget: int = BUDGET
) -> tuple[Tensor, Tensor]:
    """Place the dual vertices and flag the crossed edges.

    Args:
        triangles: (F, 3, 3) float64, voxel units from the grid's lower corner.
        faces: (F, 3) int64 vertex numbers; edges of one face only are the boundary.
        voxels: the mesh's active voxels.
        budget: rows worked on at once.

    Returns:
        (N, 3) float64 dual vertices in 0..1 of their voxel, and (N, 3) bool, far edge along each
        axis crossed.
    """
    sums = torch.zeros(len(voxels), 14, dtype=torch.float64, device=triangles.device)
    flags = torch.zeros(len(voxels), 3, dtype=torch.bool, device=triangles.device)
    _add_crossings(triangles, voxels, sums, flags, budget)
    _add_faces(triangles, voxels, sums, budget)
    add_boundary(triangles, faces, voxels, sums, BOUNDARY_WEIGHT, budget)
    return solve(sums, REGULARIZATION, budget), flags


def dot3(a: Tensor, b: Tensor) -> Tensor:
    """(..., 3), (..., 3) -> (...); added from left to right like the compiled kernels."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def compute_unit_normals(triangles: Tensor) -> tuple[Tensor, Tensor]:
    """(F, 3, 3) -> (F, 3) unit normals, zero without area, and (F,) lengths before scaling."""
    one, two = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    entries = []
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        entries.append(one[:, i] * two[:, j] - one[:, j] * two[:, i])
    normal = torch.stack(entries, dim=1)
    length = compute_root(dot3(normal, normal))
    scaled = normal / torch.where(length > 0.0, length, 1.0)[:, None]
    return scaled, length


def _build_plane_quadrics(normal: Tensor, offset: Tensor) -> Tensor:
    """(H, 3) normals and (H,) offsets -> (H, 10) entries of the plane's quadric."""
    matrix = [normal[:, i] * normal[:, j] for i, j in UPPER]
    vector = [normal[:, k] * offset for k in range(3)]
    return torch.stack([*matrix, *vector, offset * offset], dim=1)


def _add_crossings(
    triangles: Tensor, voxels: ActiveVoxels, sums: Tensor, flags: Tensor, budget: int
) -> None:
    for found in list_crossings(triangles, voxels.grid, budget // 4):
        corners = triangles[found.face]
        normal, _ = compute_unit_normals(corners)
        plane = -dot3(normal, corners[:, 0])
        cells = found.find_voxels_around()  # (H, 4, 3)
        rows = voxels.find_rows(cells)
        local = found.compute_points()[:, None, :] - cells
        offset = plane[:, None]
        for k in range(3):
            offset = offset + normal[:, None, k] * cells[:, :, k]
        normals = normal[:, None, :].expand(-1, 4, -1).reshape(-1, 3)
        quadric = _build_plane_quadrics(normals, offset.reshape(-1))
        hit = torch.cat([local.reshape(-1, 3), torch.ones_like(quadric[:, :1]), quadric], dim=1)
        add_in_order(sums, rows.reshape(-1), hit)
        flags[rows[:, 0], found.axis] = True


@dataclass(frozen=True, slots=True, eq=False)
class _Planes:
    """Triangles as the overlap test reads them, axes turned to (deep, across, along).

    Attributes:
        turn: (F, 3) int64 axis that stands in each place; the plane is steepest along the first.
        slope: (F, 3) normal's components, turned.
        normal: (F, 3) not turned.
        offset, near, far: (F,) plane offset, and its bounds over a voxel's box.
        low, high: (F, 3) int64 bounding box in voxels, turned.
        edges: (F, dropped axis, edge, 3) edge functions, turned.
        columns: (F,) int64 columns of the bounding box; none without area.
    """

    turn: Tensor
    slope: Tensor
    normal: Tensor
    offset: Tensor
    near: Tensor
    far: Tensor
    low: Tensor
    high: Tensor
    edges: Tensor
    columns: Tensor


def _prepare_planes(triangles: Tensor, grid: int) -> _Planes:
    normal, length = compute_unit_normals(triangles)
    offset = -dot3(normal, triangles[:, 0])
    near, far = offset, offset
    for k in range(3):
        near = near + normal[:, k].clamp(max=0.0)
        far = far + normal[:, k].clamp(min=0.0)
    axes = torch.arange(3, device=triangles.device)
    turn = (_find_steepest_axis(normal)[:, None] + axes) % 3
    box = torch.stack([triangles.amin(dim=1), triangles.amax(dim=1)]).floor()
    low, high = box.clamp(-1.0, float(grid)).long().unbind()
    low = torch.gather(low.clamp_(min=0), 1, turn)
    high = torch.gather(high.clamp_(max=grid - 1), 1, turn)
    sides = (high - low + 1).clamp_(min=0)
    edges = _compute_edge_functions(triangles, normal)
    return _Planes(
        turn=turn,
        slope=torch.gather(normal, 1, turn),
        normal=normal,
        offset=offset,
        near=near,
        far=far,
        low=low,
        high=high,
        edges=torch.gather(edges, 1, turn[:, :, None, None].expand(-1, -1, 3, 3)),
        columns=torch.where(length > 0.0, sides[:, 1] * sides[:, 2], 0),
    )


def _add_faces(triangles: Tensor, voxels: ActiveVoxels, sums: Tensor, budget: int) -> None:
    """Add each triangle's plane once to every active voxel whose closed box it overlaps.

    Columns run along the plane's steepest axis, as in the compiled kernel.
    """
    for part in torch.split(triangles, budget):
        planes = _prepare_planes(part, voxels.grid)
        for run, total in split_slices(planes.columns, budget):
            face, place = expand_counts(planes.columns[run], total)
            face = face + run.start
            low, width = planes.low[face], (planes.high - planes.low + 1)[face, 2]
            i, j = low[:, 1] + place // width, low[:, 2] + place % width
            kept = torch.nonzero(_is_inside(planes.edges[face, 0], i, j))[:, 0]
            _add_columns(planes, (face[kept], i[kept], j[kept]), voxels, sums, budget)


def _add_columns(
    planes: _Planes,
    column: tuple[Tensor, Tensor, Tensor],
    voxels: ActiveVoxels,
    sums: Tensor,
    budget: int,
) -> None:
    """Add planes to the voxels of columns that they meet; columns are (face, across, along)."""
    face, i, j = column
    base = planes.slope[face, 1] * i + planes.slope[face, 2] * j
    # The plane meets the column between these depths; one cell of slack for rounding.
    ends = [-(base + side[face]) / planes.slope[face, 0] for side in (planes.near, planes.far)]
    reach = torch.stack([torch.minimum(*ends), torch.maximum(*ends)]).floor()
    reach = reach.clamp_(-2.0, voxels.grid + 1.0).long()
    start = torch.maximum(reach[0] - 1, planes.low[face, 0])
    depths = (torch.minimum(reach[1] + 1, planes.high[face, 0]) - start + 1).clamp_(min=0)
    for run, total in split_slices(depths, budget):
        at, k = expand_counts(depths[run], total)
        at = at + run.start
        k, of, a, b = k + start[at], face[at], i[at], j[at]
        level = base[at] + planes.slope[of, 0] * k
        is_met = (level + planes.near[of]) * (level + planes.far[of]) <= 0.0
        is_met &= _is_inside(planes.edges[of, 1], b, k) & _is_inside(planes.edges[of, 2], k, a)
        cells = torch.zeros(total, 3, dtype=torch.int64, device=k.device)
        cells.scatter_(1, planes.turn[of], torch.stack([k, a, b], dim=1))
        rows = voxels.find_rows(cells)
        hit = torch.nonzero(is_met & (rows >= 0))[:, 0]
        quadric = _build_plane_quadrics(planes.normal[of[hit]], (level + planes.offset[of])[hit])
        add_in_order(sums[:, 4:], rows[hit], quadric)


def _find_steepest_axis(normal: Tensor) -> Tensor:
    """(F, 3) -> (F,) axis of the largest component, the first of equals."""
    size = normal.abs()
    deep = (size[:, 1] > size[:, 0]).long()
    return torch.where(size[:, 2] > torch.maximum(size[:, 0], size[:, 1]), 2, deep)


def _compute_edge_functions(triangles: Tensor, normal: Tensor) -> Tensor:
    """(F, dropped axis, edge, 3): inward edge functions, grown by a voxel's extent."""
    projections = []
    for dropped in range(3):
        u, v = (dropped + 1) % 3, (dropped + 2) % 3
        sign = torch.where(normal[:, dropped] >= 0, 1.0, -1.0)[:, None].double()
        ahead = triangles.roll(-1, dims=1)
        slope0 = -(ahead[:, :, v] - triangles[:, :, v]) * sign
        slope1 = (ahead[:, :, u] - triangles[:, :, u]) * sign
        inner = slope0 * triangles[:, :, u] + slope1 * triangles[:, :, v]
        offset = slope0.clamp(min=0.0) + slope1.clamp(min=0.0) - inner
        projections.append(torch.stack([slope0, slope1, offset], dim=2))
    return torch.stack(projections, dim=1)


def _is_inside(edge: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """(H, 3, 3) edge functions at (H,) cells -> (H,) bool."""
    inner = edge[:, :, 0] * i[:, None] + edge[:, :, 1] * j[:, None] + edge[:, :, 2]
    return (inner >= 0.0).all(dim=1)
