"""Propose masks from the patch network's logits.

The best threshold, and whether a group of similar patches belongs to the mask as a whole, differ
from object to object. So many masks are proposed: the plain one, level sets of the logits, their
connected pieces that hold a click, and nested groups of patches. mask_selector.py chooses one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from segvigen_model.config import MaskProposalConfig
from segvigen_model.surface.adjacency import Superfaces
from segvigen_model.surface.agglomeration import PartMerger
from segvigen_model.surface.arrays import TINY, densify_ids
from segvigen_model.surface.patch_features import PatchFeatures
from segvigen_model.surface.region_merging import LEVEL_NAMES
from segvigen_model.types import BoolArray, FloatArray, IntArray

# How a mask came about; `MaskProposals.kinds` are places in it. Shared logits give no groups.
KINDS = (
    *("plain", "smoothed", "group", "level_set", "level_set_piece"),
    *("shared_plain", "shared_smoothed", "shared_level_set", "shared_level_set_piece"),
)
_GROUP = KINDS.index("group")
MIN_AREA = 1e-6  # share of the surface


@dataclass(frozen=True, slots=True)
class RegionGraph:
    """Region adjacency graph of an object's patches, as mask proposals need it.

    Attributes:
        areas: (A,) float64 shares of the surface.
        pairs: (B, 2) int64 touching patches.
        concavities: (B,) float64 -2..2, how much the surface folds inwards between touching
            patches; below 0 it folds outwards.
        affinity: (A, A) float64 probability that two patches are of one part.
        groups: (L, A) int64, nested groups by falling affinity.
        levels: (K, A) int64, geometric segment of each patch, dense ids; one row per
            `LEVEL_NAMES`.
        config: how masks are proposed; the groups were joined down to its levels.
    """

    areas: FloatArray
    pairs: IntArray
    concavities: FloatArray
    affinity: FloatArray
    groups: IntArray
    levels: IntArray
    config: MaskProposalConfig

    @property
    def components(self) -> IntArray:
        """(A,) int64, the connected component that each patch lies in."""
        pieces: IntArray = self.levels[LEVEL_NAMES.index("component")]
        return pieces


@dataclass(frozen=True, slots=True)
class ClickPrediction:
    """Prediction of the patch network for some clicks, in one crop (crops.py).

    Attributes:
        region_graph: of the crop.
        logits: (A,) float64 logits of each patch.
        positive, negative: int64 clicked patches, one entry per click; a patch that is both
            counts as positive.
        shared_logits: (A,) float64 average logits of all crops; `logits` where there is
            one.
        rim: (A,) bool, patches where the surface continues outside the crop.
        surface_share: of the object's surface that the crop shows.
    """

    region_graph: RegionGraph
    logits: FloatArray
    positive: IntArray
    negative: IntArray
    shared_logits: FloatArray
    rim: BoolArray
    surface_share: float

    @property
    def cut_probability(self) -> float:
        """Default probability threshold for this number of clicks."""
        return self.region_graph.config.compute_cut(len(self.positive))

    @property
    def is_clicked_component(self) -> BoolArray:
        """(A,) patches in connected components that a positive click is on."""
        components = self.region_graph.components
        is_clicked: BoolArray = np.isin(components, components[self.positive])
        return is_clicked

    def subtract_cut(self, logits: FloatArray, elsewhere: float | None = None) -> FloatArray:
        """(A,) logits above the plain cut, which is higher in connected components that nobody
        clicked.

        Args:
            logits: (A,) float64.
            elsewhere: the probability at which such pieces are cut; the region graph's when None.
        """
        other = self.region_graph.config.cut_elsewhere if elsewhere is None else elsewhere
        moved: FloatArray = logits - np.where(
            self.is_clicked_component, logit(self.cut_probability), logit(other)
        )
        return moved

    def enforce_clicks(self, mask: BoolArray) -> BoolArray:
        """A mask with the positive patches and without the negative ones."""
        mask = mask.copy()
        mask[self.negative] = False
        mask[self.positive] = True
        return mask


@dataclass(frozen=True, slots=True)
class MaskProposals:
    """Masks proposed for one prediction; the first is the plain one.

    Attributes:
        masks: (C, A) bool, all different.
        kinds: (C,) int, which of `KINDS`.
        levels: (C,) float, threshold or affinity that made it.
    """

    masks: BoolArray
    kinds: IntArray
    levels: FloatArray


def build_region_graph(
    superfaces: Superfaces,
    affinity: FloatArray,
    features: PatchFeatures,
    config: MaskProposalConfig,
) -> RegionGraph:
    """Join patches level by level.

    Args:
        superfaces: the patches.
        affinity: (A, A) probability that two of them are of one part.
        features: of the patches.
        config: how masks are proposed.
    """
    merger = PartMerger(superfaces, affinity)
    groups = []
    for level in config.group_levels:
        merger.merge_above(level)
        groups.append(merger.labels)
    segments = np.stack([densify_ids(row.astype(np.int64)) for row in features.levels])
    concavities = _compute_concavities(features, superfaces.pairs)
    return RegionGraph(
        superfaces.areas,
        superfaces.pairs,
        concavities,
        affinity,
        np.stack(groups),
        segments,
        config,
    )


def compute_clicked_share(region_graph: RegionGraph, positive: IntArray) -> float:
    """Share of the surface that the connected components of clicked patches hold."""
    return float(
        region_graph.areas[
            np.isin(region_graph.components, region_graph.components[positive])
        ].sum()
    )


def _compute_concavities(features: PatchFeatures, pairs: IntArray) -> FloatArray:
    """(B,) sines of how far each of two patches lies above the other's plane, summed."""
    centers, normals = features.centers.astype(np.float64), features.normals.astype(np.float64)
    left, right = pairs.T
    step = centers[right] - centers[left]
    rise = ((normals[left] - normals[right]) * step).sum(axis=1)
    concavities: FloatArray = rise / np.maximum(np.linalg.norm(step, axis=1), TINY)
    return concavities


