"""Surface attributes of the active voxels: colour, metal, roughness, glow, alpha, normal.

Every triangle that makes a voxel active is sampled at the voxel's centre, projected on the
triangle's plane; samples are averaged with weight 1 - distance. Sums are float32 in face order
like the official converter's, so that pure white stays 255 and pure black 0.
Departs from the official code: the emissive texture has its own mip chain (there it is read with
another texture's), a triangle without area takes its middle instead of dividing by zero.
"""

# Compiled kernels take what numba infers; their types stand in the docstrings.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segvigen_model.ovoxel.compiled import compile_jit
from segvigen_model.ovoxel.dual_grid import compute_unit_normal
from segvigen_model.ovoxel.texture_sampling import compute_tangent_frame, rotate_normal, sample
from segvigen_model.ovoxel.textures import PackedMaterials
from segvigen_model.ovoxel.voxel_set import VoxelSet, find_rank, scan_axis
from segvigen_model.types import ByteArray, FloatArray, IntArray

NUM_SUMS = 14  # weight, colour 3, alpha, metal, rough, glow 3, normal 3, spare


class Surface(NamedTuple):
    """A mesh as the attribute kernel reads it.

    Attributes:
        triangles: (F, 3, 3) float64, voxel units from the grid's lower corner.
        normals: (F, 3, 3) float32, corner normals, unit or zero.
        uvs: (F, 3, 2) float32, v down; zeros where there are none.
        colors: (F, 3, 4) float32, 0..1, or a single row of ones.
        material: (F,) int32.
    """

    triangles: FloatArray
    normals: NDArray[np.float32]
    uvs: NDArray[np.float32]
    colors: NDArray[np.float32]
    material: IntArray


def sample_attributes(
    surface: Surface, materials: PackedMaterials, voxels: VoxelSet
) -> dict[str, ByteArray]:
    """Average the surface's attributes over the active voxels.

    Returns:
        base_color, emissive, normal: (N, 3) uint8; metallic, roughness, alpha: (N,) uint8.
    """
    num = len(voxels.coords)
    sums = np.zeros((num, NUM_SUMS), dtype=np.float32)
    stamps = np.full(num, -1, dtype=np.int64)
    _accumulate(surface, materials, voxels.index, stamps, sums)
    mean = sums[:, 1:] / sums[:, :1]
    mean[:, 9:12] = mean[:, 9:12] * np.float32(0.5) + np.float32(0.5)
    # Multiplying before the clip keeps the official order of rounding.
    quantised = np.clip(mean * np.float32(255.0), 0.0, 255.0).astype(np.uint8)
    return {
        "base_color": quantised[:, 0:3].copy(),
        "alpha": quantised[:, 3].copy(),
        "metallic": quantised[:, 4].copy(),
        "roughness": quantised[:, 5].copy(),
        "emissive": quantised[:, 6:9].copy(),
        "normal": quantised[:, 9:12].copy(),
    }


@compile_jit
def _compute_barycentric(triangle, point, normal, share):
    """Write the barycentric coordinates of a point's projection, unclamped; give the distance."""
    height, d00, d01, d11, d20, d21 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(3):
        height += (point[k] - triangle[0, k]) * normal[k]
    for k in range(3):
        side0, side1 = triangle[1, k] - triangle[0, k], triangle[2, k] - triangle[0, k]
        foot = point[k] - height * normal[k] - triangle[0, k]
        d00 += side0 * side0
        d01 += side0 * side1
        d11 += side1 * side1
        d20 += foot * side0
        d21 += foot * side1
    det = d00 * d11 - d01 * d01
    if det <= 1e-30:
        for k in range(3):
            share[k] = 1.0 / 3.0
        return 0.0
    share[1] = (d11 * d20 - d01 * d21) / det
    share[2] = (d00 * d21 - d01 * d20) / det
    share[0] = 1.0 - share[1] - share[2]
    return height


