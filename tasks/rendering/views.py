"""Orthographic views of an asset: which face, and how far, for every pixel.

Orthographic cameras keep pixel <-> point a plain affine map, which the buffers and the 3D viewer
share. Everything is in the unit frame; faces are two-sided. The picture comes from the model's own
rasteriser, so that the same proposal gives the same bytes on every machine.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from segvigen_model.rendering.rasterizer import ParallelHits, rasterize_parallel
from segvigen_model.types import AssetMesh, FloatArray, Frame, IntArray

STAND_OFF = 2.0  # depth is counted from this far from the view's centre, outside any unit cube
MARGIN = 1.06  # window / object extent
HERO_DIRECTION = (0.75, 0.55, 1.0)  # three-quarter view from the front (glTF: front is +Z)


@dataclass(frozen=True, slots=True)
class View:
    """An orthographic camera with a square window, unit frame.

    Attributes:
        name: for people, e.g. "front-top".
        center: (3,) float64, point in the middle of the window.
        right, up, forward: (3,) float64, orthonormal; forward points into the scene.
        half: half the window's side, unit lengths.
        only_faces: (K,) int32 faces drawn alone (a look inside), or None for all.
    """

    name: str
    center: FloatArray
    right: FloatArray
    up: FloatArray
    forward: FloatArray
    half: float
    only_faces: IntArray | None = None

    def make_ray_origins(self, columns: FloatArray, rows: FloatArray, size: int) -> FloatArray:
        """(N, 3) float64 points of depth 0 at continuous pixel positions (top-left origin)."""
        across = (columns / size * 2 - 1) * self.half
        upward = (1 - rows / size * 2) * self.half
        start = self.center - STAND_OFF * self.forward
        return np.asarray(start + across[:, None] * self.right + upward[:, None] * self.up)

    def projection(self, size: int) -> FloatArray:
        """(3, 4) float64: column, row and depth as affine functions of a point."""
        scale = size / (2 * self.half)
        rows = np.stack([scale * self.right, -scale * self.up, self.forward])
        middle = np.array([size / 2, size / 2, 0.0])
        start = self.center - STAND_OFF * self.forward
        return np.column_stack([rows, middle - rows @ start])

    def project(self, xyz_unit: FloatArray, size: int) -> FloatArray:
        """(N, 3) float64: column, row, depth of points; inverse of `points`."""
        matrix = self.projection(size)
        return np.asarray(xyz_unit @ matrix[:, :3].T + matrix[:, 3])


def compute_unit_triangles(mesh: AssetMesh, frame: Frame) -> FloatArray:
    """(F, 3, 3) float64 corners in the unit frame."""
    return np.asarray((mesh.triangles - frame.center) * frame.scale)


def render_hits(triangles: FloatArray, view: View, size: int) -> ParallelHits:
    """Find what a view shows at the middle of every pixel, row 0 on top.

    Args:
        triangles: (F, 3, 3) float64 corners, unit frame.
        view: the camera; of `only_faces` if it has any, but the hits name the original faces.
        size: side of the square picture in pixels.
    """
    only = view.only_faces
    shown = triangles if only is None else triangles[only]
    hits = rasterize_parallel(shown, view.projection(size), size)
    if only is None:
        return hits
    face = np.where(hits.face >= 0, only[hits.face], -1).astype(np.int32)
    return ParallelHits(face, hits.depth, hits.weights)


def make_view(direction: FloatArray, points: FloatArray, name: str | None = None) -> View:
    """A view from `direction` (object -> eye) that just holds all `points` ((N, 3), unit)."""
    forward = -direction / np.linalg.norm(direction)
    scene_up = np.array([0.0, 1.0, 0.0])
    if abs(forward[1]) > 0.99:  # from straight above or below: keep front at the bottom
        scene_up = np.array([0.0, 0.0, -1.0]) * np.sign(-forward[1])
    right = np.cross(forward, scene_up)
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    flat = np.stack([points @ right, points @ up], axis=-1)
    low, high = flat.min(axis=0), flat.max(axis=0)
    middle = (low + high) / 2
    half = max(float((high - low).max()) / 2 * MARGIN, 1e-4)
    along = float((points @ forward).mean())
    center = middle[0] * right + middle[1] * up + along * forward
    return View(name or name_direction(direction), center, right, up, forward, half)


def list_directions() -> FloatArray:
    """(27, 3) float64: the hero view, then 26 directions over the cube's faces, edges, corners.

    Views from obliquely above come before those from below; ties in selection go to the first.
    """
    around = [d for d in itertools.product((1.0, -1.0, 0.0), repeat=3) if any(d)]
    softened = [(x, 0.7 * y if x or z else y, z) for x, y, z in around]
    softened.sort(key=lambda d: (d[1] < 0, abs(d[0]) + abs(d[2]), -d[2]))
    return np.array([HERO_DIRECTION, *softened])


def name_direction(direction: FloatArray) -> str:
    """Words for a viewing direction: glTF's front is +Z, up is +Y."""
    unit = np.asarray(direction) / np.linalg.norm(direction)
    words = []
    for axis, (plus, minus) in ((2, ("front", "back")), (0, ("right", "left"))):
        if abs(unit[axis]) > 0.3:
            words.append(plus if unit[axis] > 0 else minus)
    if abs(unit[1]) > 0.3:
        words.append("top" if unit[1] > 0 else "bottom")
    return "-".join(words) or "front"
