"""Atoms: the smallest pieces that get labels, who touches whom, and merging them into parts.

Pieces touch over shared edges or, in meshes made of loose components, through small gaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segvigen_model.geometry import TINY, Surface, contacts, dense_ids, sample_faces, sum_by
from segvigen_model.patches import NUM_PATCHES, patch_ids
from segvigen_model.segments import SegmentTree
from segvigen_model.types import BoolArray, FloatArray, IntArray

CONTACT_CELL = 1 / 96  # of the longest side: pieces this close touch
GAP_FOLD = 0.8  # how strongly two loose pieces that merely touch are separate; 1 = surely


@dataclass(frozen=True, slots=True)
class Atoms:
    """The smallest pieces that labels are given to, and which of them touch.

    Attributes:
        of_face: (F,) int64 dense atom id per face.
        areas: (A,) float64 shares of the surface, sum 1.
        pairs: (B, 2) int64 touching atoms, lower id first.
        lengths: (B,) float64 border length in units of the longest side.
        folds: (B,) float64 0..1, how strongly geometry separates the pair.
        source: what the atoms are, for provenance.
    """

    of_face: IntArray
    areas: FloatArray
    pairs: IntArray
    lengths: FloatArray
    folds: FloatArray
    source: str

    @property
    def count(self) -> int:
        """Number of atoms."""
        return len(self.areas)

    def mean(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """Area-weighted mean per atom of (F,) face values; weights are (F,) face areas."""
        safe = np.maximum(weights, TINY)
        total = sum_by(self.of_face, values * safe, self.count)
        means: FloatArray = total / np.maximum(sum_by(self.of_face, safe, self.count), TINY)
        return means


def patch_atoms(surface: Surface, tree: SegmentTree, count: int = NUM_PATCHES) -> Atoms:
    """Take even patches as atoms and find which touch, over edges or through gaps."""
    of_face = patch_ids(surface, count)
    areas = sum_by(of_face, np.maximum(surface.areas, TINY), int(of_face.max(initial=0)) + 1)
    pairs, lengths, folds = _touching(surface, tree, of_face)
    return Atoms(of_face, areas / areas.sum(), pairs, lengths, folds, "patches")


def border_weights(atoms: Atoms) -> FloatArray:
    """(B,) float64 price of cutting each border: long smooth borders are dear."""
    typical = max(float(atoms.lengths.mean()), TINY) if len(atoms.lengths) else 1.0
    weights: FloatArray = atoms.lengths / typical * (1.0 - 0.9 * atoms.folds)
    return weights


def _touching(
    surface: Surface, tree: SegmentTree, of_face: IntArray
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Pairs of atoms with border length and fold strength, edges and gaps together."""
    sides = of_face[surface.pairs]
    crossing = sides[:, 0] != sides[:, 1]
    edge_pairs = np.sort(sides[crossing], axis=1)
    edge_lengths = surface.lengths[crossing] / surface.extent
    together = (
        tree.levels[:, surface.pairs[crossing, 0]] == tree.levels[:, surface.pairs[crossing, 1]]
    )
    # The level on which two atoms first share a segment says how strong the fold between is.
    edge_folds = (~together).sum(axis=0) / len(tree.levels)
    gap_pairs, gap_lengths = _gaps(surface, of_face)
    pairs = np.concatenate([edge_pairs, gap_pairs])
    lengths = np.concatenate([edge_lengths, gap_lengths / surface.extent])
    folds = np.concatenate([edge_folds, np.full(len(gap_pairs), GAP_FOLD)])
    return join_pairs(pairs, lengths, folds)


def _gaps(surface: Surface, of_face: IntArray) -> tuple[IntArray, FloatArray]:
    """Pairs of atoms of different components that nearly touch; within one, edges say it."""
    if not surface.components.any():
        return np.zeros((0, 2), np.int64), np.zeros(0)
    cell = CONTACT_CELL * surface.extent
    points = sample_faces(surface.triangles, surface.areas, 0.6 * cell)
    pairs, lengths = contacts(points, of_face, cell)
    sides = surface.components[_first_face(of_face)][pairs]
    is_gap = sides[:, 0] != sides[:, 1]
    return pairs[is_gap], lengths[is_gap]


