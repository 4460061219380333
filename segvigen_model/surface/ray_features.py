"""Rays through the voxels of a surface: how thick an object is at a point, how free its outside.

Voxels instead of triangles, since an answer within a voxel or two is enough, meshes may be open
or inside out, and no ray library is needed.
"""

from __future__ import annotations

import numba
import numpy as np

from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.sampling import sample_faces
from segvigen_model.types import BoolArray, FloatArray

LONGEST = 1.0  # longest sides; what is hit later, or never, counts as this
_SKIP = 2.5  # voxels at the start, which belong to the surface that the ray leaves
_STEP = 0.5  # voxels
_NUM_SIDE_RAYS = 8


def build_occupancy_grid(surface: Surface, middle: FloatArray, grid: int) -> BoolArray:
    """(G, G, G) bool: voxels of the bounding cube round `middle` that hold surface."""
    points = sample_faces(surface.triangles, surface.areas, 0.6 * surface.extent / grid).xyz
    cells = np.floor(((points - middle) / surface.extent + 0.5) * grid).astype(np.int64)
    filled = np.zeros((grid,) * 3, bool)
    filled[tuple(np.clip(cells, 0, grid - 1).T)] = True
    return filled


def measure_ray_lengths(
    grid: BoolArray, origins: FloatArray, axes: FloatArray, wide: float
) -> FloatArray:
    """Follow a cone of rays from every point to the first filled voxel.

    Args:
        grid: (G, G, G) filled voxels of the cube [-0.5, 0.5].
        origins: (N, 3) float, that cube's frame.
        axes: (N, 3) unit vectors.
        wide: slope of the outer rays against the axis: 0 = parallel, 1 = 45 degrees.

    Returns:
        (N, 9) float32 lengths in longest sides, at most LONGEST.
    """
    turn = np.arange(_NUM_SIDE_RAYS) * (2 * np.pi / _NUM_SIDE_RAYS)
    slope = np.where(np.arange(_NUM_SIDE_RAYS) % 2 == 0, wide, 0.5 * wide)
    helper = np.where(np.abs(axes[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    first = np.cross(axes, helper)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    second = np.cross(axes, first)
    side = np.cos(turn)[:, None] * first[:, None] + np.sin(turn)[:, None] * second[:, None]
    rays = np.concatenate([axes[:, None], axes[:, None] + slope[:, None] * side], axis=1)
    rays /= np.maximum(np.linalg.norm(rays, axis=2, keepdims=True), 1e-12)
    lengths: FloatArray = _march_rays(grid, origins.astype(np.float64), rays.astype(np.float64))
    return lengths


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _march_rays(grid: BoolArray, origins: FloatArray, rays: FloatArray) -> FloatArray:
    size = grid.shape[0]
    out = np.full(rays.shape[:2], LONGEST, np.float32)
    for i in range(rays.shape[0]):
        for j in range(rays.shape[1]):
            direction = _SKIP
            while direction < LONGEST * size:
                x = int(np.floor((origins[i, 0] + 0.5) * size + direction * rays[i, j, 0]))
                y = int(np.floor((origins[i, 1] + 0.5) * size + direction * rays[i, j, 1]))
                z = int(np.floor((origins[i, 2] + 0.5) * size + direction * rays[i, j, 2]))
                if min(x, y, z) < 0 or max(x, y, z) >= size:
                    break
                if grid[x, y, z]:
                    out[i, j] = direction / size
                    break
                direction += _STEP
    return out
