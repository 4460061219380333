"""Superfaces: the smallest pieces that get labels, and their adjacency.

Pieces touch over shared edges or, between connected components, over small gaps. A fragment that
touches nothing is joined to the nearest patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from segvigen_model.config import ComponentConfig, PatchConfig
from segvigen_model.surface.arrays import TINY, find_typical_size, sum_by
from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.patches import cluster_patches
from segvigen_model.surface.region_merging import SegmentTree
from segvigen_model.surface.sampling import find_contacts, sample_faces
from segvigen_model.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Superfaces:
    """The smallest pieces that get labels, and which of them touch.

    Attributes:
        of_face: (F,) int64 dense superface id per face.
        areas: (A,) float64 shares of the surface, sum 1.
        pairs: (B, 2) int64 touching superfaces, lower id first.
        lengths: (B,) float64 border length in units of the longest side.
        folds: (B,) float64 0..1, how strongly geometry separates the pair.
        source: what the superfaces are, for provenance.
    """

    of_face: IntArray
    areas: FloatArray
    pairs: IntArray
    lengths: FloatArray
    folds: FloatArray
    source: str

    @property
    def count(self) -> int:
        """Number of superfaces."""
        return len(self.areas)

    def average_faces(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """Area-weighted mean per superface of (F,) face values; weights are (F,) face areas."""
        safe = np.maximum(weights, TINY)
        total = sum_by(self.of_face, values * safe, self.count)
        means: FloatArray = total / np.maximum(sum_by(self.of_face, safe, self.count), TINY)
        return means


def build_superfaces(
    surface: Surface,
    tree: SegmentTree,
    count: int,
    patches: PatchConfig,
    components: ComponentConfig,
) -> Superfaces:
    """Take even patches as superfaces and find which touch, over edges or through gaps.

    Args:
        surface: geometry.
        tree: its segments.
        count: wanted patches.
        patches: how to cluster.
        components: which components touch.
    """
    of_face = cluster_patches(surface, count, patches)
    return describe_superfaces(surface, tree, of_face, components)


def describe_superfaces(
    surface: Surface, tree: SegmentTree, of_face: IntArray, components: ComponentConfig
) -> Superfaces:
    """Measure given superfaces and find which touch, over edges or through gaps.

    Args:
        surface: geometry.
        tree: its segments.
        of_face: (F,) int64 dense superface of each face.
        components: which components touch.
    """
    areas = sum_by(of_face, np.maximum(surface.areas, TINY), int(of_face.max(initial=0)) + 1)
    pairs, lengths, folds = _find_adjacent_pairs(surface, tree, of_face, components)
    return Superfaces(of_face, areas / areas.sum(), pairs, lengths, folds, "patches")


def compute_border_weights(superfaces: Superfaces, fold_discount: float) -> FloatArray:
    """(B,) float64 price of cutting each border: long smooth borders are dear.

    Args:
        superfaces: the pieces.
        fold_discount: share of the price that the strongest fold takes away.
    """
    typical = max(float(superfaces.lengths.mean()), TINY) if len(superfaces.lengths) else 1.0
    weights: FloatArray = superfaces.lengths / typical * (1.0 - fold_discount * superfaces.folds)
    return weights


def _find_adjacent_pairs(
    surface: Surface, tree: SegmentTree, of_face: IntArray, config: ComponentConfig
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Pairs of superfaces with border length and fold strength, edges and gaps together."""
    sides = of_face[surface.pairs]
    crossing = sides[:, 0] != sides[:, 1]
    edge_pairs = np.sort(sides[crossing], axis=1)
    edge_lengths = surface.lengths[crossing] / surface.extent
    is_same_segment = (
        tree.levels[:, surface.pairs[crossing, 0]] == tree.levels[:, surface.pairs[crossing, 1]]
    )
    # The level on which two superfaces first share a segment says how strong the fold between is.
    edge_folds = (~is_same_segment).sum(axis=0) / len(tree.levels)
    gap_pairs, gap_lengths = _find_gaps(surface, of_face, config.contact_cell)
    far_pairs = _bridge_fragments(surface, of_face, gap_pairs, config)
    gap_pairs_all = np.concatenate([gap_pairs, far_pairs])
    pairs = np.concatenate([edge_pairs, gap_pairs_all])
    # A bridge has no border: as little as may be, so that no length is 0.
    widths = np.concatenate([gap_lengths / surface.extent, np.full(len(far_pairs), TINY)])
    lengths = np.concatenate([edge_lengths, widths])
    folds = np.concatenate([edge_folds, np.full(len(gap_pairs_all), config.gap_fold)])
    return join_pairs(pairs, lengths, folds)


def _find_gaps(
    surface: Surface, of_face: IntArray, contact_cell: float
) -> tuple[IntArray, FloatArray]:
    """Pairs of superfaces of different components that nearly touch; within one, edges say it."""
    if not surface.components.any():
        return np.zeros((0, 2), np.int64), np.zeros(0)
    cell = contact_cell * surface.extent
    points = sample_faces(surface.triangles, surface.areas, 0.6 * cell)
    pairs, lengths = find_contacts(points, of_face, cell)
    sides = surface.components[_find_first_faces(of_face)][pairs]
    is_gap = sides[:, 0] != sides[:, 1]
    return pairs[is_gap], lengths[is_gap]


def _bridge_fragments(
    surface: Surface, of_face: IntArray, gaps: IntArray, config: ComponentConfig
) -> IntArray:
    """Pairs of a fragment that touches nothing and the patch nearest to it.

    single shells of scans and generated meshes enclose bubbles; without a neighbour each would
    stay a part.

    Args:
        surface: geometry.
        of_face: (F,) int superface of each face.
        gaps: (G, 2) int superfaces of different connected components that nearly touch.
        config: below which size a component is a fragment.
    """
    components = surface.components
    sizes = sum_by(components, surface.areas, int(components.max(initial=0)) + 1)
    is_fragment = sizes < min(
        config.fragment_share * max(float(surface.areas.sum()), TINY),
        config.fragment_of_typical * find_typical_size(sizes),
    )
    is_fragment[components[_find_first_faces(of_face)][gaps.reshape(-1)]] = False
    fragment_faces, others = (
        np.flatnonzero(is_fragment[components]),
        np.flatnonzero(~is_fragment[components]),
    )
    if not len(fragment_faces) or not len(others):
        return np.zeros((0, 2), np.int64)
    distances, rows = cKDTree(surface.centers[others]).query(surface.centers[fragment_faces])
    order = np.lexsort(
        (distances, components[fragment_faces])
    )  # the nearest face of every fragment comes first
    first = order[np.unique(components[fragment_faces][order], return_index=True)[1]]
    ends = np.stack([of_face[fragment_faces[first]], of_face[others[rows[first]]]], axis=1)
    bridges: IntArray = np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1)
    return bridges


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


def _find_first_faces(groups: IntArray) -> IntArray:
    """One face of every group: (F,) dense ids -> (G,) int64."""
    faces: IntArray = np.unique(groups, return_index=True)[1]
    return faces