def join_pairs(
    pairs: IntArray, lengths: FloatArray, folds: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Join equal pairs: lengths add up, folds are averaged by length."""
    count = int(pairs.max(initial=0)) + 1
    keys, where = np.unique(pairs[:, 0] * count + pairs[:, 1], return_inverse=True)
    safe = np.maximum(lengths, TINY)
    total = sum_by(where, safe, len(keys))
    unique = np.stack([keys // count, keys % count], axis=1)
    return unique, total, sum_by(where, safe * folds, len(keys)) / np.maximum(total, TINY)


def _first_face(groups: IntArray) -> IntArray:
    """One face of every group: (F,) dense ids -> (G,) int64."""
    faces: IntArray = np.unique(groups, return_index=True)[1]
    return faces


class PartMerger:
    """Mutable state of merging atoms into parts, cheapest border first.

    Args:
        atoms: the pieces.
        costs: (B,) float cost of removing each border, 0..1; joined borders cost the mean by
            length. The atoms' folds when None.
        kept: (B,) bool, borders that may vanish; all when None.
    """

    def __init__(
        self, atoms: Atoms, costs: FloatArray | None = None, kept: BoolArray | None = None
    ) -> None:
        mask = np.ones(len(atoms.pairs), bool) if kept is None else kept
        self.labels: IntArray = np.arange(atoms.count)
        self.areas = atoms.areas.copy()
        self.pairs, self.lengths = atoms.pairs[mask], atoms.lengths[mask]
        self.costs = (atoms.folds if costs is None else costs)[mask]

    @property
    def count(self) -> int:
        """Parts left."""
        return len(self.areas)

    def merge_below(self, threshold: float) -> None:
        """Merge borders that cost less than the threshold until none is left."""
        while (self.costs < threshold).any():
            chosen = self._mutual(self.costs)
            self._join(chosen[self.costs[chosen] < threshold])

    def merge_to(self, count: int) -> None:
        """Merge the cheapest borders until `count` parts are left or no two touch."""
        while self.count > count and len(self.pairs):
            self._join(self._mutual(self.costs)[: self.count - count])

    def absorb_small(self, min_area: float) -> None:
        """Join parts below `min_area` (share of the surface) to the neighbour touched most."""
        while True:
            border = (self.areas < min_area)[self.pairs].any(axis=1)
            if not border.any():
                break
            self._join(self._mutual(np.where(border, -self.lengths, np.inf)))

    def _mutual(self, costs: FloatArray) -> IntArray:
        """Borders of finite cost that are the cheapest of both sides, cheapest first.

        The cheapest border of all is always among them, so every round makes progress.
        """
        rank = np.zeros(len(costs), np.int64)
        rank[np.argsort(costs, kind="stable")] = np.arange(len(costs))
        best = np.full(self.count, len(costs))
        for side in (0, 1):
            np.minimum.at(best, self.pairs[:, side], rank)
        is_best = (best[self.pairs[:, 0]] == rank) & (best[self.pairs[:, 1]] == rank)
        chosen = np.flatnonzero(is_best & np.isfinite(costs))
        ordered: IntArray = chosen[np.argsort(rank[chosen])]
        return ordered

    def _join(self, chosen: IntArray) -> None:
        """Join both sides of the chosen borders."""
        target: IntArray = np.arange(self.count)
        target[self.pairs[chosen, 1]] = self.pairs[chosen, 0]
        target = dense_ids(target)
        self.labels = target[self.labels]
        self.areas = sum_by(target, self.areas, int(target.max(initial=0)) + 1)
        pairs = np.sort(target[self.pairs], axis=1)
        kept = pairs[:, 0] != pairs[:, 1]
        self.pairs, self.lengths, self.costs = join_pairs(
            pairs[kept], self.lengths[kept], self.costs[kept]
        )