def propose_masks(prediction: ClickPrediction) -> MaskProposals:
    """Propose masks; each one has the positive patches and lacks the negative ones."""
    positive, config = prediction.positive, prediction.region_graph.config
    proposals: dict[bytes, tuple[BoolArray, int, float]] = {}

    def add(mask: BoolArray, kind: int, level: float) -> None:
        mask = prediction.enforce_clicks(mask)
        proposals.setdefault(mask.tobytes(), (mask, kind, level))

    def add_level_sets(logits: FloatArray, prefix: str) -> None:
        first, after = KINDS.index(f"{prefix}plain"), KINDS.index(f"{prefix}level_set")
        smooth = _smooth_logits(prediction.region_graph, logits)
        for kind, each in enumerate((logits, smooth), first):
            add(prediction.subtract_cut(each) > 0, kind, prediction.cut_probability)
        likely = np.stack(
            [prediction.enforce_clicks(smooth > logit(level)) for level in config.level_cuts]
        )
        touching = _keep_clicked_pieces(prediction.region_graph, likely, positive)
        for level, level_set, held in zip(config.level_cuts, likely, touching, strict=True):
            add(level_set, after, level)
            add(held, after + 1, level)

    add_level_sets(prediction.logits, "")
    for level, ids in zip(config.group_levels, prediction.region_graph.groups, strict=True):
        add(_find_members(ids, ids[positive]), _GROUP, level)
    add_level_sets(prediction.shared_logits, "shared_")
    masks, kinds, levels = zip(*proposals.values(), strict=True)
    return MaskProposals(np.stack(masks), np.array(kinds), np.array(levels))


def _smooth_logits(region_graph: RegionGraph, logits: FloatArray) -> FloatArray:
    """Logits drawn towards their mean in the groups of several levels."""
    areas = np.maximum(region_graph.areas, MIN_AREA)
    share = region_graph.config.smoothing
    levels = region_graph.groups[:: region_graph.config.smoothing_stride]
    mean = np.zeros(len(logits))
    for ids in levels:
        mean += (np.bincount(ids, areas * logits) / np.bincount(ids, areas))[ids] / len(levels)
    smooth: FloatArray = (1.0 - share) * logits + share * mean
    return smooth


def _keep_clicked_pieces(
    region_graph: RegionGraph, masks: BoolArray, positive: IntArray
) -> BoolArray:
    """The pieces of each of some masks (M, A) that hold a click."""
    left, right = region_graph.pairs.T
    row, pair = np.nonzero(masks[:, left] & masks[:, right])
    first = row * masks.shape[1]  # every mask is a graph of its own, side by side
    graph = coo_matrix(
        (np.ones(len(row), bool), (first + left[pair], first + right[pair])),
        (masks.size, masks.size),
    )
    piece = connected_components(graph, directed=False)[1].reshape(masks.shape)
    reached: BoolArray = masks & _find_members(piece, piece[:, positive])
    return reached


def _find_members(ids: IntArray, wanted: IntArray) -> BoolArray:
    """Which of some small ids are wanted, by a table."""
    is_wanted = np.zeros(int(ids.max()) + 1, bool)
    is_wanted[wanted] = True
    found: BoolArray = is_wanted[ids]
    return found


def logit(chance: float) -> float:
    """Logit of a probability."""
    return math.log(chance / (1.0 - chance))
