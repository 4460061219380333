"""How much clicks say about every piece of the surface: features, and a small network on them.

The network weighs, for each atom, in which nested segments clicks lie and how far they are over
the surface. It is learned on simulated clicks (training/evidence.py); it knows no object, no up
and no checkpoint. The odds of the model's mask are added to its own, so that a new checkpoint
needs no new fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from segvigen_model.atoms import Atoms
from segvigen_model.geometry import TINY, Surface, sum_by
from segvigen_model.perceptron import WEIGHTS_FOLDER, load_network, sigmoid
from segvigen_model.segments import SegmentTree
from segvigen_model.types import BoolArray, FloatArray, IntArray

WEIGHTS_FILE = WEIGHTS_FOLDER / "evidence.safetensors"
FAR = 3.0  # distance of what cannot be reached, in longest sides
FOLD_PRICE = 4.0  # how much longer a path is across a strong fold
# The network's own best cut (84 development objects, both regimes) is moved to 0.5.
BEST_CUT = 0.4
# How much the log odds of the model's mask count: 0.25 to 1 all helped on 81 parts of 12 fused
# training objects (.209/.343/.371/.388 -> .232/.381/.415/.429 at 1/3/5/10 clicks), 0.5 most, and
# none of them changed as-is meshes by more than .014.
MASK_WEIGHT = 0.5
MASK_RANGE = (0.02, 0.98)


@dataclass(frozen=True, slots=True)
class Pieces:
    """Per-atom facts that do not depend on clicks.

    Attributes:
        levels: (K, A) int64 segment of each atom per level of the tree.
        level_areas: (K, A) float64 share of the surface of that segment.
        first_face: (A,) int64 one face of each atom.
        centers: (A, 3) float64 area-weighted centroids, units of the longest side.
        normals: (A, 3) float64 mean unit normals.
        materials: (A,) int64.
        graph: (A, A) sparse path lengths between touching atoms, dearer across folds.
        summary: (4,) float64 log counts of components, regions, materials; largest region.
    """

    levels: IntArray
    level_areas: FloatArray
    first_face: IntArray
    centers: FloatArray
    normals: FloatArray
    materials: IntArray
    graph: coo_matrix
    summary: FloatArray


def make_pieces(surface: Surface, tree: SegmentTree, atoms: Atoms) -> Pieces:
    """Collect the facts of each atom."""
    first_face: IntArray = np.unique(atoms.of_face, return_index=True)[1]
    levels = tree.levels[:, first_face]
    weight = np.maximum(surface.areas, TINY)
    share = weight / weight.sum()
    level_areas = np.stack(
        [sum_by(ids, share, int(ids.max()) + 1)[ids[first_face]] for ids in tree.levels]
    )
    means = [atoms.mean(surface.centers[:, axis], weight) for axis in range(3)]
    centers = np.stack(means, axis=1) / surface.extent
    normals = np.stack([atoms.mean(surface.normals[:, a], weight) for a in range(3)], axis=1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), TINY)
    left, right = atoms.pairs.T
    step = np.linalg.norm(centers[left] - centers[right], axis=1) + 1e-6
    graph = coo_matrix((step * (1 + FOLD_PRICE * atoms.folds), (left, right)), (atoms.count,) * 2)
    regions = sum_by(surface.regions, share, int(surface.regions.max()) + 1)
    summary = [
        np.log1p(surface.components.max()),
        np.log1p(len(regions) - 1),
        np.log1p(surface.materials.max()),
        regions.max(),
    ]
    return Pieces(
        levels=levels,
        level_areas=level_areas,
        first_face=first_face,
        centers=centers,
        normals=normals,
        materials=surface.materials[first_face],
        graph=graph.tocsr(),
        summary=np.array(summary, np.float64),
    )


def click_features(pieces: Pieces, clicked: IntArray, is_positive: BoolArray) -> FloatArray:
    """Describe every atom as clicks see it.

    Args:
        pieces: facts of the atoms.
        clicked: (K,) int clicked atoms; at least one positive.
        is_positive: (K,) bool.

    Returns:
        (A, D) float32.
    """
    positive, negative = clicked[is_positive], clicked[~is_positive]
    columns = [*_level_columns(pieces, positive, negative)]
    columns += _distance_columns(pieces, positive, negative)
    spread = pieces.centers[positive][:, None] - pieces.centers[positive][None]
    summary = [
        *pieces.summary,
        np.log1p(len(set(positive.tolist()))),
        np.log1p(len(set(negative.tolist()))),
        np.linalg.norm(spread, axis=2).max(initial=0.0),
    ]
    columns += [np.full(len(pieces.first_face), value) for value in summary]
    return np.stack(columns, axis=1).astype(np.float32)


def part_probability(
    pieces: Pieces,
    atoms: Atoms,
    areas: FloatArray,
    faces: IntArray,
    is_positive: BoolArray,
    mask: FloatArray | None,
) -> FloatArray:
    """Probability that each face belongs to the clicked part.

    Args:
        pieces: facts of the atoms.
        atoms: pieces that answers are snapped to.
        areas: (F,) face areas.
        faces: (K,) int clicked faces, at least one positive.
        is_positive: (K,) bool.
        mask: (F,) float 0..1, the model's opinion, or None.

    Returns:
        (F,) float64, 0..1; exactly 1 on positive and 0 on negative faces.
    """
    features = click_features(pieces, atoms.of_face[faces], is_positive)
    odds = load_network(WEIGHTS_FILE).forward(features) + np.log((1.0 - BEST_CUT) / BEST_CUT)
    if mask is not None:
        mean = np.clip(atoms.mean(mask, areas), *MASK_RANGE)
        odds = odds + MASK_WEIGHT * np.log(mean / (1.0 - mean))
    probability = sigmoid(odds)[atoms.of_face]
    result: FloatArray = np.clip(probability, 0.001, 0.999)
    result[faces[is_positive]] = 1.0
    result[faces[~is_positive]] = 0.0
    return result


def _level_columns(pieces: Pieces, positive: IntArray, negative: IntArray) -> list[FloatArray]:
    """Per level: does the atom share its segment with clicks, and how large is it."""
    columns: list[FloatArray] = []
    joins = np.full((2, len(pieces.first_face)), len(pieces.levels), np.float64)
    for level, ids in enumerate(pieces.levels):
        for row, clicked in enumerate((positive, negative)):
            shares = np.isin(ids, ids[clicked])
            columns.append(shares.astype(np.float64))
            joins[row] = np.where(shares & (joins[row] == len(pieces.levels)), level, joins[row])
        columns.append(np.log(pieces.level_areas[level] + 1e-6))
    count = np.minimum(joins.astype(np.int64), len(pieces.levels) - 1)
    join_area = pieces.level_areas[count[0], np.arange(len(count[0]))]
    return [*columns, *(joins / len(pieces.levels)), np.log(join_area + 1e-6)]


def _distance_columns(pieces: Pieces, positive: IntArray, negative: IntArray) -> list[FloatArray]:
    """Paths and straight lines to the nearest clicks, and likeness to the nearest positive."""
    columns: list[FloatArray] = []
    for clicked in (positive, negative):
        if not len(clicked):
            columns += [np.full(len(pieces.centers), FAR)] * 2
            continue
        path = dijkstra(pieces.graph, directed=False, indices=np.unique(clicked), min_only=True)
        gaps = np.linalg.norm(pieces.centers[:, None] - pieces.centers[clicked], axis=2)
        columns += [np.minimum(path, FAR), gaps.min(axis=1)]
        if clicked is positive:
            near = clicked[gaps.argmin(axis=1)]
    columns.append(np.einsum("ad,ad->a", pieces.normals, pieces.normals[near]))
    columns.append(np.isin(pieces.materials, pieces.materials[positive]).astype(np.float64))
    region = np.log(pieces.level_areas[-2] + 1e-6)
    columns.append(np.abs(region - region[near]))
    return columns
