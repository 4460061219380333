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
from segvigen_model.surface.arrays import TINY, label_components, sum_by
from segvigen_model.surface.geometry import Surface
from segvigen_model.types import BoolArray, FloatArray, IntArray

# Numbers of segments at which the merge is recorded: features of the patch network.
SEGMENT_COUNTS = (320, 160, 80, 40, 20, 10, 5)
# Names of all levels, finest first: "n<count>", then component and material, then component.
LEVEL_NAMES = (*(f"n{count}" for count in SEGMENT_COUNTS), "region", "component")
_MAX_ROUNDS = 2000


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
        self.pairs = np.sort(pairs, axis=1)
        # Columns: border length, border length * fold weight.
        self.borders = np.stack([lengths, lengths * weight], axis=1)

    def merge_down_to(self, count: int) -> IntArray:
        """Merge until at most `count` regions are left or no two touch; (F,) dense ids."""
        for _ in range(_MAX_ROUNDS):
            self._join_borders()
            if len(self.areas) <= count or not len(self.pairs):
                break
            is_many = len(self.areas) > self.config.chain_above
            self._merge_borders(
                self._select_chains() if is_many else self._select_cheapest(len(self.areas) - count)
            )
        return self.labels.copy()

    def _join_borders(self) -> None:
        """Add up the borders between the same two regions."""
        count = len(self.areas)
        keys, where = np.unique(self.pairs[:, 0] * count + self.pairs[:, 1], return_inverse=True)
        self.pairs = np.stack([keys // count, keys % count], axis=1)
        sums = [sum_by(where, self.borders[:, c], len(keys)) for c in range(2)]
        self.borders = np.stack(sums, axis=1)

    def _compute_costs(self) -> FloatArray:
        """(B,) cost of removing each border."""
        left, right = self.pairs.T
        length = np.maximum(self.borders[:, 0], TINY)
        count = len(self.areas)
        perimeter = sum_by(left, length, count) + sum_by(right, length, count)
        neck = length / np.maximum(np.minimum(perimeter[left], perimeter[right]), TINY)
        size = np.minimum(self.areas[left], self.areas[right]) ** self.config.size_power
        fold = self.config.border_floor + self.borders[:, 1] / length
        costs: FloatArray = fold * size / np.maximum(neck, 1e-3) ** self.config.neck_power
        return costs

    def _select_cheapest(self, limit: int) -> IntArray:
        """At most `limit` borders that are the cheapest of both their regions."""
        costs = self._compute_costs()
        rank = np.zeros(len(costs), np.int64)
        rank[np.argsort(costs, kind="stable")] = np.arange(len(costs))  # no ties
        best = np.full(len(self.areas), len(costs))
        for side in (0, 1):
            np.minimum.at(best, self.pairs[:, side], rank)
        mutual = np.flatnonzero((best[self.pairs[:, 0]] == rank) & (best[self.pairs[:, 1]] == rank))
        return mutual[np.argsort(rank[mutual])][:limit]

    def _select_chains(self) -> IntArray:
        """The cheapest border of every region, the dearer half of them left out.

        Not the exact order, but the number of regions falls by a fixed share in every round, also
        on smooth sheets where few borders are the cheapest of both sides.
        """
        costs = self._compute_costs()
        best = np.full(len(self.areas), np.inf)
        for side in (0, 1):
            np.minimum.at(best, self.pairs[:, side], costs)
        is_best = costs <= np.maximum(best[self.pairs[:, 0]], best[self.pairs[:, 1]])
        chosen = np.flatnonzero(is_best)
        kept: IntArray = chosen[costs[chosen] <= np.median(costs[chosen])]
        return kept

    def _merge_borders(self, chosen: IntArray) -> None:
        """Join the regions on both sides of the chosen borders."""
        target = label_components(len(self.areas), self.pairs[chosen])
        self.labels = target[self.labels]
        self.areas = sum_by(target, self.areas, int(target.max()) + 1)
        pairs = np.sort(target[self.pairs], axis=1)
        kept = pairs[:, 0] != pairs[:, 1]
        self.pairs, self.borders = pairs[kept], self.borders[kept]


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
