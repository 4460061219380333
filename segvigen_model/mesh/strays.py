"""Faces that lie far away from everything else: a forgotten triangle, a helper of the modeller.

One of them would make the object a few voxels wide. They keep their place in the mesh and their row
in every label array, but frames are fitted without them, and they are recorded among the mesh's
repairs. Two things together make a stray: hardly any area, and a wide empty gap.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from segvigen_model.coords import fit_frame
from segvigen_model.types import AssetMesh, BoolArray, FloatArray, Frame, IntArray

Value = TypeVar("Value", bound=np.generic)

MAX_STRAY_SHARE = 0.001  # of the surface, on the far side of the gap
MIN_GAP = 0.4  # of the extent along the axis, where no face is
NUM_CELLS = 256  # that the extent is cut into to look for gaps
MAX_ROUNDS = 6  # each takes the strays beyond one gap away
STRAY_REPAIR = "stray_faces_left_out_of_the_frame"


def find_stray_faces(triangles: FloatArray) -> BoolArray:
    """Find faces that are cut off from the rest by a wide gap and have hardly any area.

    Args:
        triangles: (F, 3, 3) float64 corners.

    Returns:
        (F,) bool; never all of them.
    """
    is_stray: BoolArray = np.zeros(len(triangles), dtype=np.bool_)
    if len(triangles) < 2:
        return is_stray
    low, high = triangles.min(axis=1), triangles.max(axis=1)
    sides = triangles[:, 1:] - triangles[:, :1]
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    for _ in range(MAX_ROUNDS):
        found = _find_beyond_gap(low, high, areas, np.flatnonzero(~is_stray))
        if not len(found):
            break
        is_stray[found] = True
    return is_stray


def fit_mesh_frame(mesh: AssetMesh) -> Frame:
    """Fit the unit cube round a mesh: round the vertices that faces use, without stray faces."""
    return fit_frame(mesh.vertices[find_framed_vertices(mesh)])


def find_framed_vertices(mesh: AssetMesh) -> BoolArray:
    """(V,) whether a face that is no stray has the vertex."""
    is_stray = find_stray_faces(mesh.triangles)
    if not is_stray.any():
        return mesh.is_vertex_used
    is_framed: BoolArray = np.zeros(len(mesh.vertices), dtype=np.bool_)
    is_framed[mesh.faces[~is_stray].ravel()] = True
    return is_framed


class FramedFaces:
    """A mesh without its stray faces, and the way back to all faces.

    A stray face gets what the nearest framed face has.

    Args:
        mesh: the whole mesh.

    Attributes:
        mesh: the framed faces; the whole mesh itself where nothing is stray.
        num_strays: faces left out.
    """

    def __init__(self, mesh: AssetMesh) -> None:
        is_stray = find_stray_faces(mesh.triangles)
        self.num_strays = int(is_stray.sum())
        self.mesh = mesh
        self._rows: IntArray = np.arange(mesh.num_faces)
        self._nearest: IntArray = self._rows
        if self.num_strays:
            self._rows = np.flatnonzero(~is_stray)
            self.mesh = mesh.take_faces(self._rows)
            centers = mesh.triangles.mean(axis=1)
            self._nearest = cKDTree(centers[self._rows]).query(centers)[1]
            self._nearest[self._rows] = np.arange(len(self._rows))

    def select(self, values: IntArray) -> IntArray:
        """Values of the framed faces: (..., F) -> (..., N)."""
        return values[..., self._rows]

    def spread(self, values: NDArray[Value]) -> NDArray[Value]:
        """Values of all faces: (..., N) -> (..., F)."""
        return values if not self.num_strays else values[..., self._nearest]

    def to_framed(self, faces: IntArray) -> IntArray:
        """Numbers of whole faces -> numbers of framed faces, the nearest for strays."""
        found: IntArray = self._nearest[faces]
        return found

    def to_whole(self, faces: IntArray) -> IntArray:
        """Numbers of framed faces -> those of the whole mesh; -1 stays."""
        found: IntArray = np.where(faces < 0, -1, self._rows[faces])
        return found


def _find_beyond_gap(
    low: FloatArray, high: FloatArray, areas: FloatArray, rows: IntArray
) -> IntArray:
    """Faces on the lighter side of the widest gap of any axis, if they are strays."""
    total = float(areas[rows].sum())
    for axis in range(3):
        begin, end = low[rows, axis], high[rows, axis]
        start, extent = float(begin.min()), float(end.max() - begin.min())
        if extent <= 0:
            continue
        first = _find_cells(begin, start, extent)
        last = _find_cells(end, start, extent)
        # +1 where a face begins, -1 behind its end: the sum counts the faces over each cell.
        edges = np.bincount(first, minlength=NUM_CELLS + 1)
        edges -= np.bincount(last + 1, minlength=NUM_CELLS + 1)
        gap = _find_widest_gap(np.cumsum(edges)[:NUM_CELLS] == 0)
        if gap is None or gap[1] - gap[0] < MIN_GAP * NUM_CELLS:
            continue
        for side in (rows[first >= gap[1]], rows[first < gap[0]]):
            if float(areas[side].sum()) <= MAX_STRAY_SHARE * total:
                return np.asarray(side, np.int64)
    return np.zeros(0, np.int64)


def _find_cells(values: FloatArray, start: float, extent: float) -> IntArray:
    cells = np.floor((values - start) / extent * NUM_CELLS).astype(np.int64)
    inside: IntArray = np.clip(cells, 0, NUM_CELLS - 1)
    return inside


def _find_widest_gap(is_empty: BoolArray) -> tuple[int, int] | None:
    """First cell of the longest empty run, and the cell behind it."""
    steps = np.diff(np.concatenate([[0], is_empty.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    if not len(starts):
        return None
    widest = int((ends - starts).argmax())
    return int(starts[widest]), int(ends[widest])
