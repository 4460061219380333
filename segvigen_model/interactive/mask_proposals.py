"""Masks that clicks may mean, proposed from what the patch network answered.

Odds say how likely each patch is part of what was clicked; where to cut them, and whether a group
of patches that belong together should come as a whole, differs from object to object. So many
masks are proposed: the plain one, level sets of the odds, their touching pieces, nested groups
that hold the clicks. mask_choice.py takes one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from segvigen_model.config import MaskProposalConfig
from segvigen_model.surface.adjacency import Atoms
from segvigen_model.surface.agglomeration import PartMerger
from segvigen_model.surface.arrays import TINY, dense_ids
from segvigen_model.surface.patch_features import PatchFacts
from segvigen_model.types import BoolArray, FloatArray, IntArray

# Plain, smoothed, group, level set, its touching piece; the same of shared odds without groups.
KINDS = range(9)
_SHARED = 5  # first kind of shared odds
LEAST_AREA = 1e-6  # share of the surface


@dataclass(frozen=True, slots=True)
class Terrain:
    """What choosing a mask needs to know of an object, before any click.

    Attributes:
        areas: (A,) float64 shares of the surface.
        pairs: (B, 2) int64 touching patches.
        hollows: (B,) float64 -2..2, how much the surface folds inwards between touching patches;
            below 0 it folds outwards.
        together: (A, A) float64 probability that two patches are of one part.
        groups: (L, A) int64, nested groups by falling togetherness.
        levels: (K, A) int64, geometric segment of each patch, dense ids; the last are loose
            pieces.
        config: how masks are proposed; the groups were joined down to its levels.
    """

    areas: FloatArray
    pairs: IntArray
    hollows: FloatArray
    together: FloatArray
    groups: IntArray
    levels: IntArray
    config: MaskProposalConfig

    @property
    def pieces(self) -> IntArray:
        """(A,) int64, the loose piece (connected component) that each patch lies in."""
        pieces: IntArray = self.levels[-1]
        return pieces


@dataclass(frozen=True, slots=True)
class Answer:
    """What the patch network answered to clicks, of one look (looks.py) at an object.

    Attributes:
        terrain: of the look.
        odds: (A,) float64 log odds of each patch.
        positive, negative: int64 clicked patches, one entry per click; a patch that is both
            counts as positive.
        shared: (A,) float64 log odds that all looks give together; `odds` where there is one.
        rim: (A,) bool, patches where the surface goes on outside the look.
        share: of the object's surface that the look shows.
    """

    terrain: Terrain
    odds: FloatArray
    positive: IntArray
    negative: IntArray
    shared: FloatArray
    rim: BoolArray
    share: float

    @property
    def cut(self) -> float:
        """Probability at which odds are cut when nothing better is known."""
        return self.terrain.config.cut_after(len(self.positive))

    @property
    def near(self) -> BoolArray:
        """(A,) patches in loose pieces that a positive click is on."""
        pieces = self.terrain.pieces
        near: BoolArray = np.isin(pieces, pieces[self.positive])
        return near

    def above_cut(self, odds: FloatArray, elsewhere: float | None = None) -> FloatArray:
        """(A,) odds above the plain cut, which is higher in loose pieces that nobody clicked.

        Args:
            odds: (A,) float64.
            elsewhere: the probability at which such pieces are cut; the terrain's when None.
        """
        other = self.terrain.config.cut_elsewhere if elsewhere is None else elsewhere
        moved: FloatArray = odds - np.where(self.near, log_odds(self.cut), log_odds(other))
        return moved

    def obeying(self, mask: BoolArray) -> BoolArray:
        """A mask with the positive patches and without the negative ones."""
        mask = mask.copy()
        mask[self.negative] = False
        mask[self.positive] = True
        return mask


@dataclass(frozen=True, slots=True)
class Masks:
    """Proposed masks of one question; the first is the plain one.

    Attributes:
        masks: (C, A) bool, all different.
        kinds: (C,) int, which of `KINDS`.
        levels: (C,) float, cut or togetherness that made it.
    """

    masks: BoolArray
    kinds: IntArray
    levels: FloatArray


def terrain_of(
    atoms: Atoms, together: FloatArray, facts: PatchFacts, config: MaskProposalConfig
) -> Terrain:
    """Join patches level by level.

    Args:
        atoms: the patches.
        together: (A, A) probability that two of them are of one part.
        facts: of the patches.
        config: how masks are proposed.
    """
    merger = PartMerger(atoms, together)
    groups = []
    for level in config.group_levels:
        merger.merge_above(level)
        groups.append(merger.labels)
    segments = np.stack([dense_ids(row.astype(np.int64)) for row in facts.levels])
    hollows = _hollows(facts, atoms.pairs)
    return Terrain(atoms.areas, atoms.pairs, hollows, together, np.stack(groups), segments, config)


def clicked_share(terrain: Terrain, positive: IntArray) -> float:
    """Share of the surface that the loose pieces of clicked patches hold."""
    return float(terrain.areas[np.isin(terrain.pieces, terrain.pieces[positive])].sum())


def _hollows(facts: PatchFacts, pairs: IntArray) -> FloatArray:
    """(B,) sines of how far each of two patches lies above the other's plane, summed."""
    centers, normals = facts.centers.astype(np.float64), facts.normals.astype(np.float64)
    left, right = pairs.T
    step = centers[right] - centers[left]
    rise = ((normals[left] - normals[right]) * step).sum(axis=1)
    hollows: FloatArray = rise / np.maximum(np.linalg.norm(step, axis=1), TINY)
    return hollows


