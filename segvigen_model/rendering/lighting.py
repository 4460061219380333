"""The official scripts' light on an asset, without path tracing: many distant lights with shadows.

Numbers are those of data_toolkit/bpy_render.py in Nelipot-Lee/SegviGen (MIT), Blender's axes turned
to glTF's. The overhead area light is split into points; each light has one shadow map. The grey
background and the highlights' tone mapping are fitted by eye on the picture that the authors ship.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from segvigen_model.rendering.rasterizer import Camera, project_triangles, rasterize
from segvigen_model.types import FloatArray

POINT_LIGHT = (4.0, 6.0, -1.0)
POINT_INTENSITY = 1000.0 / (4.0 * math.pi)
AREA_HEIGHT, AREA_SIDE = 10.0, 25.0  # Blender's default area light of 0.25, scaled by 100
AREA_RADIANCE = 10_000.0 / (math.pi * AREA_SIDE**2)
AREA_SPLITS = 6  # per axis; even, so that no light is straight above (its map has no "up")
ENVIRONMENT_RADIANCE = 0.05
REFLECTANCE = 0.04  # of a rough dielectric, added to its colour
TONE_MAPPING = 0.9  # display light = x / (1 + ROLL_OFF x), for the official filmic view

SHADOW_PIXELS = 256
SHADOW_DISTANCE = 100.0  # unit lengths: nearly parallel light
SHADOW_EXTENT = 1.8  # unit lengths across a shadow map: the cube's diagonal and a margin
SHADOW_BIAS = 0.012  # unit lengths; hides the steps of the map


@dataclass(frozen=True, slots=True)
class Light:
    """Light that comes from one direction.

    Attributes:
        direction: (3,) float64 unit vector towards the light, unit frame.
        irradiance: on a face towards it.
    """

    direction: FloatArray
    irradiance: float


def build_official_lights() -> tuple[Light, ...]:
    """All lights, seen from the unit cube's centre."""
    lights = [_make_point_light(np.array(POINT_LIGHT), POINT_INTENSITY)]
    side = AREA_SIDE / AREA_SPLITS
    for i in range(AREA_SPLITS):
        for j in range(AREA_SPLITS):
            x, z = ((k + 0.5) * side - AREA_SIDE / 2 for k in (i, j))
            place = np.array([x, AREA_HEIGHT, z])
            cosine = AREA_HEIGHT / float(np.linalg.norm(place))
            lights.append(_make_point_light(place, AREA_RADIANCE * side**2 * cosine))
    return tuple(lights)


def compute_irradiance(
    points: FloatArray, normals: FloatArray, triangles: FloatArray
) -> FloatArray:
    """Light that a white matt surface gives off.

    Args:
        points: (N, 3) on the surface, unit frame.
        normals: (N, 3) unit vectors towards the viewer's side.
        triangles: (F, 3, 3) all that throws shadows, unit frame.

    Returns:
        (N,) float64 radiance.
    """
    total = np.full(len(points), ENVIRONMENT_RADIANCE)
    lifted = points + SHADOW_BIAS * normals
    for light in build_official_lights():
        facing = np.clip(normals @ light.direction, 0.0, None)
        rows = np.flatnonzero(facing > 0.0)
        visible = _compute_visibility(lifted[rows], light.direction, triangles)
        total[rows] += light.irradiance / math.pi * facing[rows] * visible
    return total


def apply_tone_mapping(radiance: FloatArray) -> FloatArray:
    """Compress linear light into 0..1, near white most."""
    return np.asarray(np.clip(radiance / (1.0 + TONE_MAPPING * radiance), 0.0, 1.0))


def _make_point_light(place: FloatArray, intensity: float) -> Light:
    distance = float(np.linalg.norm(place))
    return Light(place / distance, intensity / distance**2)


def _compute_visibility(
    points: FloatArray, direction: FloatArray, triangles: FloatArray
) -> FloatArray:
    """(N,) 1.0 where nothing stands between a point and the light, else 0.0."""
    x, y, z = (SHADOW_DISTANCE * direction).tolist()
    angle = 2.0 * math.degrees(math.atan(SHADOW_EXTENT / 2 / SHADOW_DISTANCE))
    camera = Camera((x, y, z), angle)
    nearest = rasterize(
        project_triangles(triangles, camera, SHADOW_PIXELS), SHADOW_PIXELS
    ).inverse_depth
    column, row, inverse = project_triangles(points[:, None], camera, SHADOW_PIXELS)[:, 0].T
    cells = [np.clip(at.astype(np.int64), 0, SHADOW_PIXELS - 1) for at in (row, column)]
    margin = 1.0 + SHADOW_BIAS / SHADOW_DISTANCE
    visible: FloatArray = (inverse * margin >= nearest[cells[0], cells[1]]).astype(np.float64)
    return visible
