"""Values between voxels and the faces of the original mesh, both ways.

A face larger than a voxel is sampled over its area; a smaller one takes its three corners, as the
paper does. Every face gets an answer, also where no active voxel is near: then the nearest one
counts. The mesh itself is never changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from segvigen_model.config import TransferConfig
from segvigen_model.coords import grid_to_unit, mesh_to_unit, unit_to_grid
from segvigen_model.surface.arrays import compute_cell_keys
from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.sampling import sample_faces
from segvigen_model.types import AssetMesh, Encoding, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class FaceVoxels:
    """Which voxels a face covers, and how much of the surface lies in each.

    Attributes:
        shares: (F, N) sparse, rows sum to 1: share of the face's area per voxel.
        areas: (F,) float64 face areas, any one unit.
        nearest: (N,) int64 a face near each voxel, for voxels that no sample hit.
    """

    shares: csr_matrix
    areas: FloatArray
    nearest: IntArray

    def average_to_faces(self, values: FloatArray) -> FloatArray:
        """Average voxel values (N,) or (N, C) over each face: (F,) or (F, C) float64."""
        averages: FloatArray = self.shares @ np.asarray(values, dtype=np.float64)
        return averages

    def labels_to_faces(self, labels: IntArray) -> IntArray:
        """Give each face the voxel label that covers most of it: (N,) -> (F,) int32.

        Labels must be 0-based; the lower label wins a tie.
        """
        label_areas = self.shares @ _build_one_hot(labels)
        return _find_row_argmax(label_areas)

    def labels_to_voxels(self, face_labels: IntArray) -> IntArray:
        """Give each voxel the label of most surface in it: (F,) -> (N,) int32."""
        weighted = self.shares.multiply(np.maximum(self.areas, 1e-30)[:, None]).tocsr()
        label_areas = (weighted.T.tocsr() @ _build_one_hot(face_labels)).tocsr()
        labels = _find_row_argmax(label_areas)
        is_empty = np.diff(label_areas.indptr) == 0
        labels[is_empty] = face_labels[self.nearest[is_empty]]
        return labels


def relate_faces_to_voxels(
    mesh: AssetMesh, surface: Surface, encoding: Encoding, config: TransferConfig
) -> FaceVoxels:
    """Relate faces to active voxels.

    Args:
        mesh: the original asset.
        surface: its geometry.
        encoding: its voxels, at least one, their grid and frame.
        config: how densely faces are sampled.

    Returns:
        The two-way relation.
    """
    coords, grid, frame = encoding.coords, encoding.grid, encoding.frame
    spacing = config.sample_spacing / (grid * frame.scale)
    points = sample_faces(surface.triangles, surface.areas, spacing)
    counts = np.bincount(points.face, minlength=surface.num_faces)
    small = counts == 1
    is_large = ~small[points.face]
    corner_voxels = find_nearest_voxels(mesh_to_unit(mesh.vertices, frame), coords, grid)
    large_voxels = find_nearest_voxels(mesh_to_unit(points.xyz[is_large], frame), coords, grid)
    face = np.concatenate([points.face[is_large], np.repeat(np.flatnonzero(small), 3)])
    voxel = np.concatenate([large_voxels, corner_voxels[mesh.faces[small]].reshape(-1)])
    share = np.where(small[face], 1 / 3, 1 / np.maximum(counts[face], 1))
    shape = (surface.num_faces, len(coords))
    shares = csr_matrix((share, (face, voxel)), shape=shape)
    centers = mesh_to_unit(surface.centers, frame)
    nearest = cKDTree(centers).query(grid_to_unit(coords, grid))[1]
    return FaceVoxels(shares=shares, areas=surface.areas, nearest=np.asarray(nearest, np.int64))


def find_nearest_voxels(xyz_unit: FloatArray, coords: IntArray, grid: int) -> IntArray:
    """Find the active voxel that holds each point, or else the nearest one.

    Args:
        xyz_unit: (S, 3) float, unit frame.
        coords: (N, 3) int32 active voxels, any order, N >= 1.
        grid: voxels along each axis.

    Returns:
        (S,) int64 row of `coords`.
    """
    keys = compute_cell_keys(coords.astype(np.int64))
    order = np.argsort(keys, kind="stable")
    wanted = compute_cell_keys(unit_to_grid(xyz_unit, grid).astype(np.int64))
    place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    rows: IntArray = order[place]
    missed = np.flatnonzero(keys[rows] != wanted)
    if len(missed):
        rows[missed] = cKDTree(grid_to_unit(coords, grid)).query(xyz_unit[missed])[1]
    return rows


def _build_one_hot(labels: IntArray) -> csr_matrix:
    """(N,) labels -> (N, L) sparse indicator."""
    rows = np.arange(len(labels))
    shape = (len(labels), int(labels.max(initial=0)) + 1)
    return csr_matrix((np.ones(len(labels)), (rows, labels)), shape=shape)


def _find_row_argmax(scores: csr_matrix) -> IntArray:
    """(R, L) sparse, non-negative -> (R,) int32 column of the largest value, lower on ties."""
    scores = scores.tocsr()
    scores.sort_indices()
    rows = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    # Rounding keeps sums of equal shares equal, whatever their order.
    order = np.lexsort((scores.indices, -np.round(scores.data, 12), rows))
    first = np.unique(rows[order], return_index=True)[1]
    best = np.zeros(scores.shape[0], np.int32)
    best[rows[order][first]] = scores.indices[order][first]
    return best
