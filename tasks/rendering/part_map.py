"""Flat-colour pictures of a labelled mesh: the 2D guide of guided mode, for training samples.

Drawn by the model's own rasteriser, not by the review renderer: the same labels must give the same
bytes on every machine. No anti-aliasing, because a mixed colour would be a part that does not
exist.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from segvigen_model.rendering.rasterizer import Camera, project_triangles, rasterize
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

    @property
    def position(self) -> tuple[float, float, float]:
        """Where it stands, unit frame."""
        azimuth, elevation = math.radians(self.azimuth_deg), math.radians(self.elevation_deg)
        return (
            self.distance * math.cos(elevation) * math.sin(azimuth),
            self.distance * math.sin(elevation),
            self.distance * math.cos(elevation) * math.cos(azimuth),
        )


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
    face = render_face_map(triangles_unit, camera, pixels)
    picture = np.full((pixels, pixels, 3), BACKGROUND, np.uint8)
    picture[face >= 0] = face_colors[face[face >= 0]]
    return picture


def render_face_map(triangles_unit: FloatArray, camera: GuideCamera, pixels: int) -> IntArray:
    """(pixels, pixels) int32 face that is seen in each pixel, -1 for none."""
    view = Camera(camera.position, camera.field_of_view_deg)
    return rasterize(project_triangles(triangles_unit, view, pixels), pixels).face
