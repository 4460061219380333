"""From a mesh to its O-Voxel, normalised and quantised as SegviGen does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from segvigen_model.coords import fit_frame, mesh_to_unit
from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.strays import find_stray_faces
from segvigen_model.ovoxel.attributes import Surface, sample_attributes
from segvigen_model.ovoxel.dual_grid import compute_dual_grid
from segvigen_model.ovoxel.textures import pack_materials
from segvigen_model.ovoxel.voxel_set import VoxelAttributes, find_voxels
from segvigen_model.types import (
    AssetMesh,
    ByteArray,
    FloatArray,
    IntArray,
    Material,
    OVoxel,
)

LOWER = np.float32(-0.5)  # lower corner of the unit cube


Backend = Literal["auto", "compiled", "torch"]


def mesh_to_ovoxel(
    mesh: AssetMesh, grid: int, device: str | torch.device = "cpu", backend: Backend = "auto"
) -> OVoxel:
    """Convert a mesh.

    Args:
        mesh: any triangles, mesh frame.
        grid: voxels along each axis of the unit cube, 1..1024.
        device: where to compute; the result always lies on the host.
        backend: "compiled" kernels (CPU only), "torch" (any device with float64), or "auto":
            compiled on a CPU, torch elsewhere. Both give the same voxels.

    Returns:
        The O-Voxel with rows in ascending (x, y, z) and the frame that leads back to the mesh.

    Raises:
        AssetRejected: no voxel is touched, or the mesh is far too dense for the grid.
    """
    is_stray = find_stray_faces(mesh.triangles)
    if is_stray.any():  # outside the grid
        mesh = mesh.take_faces(np.flatnonzero(~is_stray))
    frame = fit_frame(mesh.used_vertices)
    triangles = to_voxel_units(mesh_to_unit(mesh.vertices, frame).astype(np.float32), grid)
    surface = _build_surface(mesh, np.ascontiguousarray(triangles[mesh.faces]))
    voxels = _choose_backend(backend, torch.device(device))(
        surface, mesh.faces, mesh.materials, grid
    )
    if len(voxels.coords) == 0:
        raise AssetRejected(
            "degenerate", f"no edge of a {grid}^3 grid meets the surface; is it a line or point?"
        )
    return OVoxel(
        grid=grid,
        coords=voxels.coords,
        dual=quantise(voxels.dual),
        intersected=voxels.intersected,
        frame=frame,
        **voxels.attributes,
    )


def _choose_backend(
    backend: Backend, device: torch.device
) -> Callable[[Surface, IntArray, tuple[Material, ...], int], VoxelAttributes]:
    if backend == "compiled" or (backend == "auto" and device.type == "cpu"):
        return voxelise
    # Imported here: its modules take their constants from this folder's.
    from segvigen_model.ovoxel.on_device import convert as on_device

    return partial(on_device.voxelise, device=device)


def voxelise(
    surface: Surface, faces: IntArray, materials: Sequence[Material], grid: int
) -> VoxelAttributes:
    """Convert a surface in voxel units by the compiled kernels.

    Args:
        surface: triangles and what is on them.
        faces: (F, 3) int64 vertex numbers.
        materials: at least one.
        grid: voxels along each axis.
    """
    voxels = find_voxels(surface.triangles, grid)
    dual, intersected = compute_dual_grid(surface.triangles, faces, voxels)
    attributes = sample_attributes(surface, pack_materials(materials), voxels)
    return VoxelAttributes(voxels.coords, dual, intersected, attributes)


def to_voxel_units(vertices: FloatArray, grid: int) -> FloatArray:
    """Shift unit-cube vertices to the grid's corner in float32, as the official code does.

    Args:
        vertices: (V, 3) float32, unit frame.
        grid: voxels along each axis.

    Returns:
        (V, 3) float64, voxel units.
    """
    return (vertices - LOWER).astype(np.float64) * grid


def quantise(dual: FloatArray) -> ByteArray:
    """Quantise dual vertices: (N, 3) float 0..1 of their voxel -> uint8, cut off downwards."""
    return (np.clip(dual, 0.0, 1.0) * 255.0).astype(np.uint8)


def _build_surface(mesh: AssetMesh, triangles: FloatArray) -> Surface:
    num = len(mesh.faces)
    normals: NDArray[np.float32] = np.zeros(
        (num, 3, 3), dtype=np.float32
    )  # zero: the kernel takes the face's own
    if mesh.vertex_normals is not None:
        normals = np.ascontiguousarray(mesh.vertex_normals[mesh.faces], dtype=np.float32)
    uvs: NDArray[np.float32] = np.zeros((num, 3, 2), dtype=np.float32)
    if mesh.corner_uv is not None:
        uvs = np.ascontiguousarray(mesh.corner_uv, dtype=np.float32)
    colors: NDArray[np.float32] = np.ones((1, 3, 4), dtype=np.float32)
    if mesh.vertex_colors is not None:
        colors = (mesh.vertex_colors[mesh.faces] / 255.0).astype(np.float32)
    material = np.ascontiguousarray(mesh.face_material, dtype=np.int32)
    return Surface(triangles, normals, uvs, colors, material)
