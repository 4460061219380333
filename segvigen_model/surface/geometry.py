"""Surface facts of a mesh: areas, normals, who touches whom, connected pieces, sample points.

Vertices are matched by position (never welded in the asset itself), so split vertices, duplicate
faces and non-manifold edges are all ordinary. Everything is vectorised; one face or a million.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segvigen_model.mesh.strays import find_stray_faces
from segvigen_model.surface.arrays import (
    KEY_LIMIT,
    TINY,
    compute_cell_keys,
    densify_ids,
    label_components,
)
from segvigen_model.types import AssetMesh, BoolArray, FloatArray, IntArray

WELD_TOLERANCE = 1e-5  # share of the longest side; the shared packs are stored at float32
_OPENNESS = 0.1  # vector area of a piece by its area, below which it counts as closed


@dataclass(frozen=True, slots=True)
class Surface:
    """Geometry of one mesh, mesh frame.

    Attributes:
        triangles: (F, 3, 3) float64 corners.
        areas: (F,) float64; zero-area faces are kept.
        normals: (F, 3) float64 unit normals, zero for zero-area faces; turned about when the closed
            pieces of the mesh, taken together, are inside out.
        centers: (F, 3) float64 centroids.
        pairs: (E, 2) int64 faces that share an edge.
        lengths: (E,) float64 length of the shared edge.
        angles: (E,) float64 signed dihedral, radians; > 0 concave, < 0 convex, 0 flat.
        components: (F,) int64 dense id of the connected piece.
        regions: (F,) int64 dense id of the connected piece of one material.
        materials: (F,) int64 dense material id.
        extent: longest side of the bounding box, without stray faces.
        middle: (3,) float64 centre of that box.
    """

    triangles: FloatArray
    areas: FloatArray
    normals: FloatArray
    centers: FloatArray
    pairs: IntArray
    lengths: FloatArray
    angles: FloatArray
    components: IntArray
    regions: IntArray
    materials: IntArray
    extent: float
    middle: FloatArray

    @property
    def num_faces(self) -> int:
        """Number of triangles."""
        return len(self.areas)


def measure_surface(mesh: AssetMesh) -> Surface:
    """Compute areas, normals, adjacency and connected pieces of a mesh."""
    triangles = np.asarray(mesh.triangles, dtype=np.float64)
    cross = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    double_area = np.linalg.norm(cross, axis=1)
    normals = cross / np.maximum(double_area, TINY)[:, None]
    is_used = mesh.is_vertex_used
    used = np.asarray(mesh.vertices)[is_used]
    # A stray vertex or face would widen the weld's tolerance.
    is_stray = find_stray_faces(triangles)
    framed = triangles[~is_stray].reshape(-1, 3)
    extent = max(float(np.ptp(framed, axis=0).max()), TINY)
    ids = np.zeros(len(mesh.vertices), np.int64)
    ids[is_used] = weld_vertices(used, used.min(axis=0), extent)
    corners = ids[mesh.faces]
    pairs, lengths, opposite = find_shared_edges(corners, triangles)
    components = label_components(mesh.num_faces, pairs)
    angles = _compute_signed_angles(triangles, normals, pairs, opposite)
    volumes = _compute_signed_volumes(triangles, components, used.mean(axis=0))
    angles *= np.where(volumes < 0, -1.0, 1.0)[components][pairs[:, 0]]
    if volumes[_are_closed(cross, double_area, components)].sum() < 0:
        normals = -normals
    same_material = mesh.face_material[pairs[:, 0]] == mesh.face_material[pairs[:, 1]]
    return Surface(
        triangles=triangles,
        areas=0.5 * double_area,
        normals=normals,
        centers=triangles.mean(axis=1),
        pairs=pairs,
        lengths=lengths,
        angles=angles,
        components=components,
        regions=label_components(mesh.num_faces, pairs[same_material]),
        materials=densify_ids(mesh.face_material),
        extent=extent,
        middle=0.5 * (framed.min(axis=0) + framed.max(axis=0)),
    )


def cut_surface(surface: Surface, faces: IntArray) -> Surface:
    """The part of a surface that some faces make; which way is out stays as it was.

    Args:
        surface: geometry of the whole.
        faces: (N,) int64 ascending, at least one.
    """
    row = np.full(surface.num_faces, -1)
    row[faces] = np.arange(len(faces))
    inside = (row[surface.pairs] >= 0).all(axis=1)
    pairs = row[surface.pairs[inside]]
    triangles, materials = surface.triangles[faces], densify_ids(surface.materials[faces])
    corners = triangles.reshape(-1, 3)
    same = materials[pairs[:, 0]] == materials[pairs[:, 1]]
    return Surface(
        triangles=triangles,
        areas=surface.areas[faces],
        normals=surface.normals[faces],
        centers=surface.centers[faces],
        pairs=pairs,
        lengths=surface.lengths[inside],
        angles=surface.angles[inside],
        components=label_components(len(faces), pairs),
        regions=label_components(len(faces), pairs[same]),
        materials=materials,
        extent=max(float(np.ptp(corners, axis=0).max()), TINY),
        middle=0.5 * (corners.min(axis=0) + corners.max(axis=0)),
    )


def weld_vertices(vertices: FloatArray, low: FloatArray, extent: float) -> IntArray:
    """Give vertices at the same place the same id.

    Args:
        vertices: (V, 3) float, any frame.
        low: (3,) lowest corner of the bounding box.
        extent: longest side; positions are compared at WELD_TOLERANCE * extent.

    Returns:
        (V,) int64 dense id per vertex.
    """
    cells = np.rint((vertices - low) / (extent * WELD_TOLERANCE)).astype(np.int64)
    if cells.max(initial=0) < KEY_LIMIT:
        return densify_ids(compute_cell_keys(cells))
    return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def find_shared_edges(
    corners: IntArray, triangles: FloatArray
) -> tuple[IntArray, FloatArray, BoolArray]:
    """Find the faces that share an edge; around a non-manifold edge faces form a chain.

    Args:
        corners: (F, 3) int64 welded vertex ids.
        triangles: (F, 3, 3) float64 corner positions.

    Returns:
        (E, 2) int64 face pairs, (E,) float64 edge lengths, and (E,) bool: the two faces run
        along the edge in opposite directions, as neighbours of one orientation do.
    """
    start = corners.T.reshape(-1)
    end = corners[:, [1, 2, 0]].T.reshape(-1)
    face = np.tile(np.arange(len(corners)), 3)
    length = np.linalg.norm(triangles[:, [1, 2, 0]] - triangles, axis=2).T.reshape(-1)
    kept = np.flatnonzero(start != end)
    first, second = np.minimum(start, end)[kept], np.maximum(start, end)[kept]
    order = np.lexsort((face[kept], second, first))
    kept, first, second = kept[order], first[order], second[order]
    same = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
    left, right = kept[:-1][same], kept[1:][same]
    different = face[left] != face[right]
    left, right = left[different], right[different]
    pairs = np.stack([face[left], face[right]], axis=1)
    return pairs, length[left], start[left] != start[right]


def _compute_signed_angles(
    triangles: FloatArray, normals: FloatArray, pairs: IntArray, opposite: BoolArray
) -> FloatArray:
    """(E,) dihedral angles, positive where the surface folds inwards."""
    a, b = pairs[:, 0], pairs[:, 1]
    other = np.where(opposite[:, None], normals[b], -normals[b])
    cosine = np.clip(np.einsum("ij,ij->i", normals[a], other), -1.0, 1.0)
    step = triangles[b].mean(axis=1) - triangles[a].mean(axis=1)
    sign = np.sign(np.einsum("ij,ij->i", normals[a], step) - np.einsum("ij,ij->i", other, step))
    angles: FloatArray = np.arccos(cosine) * np.where(sign == 0, 1.0, sign)
    return angles


def _compute_signed_volumes(
    triangles: FloatArray, components: IntArray, middle: FloatArray
) -> FloatArray:
    """(C,) six times the volume of each component, negative where it is turned inside out."""
    local = triangles - middle
    volume = np.einsum("ij,ij->i", local[:, 0], np.cross(local[:, 1], local[:, 2]))
    return np.bincount(components, weights=volume).astype(np.float64)


def _are_closed(cross: FloatArray, length: FloatArray, components: IntArray) -> BoolArray:
    """(C,) whether the area vectors of a component cancel, as round a closed volume."""
    sums = np.stack([np.bincount(components, weights=axis) for axis in cross.T], axis=1)
    closed: BoolArray = np.linalg.norm(sums, axis=1) < _OPENNESS * np.bincount(components, length)
    return closed
