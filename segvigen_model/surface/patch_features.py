"""Features of patches that no rotation changes: the patch network's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from segvigen_model.surface.arrays import TINY, sum_by
from segvigen_model.surface.feature_schema import order_columns
from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.ray_features import build_occupancy_grid, measure_ray_lengths
from segvigen_model.surface.region_merging import LEVEL_NAMES
from segvigen_model.types import FloatArray, IntArray

RADII = (0.05, 0.12, 0.3)  # neighbourhoods, longest sides
FAR = 3.0  # path length of what cannot be reached, longest sides
FOLD_PRICE = 4.0  # how much longer a path is across a strong fold
_GRID = 64
SCALAR_COLUMNS = (
    *("log_area", "flatness", "log_spread_least", "log_spread_middle", "log_spread_most"),
    *(f"{what}_{r}" for r in RADII for what in ("bend", "normal_agreement", "log_nearby_area")),
    *(f"log_segment_area_{name}" for name in LEVEL_NAMES),
    *("thickness_mean", "thickness_least", "clearance_mean", "clearance_least", "open_share"),
    "distance_to_centroid",
    *("log_num_components", "log_num_regions", "log_num_materials"),
    *("largest_region_share", "area_over_extent"),
)


@dataclass(frozen=True, slots=True)
class PatchFeatures:
    """What the network reads of one object.

    Attributes:
        centers: (A, 3) float32 centroids, longest sides, bounding box centred on 0.
        normals: (A, 3) float32 mean unit normals.
        areas: (A,) float32 share of the surface, sum 1.
        levels: (K, A) int32 segment of each patch per level of the tree.
        materials: (A,) int32.
        geodesic_distances: (A, A) float32 path lengths over the surface, dearer across folds, up to
            FAR.
        scalars: (A, S) float32 features that no rotation changes, one per `SCALAR_COLUMNS`.
    """

    centers: FloatArray
    normals: FloatArray
    areas: FloatArray
    levels: IntArray
    materials: IntArray
    geodesic_distances: FloatArray
    scalars: FloatArray

    @property
    def count(self) -> int:
        """Number of patches."""
        return len(self.areas)

    def scalar(self, name: str) -> FloatArray:
        """(A,) one of `SCALAR_COLUMNS`."""
        column: FloatArray = self.scalars[:, SCALAR_COLUMNS.index(name)]
        return column


def compute_patch_features(
    surface: Surface,
    levels: IntArray,
    of_face: IntArray,
    pairs: IntArray,
    folds: FloatArray,
) -> PatchFeatures:
    """Measure every patch.

    Args:
        surface: geometry.
        levels: (K, F) int segments of the tree, one row per `LEVEL_NAMES`.
        of_face: (F,) int patch of each face.
        pairs: (B, 2) int touching patches.
        folds: (B,) float 0..1, how strongly geometry separates them.
    """
    count = int(of_face.max(initial=0)) + 1
    weight = np.maximum(surface.areas, TINY)
    total = sum_by(of_face, weight, count)
    places = (surface.centers - surface.middle) / surface.extent
    centers = _average_faces(places, of_face, weight, total)
    normals = _average_faces(surface.normals, of_face, weight, total)
    flatness = np.linalg.norm(normals, axis=1)
    normals /= np.maximum(flatness, TINY)[:, None]
    largest = find_largest_faces(of_face, weight)
    areas = total / total.sum()
    own = levels[:, largest]
    middle_of_all = (areas[:, None] * centers).sum(axis=0)
    scalars = {
        "log_area": np.log(areas + 1e-6),
        "flatness": flatness,
        **_compute_spreads(places, centers, of_face, weight, total),
        **_compute_neighbourhoods(centers, normals, areas),
        **_compute_level_areas(levels, own, weight),
        **_compute_ray_features(surface, surface.middle, largest),
        "distance_to_centroid": np.linalg.norm(centers - middle_of_all, axis=1),
        **_summarize_object(surface, count),
    }
    return PatchFeatures(
        centers=centers.astype(np.float32),
        normals=normals.astype(np.float32),
        areas=areas.astype(np.float32),
        levels=own.astype(np.int32),
        materials=surface.materials[largest].astype(np.int32),
        geodesic_distances=_compute_geodesic_distances(centers, pairs, folds),
        scalars=np.stack(order_columns(scalars, SCALAR_COLUMNS), axis=1).astype(np.float32),
    )


def _average_faces(
    values: FloatArray, of_face: IntArray, weight: FloatArray, total: FloatArray
) -> FloatArray:
    """(A, C) weighted mean of (F, C) values over the faces of each patch."""
    sums = [sum_by(of_face, weight * column, len(total)) for column in values.T]
    result: FloatArray = np.stack(sums, axis=1) / total[:, None]
    return result


def _compute_geodesic_distances(
    centers: FloatArray, pairs: IntArray, folds: FloatArray
) -> FloatArray:
    """(A, A) float32 path lengths over touching patches, dearer across folds, up to FAR."""
    left, right = pairs.T
    step = np.linalg.norm(centers[left] - centers[right], axis=1) + 1e-6
    size = (len(centers), len(centers))
    graph = coo_matrix((step * (1 + FOLD_PRICE * folds), (left, right)), size).tocsr()
    distances: FloatArray = np.minimum(dijkstra(graph, directed=False), FAR).astype(np.float32)
    return distances


def find_largest_faces(of_face: IntArray, weight: FloatArray) -> IntArray:
    """(A,) the largest face of each patch, of (F,) ids and face weights."""
    order = np.lexsort((-weight, of_face))
    rows: IntArray = order[np.searchsorted(of_face[order], np.arange(of_face.max() + 1))]
    return rows


def _compute_spreads(
    places: FloatArray,
    centers: FloatArray,
    of_face: IntArray,
    weight: FloatArray,
    total: FloatArray,
) -> dict[str, FloatArray]:
    """Log spread along the principal axes of each patch."""
    gap = places - centers[of_face]
    outer = np.einsum("fi,fj->fij", gap, gap).reshape(-1, 9)
    sums = [sum_by(of_face, weight * column, len(total)) for column in outer.T]
    matrix = np.stack(sums, axis=1).reshape(-1, 3, 3) / total[:, None, None]
    values = np.linalg.eigvalsh(matrix)
    logs = 0.5 * np.log(np.maximum(values, 0) + 1e-7)
    names = ("least", "middle", "most")  # eigenvalues come in rising order
    return {f"log_spread_{name}": column for name, column in zip(names, logs.T, strict=True)}


def _compute_neighbourhoods(
    centers: FloatArray, normals: FloatArray, areas: FloatArray
) -> dict[str, FloatArray]:
    """Per radius: how the surface bends, how alike normals are, how much surface is near."""
    at, up = centers.astype(np.float32), normals.astype(np.float32)
    share = areas.astype(np.float32)
    square = (at**2).sum(axis=1)
    gaps = np.sqrt(np.maximum(square[:, None] + square - 2 * at @ at.T, 0))
    rise = up @ at.T - (up * at).sum(axis=1, keepdims=True)  # n_i . (c_j - c_i)
    normal_similarity = up @ up.T
    columns = {}
    for radius in RADII:
        near = np.exp(-((gaps / radius) ** 2)) * share
        total = near.sum(axis=1)
        columns[f"bend_{radius}"] = (near * rise).sum(axis=1) / (total * radius)
        columns[f"normal_agreement_{radius}"] = (near * normal_similarity).sum(axis=1) / total
        columns[f"log_nearby_area_{radius}"] = np.log(total + 1e-6)
    return columns


def _compute_level_areas(
    levels: IntArray, own: IntArray, weight: FloatArray
) -> dict[str, FloatArray]:
    """Log share of the surface of the segment that a patch lies in, per level."""
    share = weight / weight.sum()
    return {
        f"log_segment_area_{name}": np.log(sum_by(ids, share, int(ids.max()) + 1)[own_area] + 1e-6)
        for name, ids, own_area in zip(LEVEL_NAMES, levels, own, strict=True)
    }


def _compute_ray_features(
    surface: Surface, middle: FloatArray, largest: IntArray
) -> dict[str, FloatArray]:
    """Thickness inwards, and free space outwards."""
    grid = build_occupancy_grid(surface, middle, _GRID)
    at = (surface.centers[largest] - middle) / surface.extent
    up = surface.normals[largest]
    inwards = measure_ray_lengths(grid, at, -up, wide=0.6)
    outwards = measure_ray_lengths(grid, at, up, wide=1.5)
    return {
        "thickness_mean": inwards.mean(axis=1),
        "thickness_least": inwards.min(axis=1),
        "clearance_mean": outwards.mean(axis=1),
        "clearance_least": outwards.min(axis=1),
        "open_share": (outwards >= 1.0).mean(axis=1),
    }


def _summarize_object(surface: Surface, count: int) -> dict[str, FloatArray]:
    """Facts of the whole object, repeated for each patch."""
    share = surface.areas / max(float(surface.areas.sum()), TINY)
    regions = sum_by(surface.regions, share, int(surface.regions.max()) + 1)
    values = {
        "log_num_components": np.log1p(surface.components.max()),
        "log_num_regions": np.log1p(len(regions) - 1),
        "log_num_materials": np.log1p(surface.materials.max()),
        "largest_region_share": regions.max(),
        "area_over_extent": surface.areas.sum() / surface.extent**2,
    }
    return {name: np.full(count, float(value)) for name, value in values.items()}