def propose_masks(answer: Answer) -> Masks:
    """Masks to choose from; every one has the positive patches and lacks the negative ones."""
    positive, config = answer.positive, answer.terrain.config
    kept: dict[bytes, tuple[BoolArray, int, float]] = {}

    def add(mask: BoolArray, kind: int, level: float) -> None:
        mask = answer.obeying(mask)
        kept.setdefault(mask.tobytes(), (mask, kind, level))

    def add_level_sets(odds: FloatArray, first: int, after: int) -> None:
        smooth = _smoothed(answer.terrain, odds)
        for kind, each in enumerate((odds, smooth), first):
            add(answer.above_cut(each) > 0, kind, answer.cut)
        likely = np.stack([answer.obeying(smooth > log_odds(level)) for level in config.level_cuts])
        touching = _touching(answer.terrain, likely, positive)
        for level, loose, held in zip(config.level_cuts, likely, touching, strict=True):
            add(loose, after, level)
            add(held, after + 1, level)

    add_level_sets(answer.odds, 0, 3)
    for level, ids in zip(config.group_levels, answer.terrain.groups, strict=True):
        add(_among(ids, ids[positive]), 2, level)
    add_level_sets(answer.shared, _SHARED, _SHARED + 2)
    masks, kinds, levels = zip(*kept.values(), strict=True)
    return Masks(np.stack(masks), np.array(kinds), np.array(levels))


def _smoothed(terrain: Terrain, odds: FloatArray) -> FloatArray:
    """Odds drawn towards their mean in the groups of several levels."""
    areas = np.maximum(terrain.areas, LEAST_AREA)
    share = terrain.config.smoothing
    levels = terrain.groups[:: terrain.config.smoothing_stride]
    mean = np.zeros(len(odds))
    for ids in levels:
        mean += (np.bincount(ids, areas * odds) / np.bincount(ids, areas))[ids] / len(levels)
    smooth: FloatArray = (1.0 - share) * odds + share * mean
    return smooth


def _touching(terrain: Terrain, masks: BoolArray, positive: IntArray) -> BoolArray:
    """The pieces of each of some masks (M, A) that hold a click."""
    left, right = terrain.pairs.T
    row, pair = np.nonzero(masks[:, left] & masks[:, right])
    first = row * masks.shape[1]  # every mask is a graph of its own, side by side
    graph = coo_matrix(
        (np.ones(len(row), bool), (first + left[pair], first + right[pair])),
        (masks.size, masks.size),
    )
    piece = connected_components(graph, directed=False)[1].reshape(masks.shape)
    reached: BoolArray = masks & _among(piece, piece[:, positive])
    return reached


def _among(ids: IntArray, wanted: IntArray) -> BoolArray:
    """Which of some small ids are wanted ones, by a table."""
    is_wanted = np.zeros(int(ids.max()) + 1, bool)
    is_wanted[wanted] = True
    found: BoolArray = is_wanted[ids]
    return found


def log_odds(chance: float) -> float:
    """Of a probability."""
    return math.log(chance / (1.0 - chance))
