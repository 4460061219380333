"""Small shaded pictures of labelled meshes for contact sheets, from the library's own rasteriser.

One light at the camera and flat faces: shape and borders are seen, textures are not shown.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from segvigen_model.coords import mesh_to_unit
from segvigen_model.mesh.strays import fit_mesh_frame
from segvigen_model.rendering.rasterizer import Camera, project_triangles, rasterize
from segvigen_model.types import AssetMesh, BoolArray, ByteArray, FloatArray, IntArray

DISTANCE = 3.0  # unit lengths from the cube's centre
ELEVATION_DEG = 25.0
NUM_AZIMUTHS = 8
PROBE_PIXELS = 64  # side of the small pictures by which a view is chosen
SUPERSAMPLING = 2
VIEW_PIXELS = 480  # side of one of four views
AMBIENT = 0.35  # share of light on a face seen edge-on
MARGIN = 1.08  # of the field of view round the object
GROUND = (255, 255, 255)
HIDDEN = 0.02  # unit lengths that a point may lie behind what is seen and still count as seen
COLORS = np.array(
    [
        (230, 97, 1), (33, 102, 172), (27, 158, 119), (214, 39, 40), (148, 103, 189),
        (188, 189, 34), (231, 138, 195), (23, 190, 207), (140, 86, 75), (255, 187, 60),
        (102, 194, 60), (70, 70, 160), (250, 128, 114), (0, 109, 91), (170, 120, 230),
        (120, 140, 20), (190, 30, 110), (110, 180, 240), (200, 160, 120), (60, 60, 60),
    ],
    np.uint8,
)  # fmt: skip


def compute_unit_triangles(mesh: AssetMesh) -> FloatArray:
    """(F, 3, 3) corners, unit frame."""
    flat = mesh_to_unit(mesh.triangles.reshape(-1, 3), fit_mesh_frame(mesh))
    return np.asarray(flat, np.float64).reshape(-1, 3, 3)


def list_views(corners: FloatArray) -> list[Camera]:
    """Cameras all round an object, each as close as the whole object allows."""
    made = []
    up, out = math.sin(math.radians(ELEVATION_DEG)), math.cos(math.radians(ELEVATION_DEG))
    for azimuth in np.linspace(0, 2 * math.pi, NUM_AZIMUTHS, endpoint=False):
        place = DISTANCE * np.array([out * math.sin(azimuth), up, out * math.cos(azimuth)])
        x, y, z = place.tolist()
        made.append(Camera((x, y, z), compute_fitting_angle(corners, Camera((x, y, z)))))
    return made


def compute_fitting_angle(corners: FloatArray, camera: Camera) -> float:
    """Field of view in degrees that just holds the object."""
    flat = (
        project_triangles(corners, camera, 2)[..., :2] - 1.0
    )  # -1..1 across the camera's own view
    reach = max(float(np.abs(flat).max()), 1e-3) * MARGIN
    tangent = math.tan(math.radians(camera.field_of_view_deg) / 2)
    return min(120.0, 2 * math.degrees(math.atan(tangent * reach)))


def choose_view(corners: FloatArray, mask: BoolArray, point: FloatArray) -> Camera:
    """The view that shows a point, and then most of a part.

    Args:
        corners: (F, 3, 3) unit frame.
        mask: (F,) bool, the part.
        point: (3,) unit frame, preferably in sight.
    """

    def count_visible(camera: Camera) -> tuple[int, int]:
        face = rasterize(project_triangles(corners, camera, PROBE_PIXELS), PROBE_PIXELS).face
        area = int((mask[np.maximum(face, 0)] & (face >= 0)).sum())
        return len(project_visible_points(point[None], corners, camera, PROBE_PIXELS)), area

    return max(list_views(corners), key=count_visible)


def shade_mesh(corners: FloatArray, colors: ByteArray, camera: Camera, pixels: int) -> ByteArray:
    """Draw a mesh.

    Args:
        corners: (F, 3, 3) unit frame.
        colors: (F, 3) uint8.
        camera: where from.
        pixels: side of the picture.

    Returns:
        (pixels, pixels, 3) uint8.
    """
    side = SUPERSAMPLING * pixels
    hits = rasterize(project_triangles(corners, camera, side), side)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    light = AMBIENT + (1 - AMBIENT) * np.abs(normals @ camera.axes[2])
    colored = colors[hits.face] * light[hits.face][..., None]
    picture = np.where(hits.is_hit[..., None], colored, np.array(GROUND, float))
    small = Image.fromarray(picture.round().astype(np.uint8)).resize(
        (pixels, pixels), Image.Resampling.BOX
    )
    result: ByteArray = np.asarray(small)
    return result


def four_views(mesh: AssetMesh, colors: ByteArray, pixels: int = VIEW_PIXELS) -> Image.Image:
    """Draw a mesh from its four upper corners, two views a row.

    Args:
        mesh: the asset.
        colors: (F, 3) uint8.
        pixels: side of one view.
    """
    corners = compute_unit_triangles(mesh)
    made = Image.new("RGB", (2 * pixels, 2 * pixels), GROUND)
    for number, camera in enumerate(list_views(corners)[1::2]):
        picture = Image.fromarray(shade_mesh(corners, colors, camera, pixels))
        made.paste(picture, (number % 2 * pixels, number // 2 * pixels))
    return made


def project_visible_points(
    points: FloatArray, corners: FloatArray, camera: Camera, pixels: int
) -> list[tuple[float, float]]:
    """Column and row of those points (N, 3), unit frame, that nothing hides."""
    nearest = rasterize(project_triangles(corners, camera, pixels), pixels).inverse_depth
    places = []
    for column, row, inverse in project_triangles(points[:, None], camera, pixels)[:, 0]:
        cell = (int(np.clip(row, 0, pixels - 1)), int(np.clip(column, 0, pixels - 1)))
        if inverse > 0 and 1 / inverse - HIDDEN <= 1 / max(nearest[cell], 1e-9):
            places.append((float(column), float(row)))
    return places


def color_parts(labels: IntArray) -> ByteArray:
    """(F, 3) uint8: a colour per part id, grey where the id is negative."""
    colors: ByteArray = COLORS[labels % len(COLORS)]
    return np.where((labels < 0)[:, None], np.uint8(190), colors)
