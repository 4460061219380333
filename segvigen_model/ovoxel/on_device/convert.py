"""A surface in voxel units to voxels on a device: the twin of `convert.voxelise`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from segvigen_model.ovoxel.attributes import Surface
from segvigen_model.ovoxel.on_device.attributes import copy_surface, sample_attributes
from segvigen_model.ovoxel.on_device.dual_grid import compute_dual_grid
from segvigen_model.ovoxel.on_device.ragged import BUDGET
from segvigen_model.ovoxel.on_device.scan import find_active
from segvigen_model.ovoxel.on_device.textures import copy_materials
from segvigen_model.ovoxel.textures import pack_materials
from segvigen_model.ovoxel.voxel_set import (
    MAX_CROSSINGS,
    VoxelAttributes,
    check_grid,
    make_too_dense_error,
)
from segvigen_model.types import IntArray, Material


@torch.no_grad()
# Two bounds on memory, by name, beside the inputs.
def voxelise(
    surface: Surface,
    faces: IntArray,
    materials: Sequence[Material],
    grid: int,
    *,
    device: torch.device,
    budget: int = BUDGET,
    max_crossings: int = MAX_CROSSINGS,
) -> VoxelAttributes:
    """Convert a surface in voxel units by torch.

    Args:
        surface: triangles and what is on them.
        faces: (F, 3) int64 vertex numbers.
        materials: at least one.
        grid: voxels along each axis.
        device: any with float64.
        budget: rows worked on at once; bounds memory, changes no result.
        max_crossings: refuse a mesh that crosses more grid edges.
    """
    check_grid(grid)
    given = copy_surface(surface, device)
    voxels = find_active(given.triangles, grid, max_crossings, budget)
    if voxels is None:
        raise make_too_dense_error(grid, max_crossings)
    if not len(voxels):
        return _make_empty()
    dual, intersected = compute_dual_grid(
        given.triangles, torch.from_numpy(faces).to(device), voxels, budget
    )
    attributes = sample_attributes(
        given, copy_materials(pack_materials(materials), device), voxels, budget
    )
    return VoxelAttributes(
        coords=voxels.list_coords().cpu().numpy(),
        dual=dual.cpu().numpy(),
        intersected=intersected.cpu().numpy(),
        attributes={name: values.contiguous().cpu().numpy() for name, values in attributes.items()},
    )


def _make_empty() -> VoxelAttributes:
    none = np.zeros((0, 3))
    return VoxelAttributes(none.astype(np.int32), none, none.astype(np.bool_), {})
