"""Orthographic ray casting on the CPU (Embree): which face, and how far, for every pixel.

Works in the unit frame, where single precision is safe; depth is then recomputed in double
precision on the face's own plane. Orthographic views keep pixel <-> point a plain affine map, which
the buffers and the 3D viewer share. Faces are two-sided.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from segvigen_model.errors import MissingExtra
from segvigen_model.types import AssetMesh, FloatArray, Frame, IntArray

STAND_OFF = 2.0  # ray origins lie this far from the view's centre, outside any unit cube
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
        """(N, 3) float64 ray origins for continuous pixel positions (top-left origin)."""
        across = (columns / size * 2 - 1) * self.half
        upward = (1 - rows / size * 2) * self.half
        start = self.center - STAND_OFF * self.forward
        return np.asarray(start + across[:, None] * self.right + upward[:, None] * self.up)

    def project(self, xyz_unit: FloatArray, size: int) -> FloatArray:
        """(N, 3) float64: column, row, depth of points; inverse of `points`."""
        moved = xyz_unit - (self.center - STAND_OFF * self.forward)
        column = (moved @ self.right / self.half + 1) / 2 * size
        row = (1 - moved @ self.up / self.half) / 2 * size
        return np.stack([column, row, moved @ self.forward], axis=-1)


@dataclass(frozen=True, slots=True)
class Hits:
    """What rays met.

    Attributes:
        face: int32, -1 where nothing.
        depth: float64, distance along the ray, unit lengths; 0 where nothing.
        uv: (..., 2) float32 barycentric weights of the face's second and third corner.
    """

    face: IntArray
    depth: FloatArray
    uv: FloatArray


class RayScene:
    """Triangles ready to be shot at.

    Args:
        triangles: (F, 3, 3) float64, unit frame.
        only_faces: (K,) subset to keep; hits still name the original faces.
    """

    def __init__(self, triangles: FloatArray, only_faces: IntArray | None = None) -> None:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as err:
            hint = "pip install 'segvigen-pipeline[review]'"
            raise MissingExtra("embreex", hint) from err
        self._faces = only_faces
        self._triangles = triangles if only_faces is None else triangles[only_faces]
        edges = self._triangles[:, 1:] - self._triangles[:, :1]
        self._normals = np.cross(edges[:, 0], edges[:, 1])
        self._scene = EmbreeScene()
        self._mesh = TriangleMesh(self._scene, self._triangles.astype(np.float32))

    def cast(self, origins: FloatArray, direction: FloatArray, *, is_exact: bool = True) -> Hits:
        """Shoot parallel rays.

        Args:
            origins: (N, 3) float64, unit frame.
            direction: (3,) unit length.
            is_exact: compute depth again in double precision (slower).

        Returns:
            Hits with (N,) arrays.
        """
        rays = np.full(origins.shape, direction, dtype=np.float32)
        found = self._scene.run(origins.astype(np.float32), rays, query="INTERSECT", output=True)
        local = found["primID"].astype(np.int32)
        hit = local >= 0
        depth = np.where(hit, found["tfar"].astype(np.float64), 0.0)
        if is_exact:
            depth[hit] = self._compute_plane_depth(local[hit], origins[hit], direction, depth[hit])
        face = local
        if self._faces is not None:
            face = np.where(hit, self._faces[local], -1).astype(np.int32)
        return Hits(face, depth, np.stack([found["u"], found["v"]], axis=-1))

    def _compute_plane_depth(
        self, local: IntArray, origins: FloatArray, direction: FloatArray, traced: FloatArray
    ) -> FloatArray:
        """Exact depth on the face's plane; the traced one where the face is seen edge-on."""
        normals = self._normals[local]
        slope = normals @ direction
        gap = np.einsum("nk,nk->n", normals, self._triangles[local, 0] - origins)
        exact = np.divide(gap, slope, out=traced.copy(), where=slope != 0)
        return np.asarray(np.where(np.abs(exact - traced) < 1e-3, exact, traced))


def compute_unit_triangles(mesh: AssetMesh, frame: Frame) -> FloatArray:
    """(F, 3, 3) float64 corners in the unit frame."""
    return np.asarray((mesh.triangles - frame.center) * frame.scale)


def render_hits(scene: RayScene, view: View, size: int, *, is_exact: bool = True) -> Hits:
    """Shoot one ray through the middle of every pixel; see RayScene.cast.

    Returns:
        Hits with (size, size) arrays, row 0 on top.
    """
    steps = (np.arange(size) + 0.5) / size * 2 - 1
    start = view.center - STAND_OFF * view.forward
    across = start + steps[:, None] * view.half * view.right
    downward = -steps[:, None] * view.half * view.up
    origins = (downward[:, None] + across[None]).reshape(-1, 3)  # a grid: one sum per pixel
    hits = scene.cast(origins, view.forward, is_exact=is_exact)
    shape = (size, size)
    return Hits(hits.face.reshape(shape), hits.depth.reshape(shape), hits.uv.reshape(*shape, 2))


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
