"""What a camera sees of triangles: face and barycentrics per pixel, by a compiled z-buffer.

Double precision and one thread, so that the same mesh gives the same picture on every machine. A
pixel belongs to the face under its centre. Layers behind the first are had by peeling: rasterise
again with the depths seen so far as a limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from segvigen_model.types import BoolArray, FloatArray, IntArray

NEAR = 1e-3  # unit lengths before the camera; a face that comes closer is not drawn
SLACK = 1e-12  # in barycentric weights: no gap opens between faces that share an edge
PEEL_GAP = 1e-9  # relative step in inverse depth that separates two layers


@dataclass(frozen=True, slots=True)
class Camera:
    """A perspective camera directed at the unit cube's centre, Y up.

    Attributes:
        position: unit frame; not straight above or below the centre.
        field_of_view_deg: across the whole square picture.
    """

    position: tuple[float, float, float]
    field_of_view_deg: float = 40.0

    @property
    def axes(self) -> FloatArray:
        """(3, 3) float64 rows right, up, back (towards the viewer), unit frame."""
        back = np.asarray(self.position, np.float64)
        back = back / np.linalg.norm(back)
        right = np.cross([0.0, 1.0, 0.0], back)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(back, right), back])


@dataclass(frozen=True, slots=True)
class Hits:
    """What is under each pixel centre.

    Attributes:
        face: (S, S) int32, -1 where nothing is.
        inverse_depth: (S, S) float64, 1 / distance along the view axis; 0 where nothing is.
        weights: (S, S, 3) float64, barycentric weights of the face's corners, perspective right.
    """

    face: IntArray
    inverse_depth: FloatArray
    weights: FloatArray

    @property
    def is_hit(self) -> BoolArray:
        """(S, S) bool."""
        seen: BoolArray = self.face >= 0
        return seen


@dataclass(frozen=True, slots=True)
class ParallelHits:
    """What is under each pixel centre of an orthographic picture.

    Attributes:
        face: (S, S) int32, -1 where nothing is.
        depth: (S, S) float64 along the view axis; 0 where nothing is.
        weights: (S, S, 3) float64, barycentric weights of the face's corners.
    """

    face: IntArray
    depth: FloatArray
    weights: FloatArray


def project_triangles(triangles_unit: FloatArray, camera: Camera, pixels: int) -> FloatArray:
    """(F, 3, 3) corners, unit frame -> (F, 3, 3) column, row and inverse depth in the picture.

    Faces that reach behind the camera get an inverse depth of 0 and are not drawn.
    """
    axes = camera.axes
    eye = (np.asarray(triangles_unit, np.float64) - np.asarray(camera.position)) @ axes.T
    depth = -eye[..., 2]
    is_behind = depth.min(axis=1) < NEAR
    inverse = 1.0 / np.where(is_behind[:, None], 1.0, depth)
    focal = pixels / 2 / math.tan(math.radians(camera.field_of_view_deg) / 2)
    column = pixels / 2 + focal * eye[..., 0] * inverse
    row = pixels / 2 - focal * eye[..., 1] * inverse
    inverse[is_behind] = 0.0
    return np.stack([column, row, inverse], axis=-1)


def rasterize(corners: FloatArray, pixels: int, limit: FloatArray | None = None) -> Hits:
    """Find the nearest face under every pixel centre.

    Args:
        corners: (F, 3, 3) from `project`.
        pixels: S, side of the square picture.
        limit: (S, S) inverse depths; only what lies behind them is seen. None = no limit.
    """
    if limit is None:
        limit = np.full((pixels, pixels), np.inf)
    face, inverse, planar = _rasterize(np.ascontiguousarray(corners), np.ascontiguousarray(limit))
    depths = corners[np.maximum(face, 0), :, 2]  # (S, S, 3)
    weights = planar * depths / np.where(inverse > 0, inverse, 1.0)[..., None]
    return Hits(face, inverse, np.where((face >= 0)[..., None], weights, 0.0))


def rasterize_parallel(triangles: FloatArray, projection: FloatArray, pixels: int) -> ParallelHits:
    """Find the nearest face under every pixel centre of an orthographic picture.

    Args:
        triangles: (F, 3, 3) corners, any frame.
        projection: (3, 4) float64; column, row and depth of a point are affine functions of it.
        pixels: S, side of the square picture.
    """
    corners = np.ascontiguousarray(triangles, np.float64)
    face, nearness, weights = _rasterize_parallel(corners, np.ascontiguousarray(projection), pixels)
    return ParallelHits(face, np.where(face >= 0, -nearness, 0.0), weights)


def compute_depth_limit(hits: Hits) -> FloatArray:
    """(S, S) limit for `rasterize` that reveals the next layer; empty pixels stay empty."""
    return hits.inverse_depth * (1.0 - PEEL_GAP)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _rasterize(corners: FloatArray, limit: FloatArray) -> Any:
    """Z-buffer of projected corners; what lies nearer than `limit` is left out."""
    height, width = limit.shape
    buffers = (
        np.full((height, width), -1, np.int32),
        np.zeros((height, width)),
        np.zeros((height, width, 3)),
    )
    for f in range(corners.shape[0]):
        if corners[f, 0, 2] != 0.0:  # else it reaches behind the camera
            _draw(f, corners[f], limit, buffers)
    return buffers


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _rasterize_parallel(triangles: FloatArray, projection: FloatArray, pixels: int) -> Any:
    """Z-buffer that projects each face on the way: no array of projected corners is made."""
    buffers = (
        np.full((pixels, pixels), -1, np.int32),
        np.full((pixels, pixels), -np.inf),
        np.zeros((pixels, pixels, 3)),
    )
    limit = np.full((pixels, pixels), np.inf)
    corner = np.zeros((3, 3))
    for f in range(triangles.shape[0]):
        for i in range(3):
            x, y, z = triangles[f, i]
            for k in range(3):
                row = projection[k]
                corner[i, k] = row[0] * x + row[1] * y + row[2] * z + row[3]
            corner[i, 2] = -corner[i, 2]
        _draw(f, corner, limit, buffers)
    return buffers


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw(f: int, corner: FloatArray, limit: FloatArray, buffers: Any) -> None:
    """Draw face `f` with corners (3, 3) of column, row and nearness into face, nearness, weights.

    The nearer face wins, ties the first. Nearness is linear in the picture.
    """
    face, nearest, planar = buffers
    height, width = limit.shape
    ax, ay, az = corner[0]
    bx, by, bz = corner[1]
    cx, cy, cz = corner[2]
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if not (area > 0.0 or area < 0.0):  # edge-on, not finite
        return
    first_row = max(0, math.ceil(min(ay, by, cy) - 0.5))
    last_row = min(height - 1, math.floor(max(ay, by, cy) - 0.5))
    first_column = max(0, math.ceil(min(ax, bx, cx) - 0.5))
    last_column = min(width - 1, math.floor(max(ax, bx, cx) - 0.5))
    for row in range(first_row, last_row + 1):
        y = row + 0.5
        for column in range(first_column, last_column + 1):
            x = column + 0.5
            u = ((cx - bx) * (y - by) - (x - bx) * (cy - by)) / area
            v = ((ax - cx) * (y - cy) - (x - cx) * (ay - cy)) / area
            w = 1.0 - u - v
            if u < -SLACK or v < -SLACK or w < -SLACK:
                continue
            nearness = u * az + v * bz + w * cz
            if nearest[row, column] < nearness < limit[row, column]:
                nearest[row, column] = nearness
                face[row, column] = f
                planar[row, column, 0] = u
                planar[row, column, 1] = v
                planar[row, column, 2] = w
