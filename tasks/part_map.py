"""Flat-colour pictures of a labelled mesh: the 2D guide of guided mode, for training samples.

A perspective z-buffer in compiled double precision, written here and not taken from the review
renderer: the same labels must give the same bytes on every machine. No anti-aliasing, because a
mixed colour would be a part that does not exist.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numba
import numpy as np

from segvigen_model.types import ByteArray, FloatArray, IntArray

FIELD_OF_VIEW_DEG = 40.0  # of the paper's condition view
DISTANCE = 2.0  # from the unit cube's centre, as TRELLIS renders its conditions
GOLDEN_ANGLE_DEG = 137.50776405003785
FIRST_AZIMUTH_DEG, ELEVATIONS_DEG = 30.0, (20.0, 35.0, 5.0, 50.0)
BACKGROUND = (0, 0, 0)  # of the official preprocessing


@dataclass(frozen=True, slots=True)
class GuideCamera:
    """A perspective camera that looks at the unit cube's centre; Y is up, angles in degrees.

    Attributes:
        azimuth_deg: 0 looks from +Z, 90 from +X.
    """

    azimuth_deg: float
    elevation_deg: float
    distance: float = DISTANCE
    field_of_view_deg: float = FIELD_OF_VIEW_DEG

    def as_json(self) -> dict[str, Any]:
        """The four numbers by name."""
        return asdict(self)


def guide_cameras(count: int) -> tuple[GuideCamera, ...]:
    """The first `count` cameras of a fixed, well-spread sequence; the first is three-quarter."""
    return tuple(
        GuideCamera(
            (FIRST_AZIMUTH_DEG + i * GOLDEN_ANGLE_DEG) % 360.0,
            ELEVATIONS_DEG[i % len(ELEVATIONS_DEG)],
        )
        for i in range(count)
    )


def render_part_map(
    triangles_unit: FloatArray, face_colors: ByteArray, camera: GuideCamera, pixels: int
) -> ByteArray:
    """Draw every face in its flat colour.

    Args:
        triangles_unit: (F, 3, 3) corners, unit frame.
        face_colors: (F, 3) uint8 RGB.
        camera: from where.
        pixels: side of the square picture.

    Returns:
        (pixels, pixels, 3) uint8; BACKGROUND where nothing is.
    """
    face = face_map(triangles_unit, camera, pixels)
    picture = np.full((pixels, pixels, 3), BACKGROUND, np.uint8)
    picture[face >= 0] = face_colors[face[face >= 0]]
    return picture


def face_map(triangles_unit: FloatArray, camera: GuideCamera, pixels: int) -> IntArray:
    """(pixels, pixels) int32 face that is seen in each pixel, -1 for none."""
    right, up, back = _axes(camera)
    eye = np.asarray(triangles_unit, np.float64) - back * camera.distance
    depth = -(eye @ back)  # > 0 in front of the camera
    focal = pixels / 2 / math.tan(math.radians(camera.field_of_view_deg) / 2)
    column = pixels / 2 + focal * (eye @ right) / depth
    row = pixels / 2 - focal * (eye @ up) / depth
    corners = np.stack([column, row, 1.0 / depth], axis=-1)
    return np.asarray(_rasterize(np.ascontiguousarray(corners), pixels))


def _axes(camera: GuideCamera) -> tuple[FloatArray, FloatArray, FloatArray]:
    azimuth, elevation = math.radians(camera.azimuth_deg), math.radians(camera.elevation_deg)
    back = np.array(
        [
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
            math.cos(elevation) * math.cos(azimuth),
        ]
    )
    right = np.array([math.cos(azimuth), 0.0, -math.sin(azimuth)])
    return right, np.cross(back, right), back


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _rasterize(corners: FloatArray, pixels: int) -> IntArray:
    """Z-buffer of (F, 3, 3) columns, rows and inverse depths; the nearer face wins, ties the first.

    Inverse depth is linear in the picture, so that it can be interpolated there.
    """
    nearest = np.zeros((pixels, pixels))
    face = np.full((pixels, pixels), -1, np.int32)
    for f in range(corners.shape[0]):
        ax, ay, az = corners[f, 0]
        bx, by, bz = corners[f, 1]
        cx, cy, cz = corners[f, 2]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0:
            continue
        first_row = max(0, math.ceil(min(ay, by, cy) - 0.5))
        last_row = min(pixels - 1, math.floor(max(ay, by, cy) - 0.5))
        first_column = max(0, math.ceil(min(ax, bx, cx) - 0.5))
        last_column = min(pixels - 1, math.floor(max(ax, bx, cx) - 0.5))
        for row in range(first_row, last_row + 1):
            y = row + 0.5
            for column in range(first_column, last_column + 1):
                x = column + 0.5
                u = ((cx - bx) * (y - by) - (x - bx) * (cy - by)) / area
                v = ((ax - cx) * (y - cy) - (x - cx) * (ay - cy)) / area
                w = 1.0 - u - v
                if u < 0.0 or v < 0.0 or w < 0.0:
                    continue
                inverse = u * az + v * bz + w * cz
                if inverse > nearest[row, column]:
                    nearest[row, column] = inverse
                    face[row, column] = f
    return face
