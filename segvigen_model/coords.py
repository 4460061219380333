"""Every change of frame, in one place: mesh <-> unit cube <-> voxel grid -> latent grid.

unit = (mesh - center) * scale lies inside [-0.5, 0.5]; the longest side is a hair shorter than 1
(0.99999, the official normalisation), so that no vertex sits on the upper border. Voxel (i, j, k)
of a grid G covers [i/G - 0.5, (i+1)/G - 0.5) along each axis. Everything is float64 unless the
caller passes float32.
"""

from __future__ import annotations

import numpy as np

from segvigen_model.types import FloatArray, Frame, IntArray

UNIT_EXTENT = 0.99999  # longest side in the unit frame, as the official data script has it


def fit_frame(vertices: FloatArray) -> Frame:
    """Fit the unit cube round a set of points.

    Args:
        vertices: (V, 3) float, mesh frame, V >= 1.

    Returns:
        Bounding box centre and scale; the scale is 1 when all points are the same.
    """
    points = np.asarray(vertices, dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    longest = float((high - low).max())
    # Halving first: the sum of two corners may overflow where the corners do not.
    center = 0.5 * low + 0.5 * high
    return Frame(center=center, scale=UNIT_EXTENT / longest if longest > 0 else 1.0)


def mesh_to_unit(xyz: FloatArray, frame: Frame) -> FloatArray:
    """Move points from the mesh frame to the unit cube.

    Args:
        xyz: (..., 3) float, mesh frame.
        frame: as made by `fit_frame`.

    Returns:
        (..., 3) float64, unit frame.
    """
    return (np.asarray(xyz, dtype=np.float64) - frame.center) * frame.scale


def unit_to_grid(xyz: FloatArray, grid: int) -> IntArray:
    """Find the voxel that holds each point; points outside take the nearest border voxel.

    Args:
        xyz: (..., 3) float, unit frame.
        grid: voxels along each axis.

    Returns:
        (..., 3) int32, 0..grid-1.
    """
    cells = np.floor((np.asarray(xyz, dtype=np.float64) + 0.5) * grid)
    return np.clip(cells, 0, grid - 1).astype(np.int32)


def grid_to_unit(coords: IntArray, grid: int) -> FloatArray:
    """Give the centres of voxels: (..., 3) int -> (..., 3) float64, unit frame."""
    return (np.asarray(coords, dtype=np.float64) + 0.5) / grid - 0.5


def grid_to_latent(coords: IntArray, factor: int) -> IntArray:
    """Give the latent cell of each voxel.

    Args:
        coords: (..., 3) int, grid frame.
        factor: voxels per latent cell along each axis.

    Returns:
        (..., 3) int32, latent frame.
    """
    return (np.asarray(coords) // factor).astype(np.int32)
