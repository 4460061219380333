"""Geometric segmenters that know no learning: the bar that a model must clear.

Clicks: whole connected component, segments grown while the fold stays small, a ball (straight and
along the surface), a Voronoi cell between positive and negative clicks, everything. Full:
components, folds, one part. Angles and radii are fixed here; whoever reports "the best" says on
which data it was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from segvigen_model.surface.arrays import label_components
from segvigen_model.surface.geometry import Surface
from segvigen_model.types import BoolArray, Click, FloatArray, IntArray

ANGLES_DEG = (10, 20, 35, 50)
RADII = (0.1, 0.2)  # mesh units of a mesh whose longest side is 1


@dataclass(frozen=True, slots=True)
class Baselines:
    """What the baselines need of one mesh, computed once.

    Attributes:
        surface: geometry.
        segments: name -> (F,) int segment ids.
        neighbour_graph: (F, F) sparse distances between the centres of neighbouring faces.
    """

    surface: Surface
    segments: dict[str, IntArray]
    neighbour_graph: csr_matrix


def prepare_baselines(surface: Surface) -> Baselines:
    """Segment a mesh by connectivity and by folds."""
    segments = {"components": grow_segments(surface, None)}
    for angle in ANGLES_DEG:
        segments[f"dihedral {angle}"] = grow_segments(surface, np.deg2rad(angle))
    return Baselines(surface, segments, build_neighbour_graph(surface))


def grow_segments(surface: Surface, angle: float | None) -> IntArray:
    """Join neighbouring faces whose normals (up to sign) differ by less than `angle` radians.

    Args:
        surface: geometry.
        angle: None joins all neighbours.

    Returns:
        (F,) int64 dense segment ids.
    """
    pairs = surface.pairs
    if angle is not None:
        left, right = surface.normals[pairs[:, 0]], surface.normals[pairs[:, 1]]
        pairs = pairs[np.abs((left * right).sum(1)) > np.cos(angle)]
    return label_components(surface.num_faces, pairs)


def predict_click_masks(prepared: Baselines, clicks: Sequence[Click]) -> dict[str, BoolArray]:
    """Answer clicks with every baseline.

    Args:
        prepared: the mesh.
        clicks: at least one positive; negatives matter to the Voronoi cell only.

    Returns:
        Name -> (F,) bool.
    """
    surface = prepared.surface
    positive = np.array([c.face for c in clicks if c.is_positive])
    negative = np.array([c.face for c in clicks if not c.is_positive], int)
    masks = {n: np.isin(ids, ids[positive]) for n, ids in prepared.segments.items()}
    near = measure_distance(surface.centers, surface.centers[positive])
    masks |= {f"ball {r}": near < r * surface.extent for r in RADII}
    reach = max(RADII) * surface.extent
    along = dijkstra(
        prepared.neighbour_graph,
        directed=False,
        indices=np.unique(positive),
        limit=reach,
        min_only=True,
    )
    masks |= {f"geodesic ball {r}": along < r * surface.extent for r in RADII}
    if len(negative):
        masks["voronoi"] = near < measure_distance(surface.centers, surface.centers[negative])
    masks["everything"] = np.ones(surface.num_faces, bool)
    return masks


def measure_distance(points: FloatArray, targets: FloatArray) -> FloatArray:
    """(N,) straight distance to the nearest of a few targets."""
    nearest: FloatArray = np.min([np.linalg.norm(points - t, axis=1) for t in targets], axis=0)
    return nearest


def build_neighbour_graph(surface: Surface) -> csr_matrix:
    """(F, F) sparse graph of the way from a face's centre to its neighbours' centres."""
    gaps = np.linalg.norm(np.diff(surface.centers[surface.pairs], axis=1)[:, 0], axis=1)
    left, right = surface.pairs.T
    gaps = np.maximum(gaps, 1e-9 * surface.extent)  # a stored zero would read as no way at all
    # A pair of faces may share two edges; summing their ways, as sparse sums do, would be wrong.
    keys, first = np.unique(np.stack([left, right]), axis=1, return_index=True)
    return coo_matrix((gaps[first], tuple(keys)), (surface.num_faces,) * 2).tocsr()


def compute_geodesic_voronoi(surface: Surface, faces: Sequence[int]) -> IntArray:
    """(F,) which of some seed faces is nearest along the surface (straight where cut off)."""
    seeds, first = np.unique(np.asarray(faces), return_index=True)
    distances, _, sources = dijkstra(
        build_neighbour_graph(surface),
        directed=False,
        indices=seeds,
        min_only=True,
        return_predecessors=True,
    )
    straight = cKDTree(surface.centers[seeds]).query(surface.centers)[1]
    along = np.searchsorted(seeds, np.maximum(sources, seeds[0]))
    nearest: IntArray = first[np.where(np.isfinite(distances), along, straight)]
    return nearest


def predict_full_labels(prepared: Baselines) -> dict[str, IntArray]:
    """Partition the whole mesh with every baseline: name -> (F,) int labels."""
    one = np.zeros(prepared.surface.num_faces, np.int64)
    return {**prepared.segments, "everything": one}