@compile_jit
def _accumulate(surface, materials, index, stamps, sums):
    grid = index.grid
    cells = np.zeros((grid * grid, 3), dtype=np.int64)
    depths = np.zeros(grid * grid, dtype=np.float64)
    cell = np.zeros(3, dtype=np.int64)
    face_normal, point, share = np.zeros(3), np.zeros(3), np.zeros(3)
    frame = np.zeros((2, 3))
    values = np.zeros(NUM_SUMS)
    for face in range(len(surface.triangles)):
        triangle = surface.triangles[face]
        compute_unit_normal(triangle, face_normal)
        widths = compute_tangent_frame(triangle, surface.uvs[face], grid, frame)
        for axis in range(3):
            across, along = (axis + 1) % 3, (axis + 2) % 3
            for hit in range(scan_axis(triangle, axis, grid, cells, depths)):
                for corner in range(4):
                    cell[axis] = cells[hit, axis]
                    cell[across] = cells[hit, across] + (corner & 1)
                    cell[along] = cells[hit, along] + (corner >> 1)
                    row = find_rank(index, cell)
                    if stamps[row] == face:
                        continue
                    stamps[row] = face
                    for k in range(3):
                        point[k] = cell[k] + 0.5
                    height = _compute_barycentric(triangle, point, face_normal, share)
                    _shade_sample(
                        surface, materials, face, share, face_normal, frame, widths, values
                    )
                    weight = np.float32(1.0 - height / grid)
                    sums[row, 0] += weight
                    for k in range(12):
                        sums[row, 1 + k] += weight * np.float32(values[k])


@compile_jit
def _shade_sample(surface, materials, face, share, face_normal, frame, widths, values):
    """Write colour 3, alpha, metal, rough, glow 3, normal 3 of one surface point to `values`."""
    uvs, normals = surface.uvs[face], surface.normals[face]
    material = surface.material[face]
    slots, factors = materials.slots[material], materials.factors[material]
    u = share[0] * uvs[0, 0] + share[1] * uvs[1, 0] + share[2] * uvs[2, 0]
    v = share[0] * uvs[0, 1] + share[1] * uvs[1, 1] + share[2] * uvs[2, 1]
    found = np.ones(4)
    if slots[0] >= 0:
        sample(materials, slots[0], u, v, widths, found)
    _apply_tint(surface.colors[min(face, len(surface.colors) - 1)], share, found)
    for k in range(4):
        values[k] = found[k] * factors[k]
    values[3] = _apply_alpha_mode(values[3], materials.alpha[material])
    values[4], values[5] = factors[4], factors[5]
    if slots[1] >= 0:
        sample(materials, slots[1], u, v, widths, found)
        values[4] *= found[2]
        values[5] *= found[1]
    for k in range(3):
        found[k] = 1.0
    if slots[2] >= 0:
        sample(materials, slots[2], u, v, widths, found)
    normal = values[9:12]
    for k in range(3):
        values[6 + k] = factors[6 + k] * found[k]
        # Not scaled to unit length, as in the official converter.
        normal[k] = share[0] * normals[0, k] + share[1] * normals[1, k] + share[2] * normals[2, k]
    if normal[0] == 0.0 and normal[1] == 0.0 and normal[2] == 0.0:
        for k in range(3):
            normal[k] = face_normal[k]
    if slots[3] >= 0 and widths > 0.0:
        sample(materials, slots[3], u, v, widths, found)
        rotate_normal(found, frame, normal)


@compile_jit
def _apply_tint(colors, share, found):
    """Multiply a sample by the vertex colours, not continued beyond the triangle."""
    total = 0.0
    for corner in range(3):
        total += min(max(share[corner], 0.0), 1.0)
    for k in range(4):
        tint = 0.0
        for corner in range(3):
            tint += min(max(share[corner], 0.0), 1.0) * colors[corner, k]
        found[k] *= tint / total


@compile_jit
def _apply_alpha_mode(alpha, rule):
    """Apply the alpha mode; compared in float32, as a cutoff of 0.4 means 102 of 255."""
    if rule[0] == 0.0:
        return 1.0
    if rule[0] == 1.0:
        return 1.0 if np.float32(alpha) >= rule[1] else 0.0
    return alpha
