"""Geometric segments: a nested hierarchy of pieces of the surface, from shallow folds to whole
connected components.

Neighbouring regions are merged, cheapest border first: borders that are concave, long-necked or
between large regions are dear, flat and wide ones cheap (people cut objects where they fold
inwards and where they are thin). No merge crosses a material or a component below the last two
levels, so every level is a refinement of the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segvigen_model.config import RegionMergingConfig
from segvigen_model.surface.arrays import TINY, sum_by
from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.merging_kernel import merge_regions, sort_borders
from segvigen_model.types import BoolArray, FloatArray, IntArray

# Numbers of segments at which the merge is recorded: features of the patch network.
SEGMENT_COUNTS = (320, 160, 80, 40, 20, 10, 5)
# Names of all levels, finest first: "n<count>", then component and material, then component.
LEVEL_NAMES = (*(f"n{count}" for count in SEGMENT_COUNTS), "region", "component")


@dataclass(frozen=True, slots=True)
class SegmentTree:
    """Nested segments of one surface.

    Attributes:
        levels: (K, F) int64 dense segment id per level and face, finest level first; two faces
            together on one level are together on all later ones.
            The last two are regions (component and material) and components.
    """

    levels: IntArray


def build_segment_tree(surface: Surface, config: RegionMergingConfig) -> SegmentTree:
    """Build the hierarchy.

    Args:
        surface: geometry of the mesh.
        config: what removing a border costs.

    Returns:
        The nested levels. A surface with more regions than a level's number of segments shows its
        regions at that level.
    """
    merger = _Merger(surface, config)
    # A low-poly mesh would otherwise keep every triangle to itself on all levels.
    limit = max(surface.num_faces // 2, 1)
    levels = [merger.merge_down_to(min(count, limit)) for count in SEGMENT_COUNTS]
    return SegmentTree(np.stack([*levels, surface.regions, surface.components]))


class _Merger:
    """Mutable state of the region merging: regions, their borders and sizes."""

    def __init__(self, surface: Surface, config: RegionMergingConfig) -> None:
        self.config = config
        pairs = surface.pairs
        inside = surface.regions[pairs[:, 0]] == surface.regions[pairs[:, 1]]
        pairs, lengths = pairs[inside], surface.lengths[inside] / surface.extent
        fold, is_concave = _measure_folds(surface, pairs, config.smoothing_steps)
        weight = np.where(is_concave, fold, config.convex_weight * fold)
        self.labels = np.arange(surface.num_faces)
        self.areas = surface.areas / max(surface.areas.sum(), TINY)
        self.borders = sort_borders(
            surface.num_faces, np.sort(pairs, axis=1), lengths, lengths * weight
        )

    def merge_down_to(self, count: int) -> IntArray:
        """Merge until at most `count` regions are left or no two touch; (F,) dense ids."""
        config = self.config
        costing = (config.border_floor, config.size_power, config.neck_power)
        group, self.areas, self.borders = merge_regions(
            count, config.chain_above, self.areas, self.borders, costing
        )
        self.labels = group[self.labels]
        return self.labels


def _measure_folds(
    surface: Surface, pairs: IntArray, smoothing_steps: int
) -> tuple[FloatArray, BoolArray]:
    """Angle between smoothed normals across each pair, radians, and whether it folds inwards."""
    normals = surface.normals * surface.areas[:, None]
    left, right = pairs.T
    for _ in range(smoothing_steps):
        total = normals.copy()
        for axis in range(3):
            total[:, axis] += sum_by(left, normals[right, axis], len(normals))
            total[:, axis] += sum_by(right, normals[left, axis], len(normals))
        normals = total
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), TINY)
    cosine = np.einsum("ij,ij->i", normals[left], normals[right])
    step = surface.centers[right] - surface.centers[left]
    is_concave = np.einsum("ij,ij->i", normals[right] - normals[left], step) < 0
    return np.arccos(np.clip(cosine, -1.0, 1.0)), is_concave
