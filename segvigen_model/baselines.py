"""Geometric segmenters that know no learning: the bar that a model must clear.

Clicks: whole connected component, segments grown while the fold stays small, a ball, a Voronoi
cell between positive and negative clicks, everything. Full: components, folds, one part. Angles
and radii are fixed here; whoever reports "the best" must choose it on other data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from segvigen_model.geometry import Surface, label_components
from segvigen_model.types import BoolArray, Click, FloatArray, IntArray

ANGLES_DEG = (10, 20, 35, 50)
RADII = (0.1, 0.2)  # mesh units of a mesh whose longest side is 1


@dataclass(frozen=True, slots=True)
class Baselines:
    """What the baselines need of one mesh, computed once.

    Attributes:
        surface: geometry.
        segments: name -> (F,) int segment ids.
    """

    surface: Surface
    segments: dict[str, IntArray]


def prepare(surface: Surface) -> Baselines:
    """Segment a mesh by connectivity and by folds."""
    segments = {"components": grown_segments(surface, None)}
    for angle in ANGLES_DEG:
        segments[f"dihedral {angle}"] = grown_segments(surface, np.deg2rad(angle))
    return Baselines(surface, segments)


def grown_segments(surface: Surface, angle: float | None) -> IntArray:
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


def click_masks(prepared: Baselines, clicks: Sequence[Click]) -> dict[str, BoolArray]:
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
    near = distance_to(surface.centers, surface.centers[positive])
    masks |= {f"ball {r}": near < r * surface.extent for r in RADII}
    if len(negative):
        masks["voronoi"] = near < distance_to(surface.centers, surface.centers[negative])
    masks["everything"] = np.ones(surface.num_faces, bool)
    return masks


def distance_to(points: FloatArray, targets: FloatArray) -> FloatArray:
    """(N,) straight distance to the nearest of a few targets."""
    nearest: FloatArray = np.min([np.linalg.norm(points - t, axis=1) for t in targets], axis=0)
    return nearest


def geodesic_distance(surface: Surface, faces: IntArray) -> FloatArray:
    """(F,) shortest way over face centres to the nearest of some faces; inf when cut off."""
    gaps = np.linalg.norm(np.diff(surface.centers[surface.pairs], axis=1)[:, 0], axis=1)
    left, right = surface.pairs.T
    size = (surface.num_faces,) * 2
    graph = coo_matrix((np.maximum(gaps, 1e-12), (left, right)), size).tocsr()
    ways: FloatArray = dijkstra(graph, directed=False, indices=faces, min_only=True)
    return ways


def geodesic_voronoi(surface: Surface, faces: Sequence[int]) -> IntArray:
    """(F,) which of some seed faces is nearest along the surface (straight where cut off)."""
    ways = np.stack([geodesic_distance(surface, np.array([f])) for f in faces])
    straight = np.stack([distance_to(surface.centers, surface.centers[[f]]) for f in faces])
    ways = np.where(np.isfinite(ways), ways, 1e3 * surface.extent + straight)
    nearest: IntArray = ways.argmin(axis=0)
    return nearest


def full_labels(prepared: Baselines) -> dict[str, IntArray]:
    """Partition the whole mesh with every baseline: name -> (F,) int labels."""
    one = np.zeros(prepared.surface.num_faces, np.int64)
    return {**prepared.segments, "everything": one}
