"""What geometry and clicks say about every patch of the surface, read by the patch network.

Its odds and those of the flow model's mask add up, so that a new checkpoint needs no new fit of
the network. Faces between the middles of patches get blended odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from torch import Tensor

from segvigen_model.atoms import Atoms
from segvigen_model.geometry import Surface
from segvigen_model.mask_choice import chosen_mask, is_choice
from segvigen_model.mask_proposals import Answer, Terrain, terrain_of
from segvigen_model.patch_network import Encoded, load_patch_network, tensors_of
from segvigen_model.patches import NORMAL_WEIGHT, patch_facts
from segvigen_model.segments import SegmentTree
from segvigen_model.types import BoolArray, FloatArray, IntArray

MASK_RANGE = (0.02, 0.98)
DRAW_RANGE = (0.05, 0.95)
NEVER = -20.0  # log odds
FIRM = 0.5  # log odds, at least, of a patch inside the chosen mask; its negative outside
# A flow model trusted this much beside geometry decides by itself: choosing was learned without.
TRUSTED = 0.5
_QUESTIONS_AT_ONCE = 16
_NUM_BLENDED = 4
_BLEND_FLOOR = 1e-3  # longest sides


@dataclass(frozen=True, slots=True)
class Reading:
    """What the network read of one object, before any click.

    Attributes:
        encoded: for questions.
        together: (A, A) float64 log odds that two patches are of one part.
        blend: (F, A) sparse, rows sum to 1: how much of each patch a face takes.
        terrain: for choosing masks; knows the loose piece of each patch.
    """

    encoded: Encoded
    together: FloatArray
    blend: csr_matrix
    terrain: Terrain


@torch.no_grad()
def read_patches(surface: Surface, tree: SegmentTree, atoms: Atoms) -> Reading:
    """Measure patches and read them.

    Args:
        surface: geometry.
        tree: its segments.
        atoms: the patches.
    """
    network = load_patch_network()
    facts = patch_facts(surface, tree.levels, atoms.of_face, atoms.pairs, atoms.folds)
    encoded = network.encode(tensors_of(facts))
    odds = network.together(encoded).double().numpy()
    places = np.concatenate([facts.centers, NORMAL_WEIGHT * facts.normals], axis=1)
    blend = _blend(surface, atoms, places)
    odds = 0.5 * (odds + odds.T)
    return Reading(encoded, odds, blend, terrain_of(atoms, sigmoid(odds), facts))


@torch.no_grad()
def part_probability(
    reading: Reading,
    atoms: Atoms,
    areas: FloatArray,
    faces: IntArray,
    is_positive: BoolArray,
    mask: FloatArray | None,
    trust: float = 0.0,
) -> FloatArray:
    """Probability that each face belongs to the clicked part.

    Args:
        reading: of the object.
        atoms: its patches.
        areas: (F,) face areas.
        faces: (K,) int clicked faces, at least one positive.
        is_positive: (K,) bool.
        mask: (F,) float 0..1, the flow model's opinion, or None.
        trust: in that opinion, a factor of its log odds.

    Returns:
        (F,) float64, 0..1; exactly 1 on positive and 0 on negative faces.
    """
    clicked = atoms.of_face[faces]
    question = _tensor(clicked[is_positive]), _tensor(clicked[~is_positive])
    odds = load_patch_network().ask(reading.encoded, [question])[0].double().numpy()
    if mask is not None:
        mean = np.clip(atoms.mean(mask, areas), *MASK_RANGE)
        odds = odds + trust * np.log(mean / (1.0 - mean))
    answer = Answer(reading.terrain, odds, clicked[is_positive], clicked[~is_positive])
    known = answer.above_cut(odds)
    if trust < TRUSTED and is_choice(answer):
        known = np.where(chosen_mask(answer), np.maximum(known, FIRM), np.minimum(known, -FIRM))
    probability = sigmoid(reading.blend @ known)
    result: FloatArray = np.clip(probability, 0.001, 0.999)
    result[faces[is_positive]] = 1.0
    result[faces[~is_positive]] = 0.0
    return result


@torch.no_grad()
def part_odds(reading: Reading, clicks: Sequence[tuple[IntArray, IntArray]]) -> FloatArray:
    """Ask about several parts of one object.

    Args:
        reading: of the object.
        clicks: per part the positive and negative patches; a part may have no positive ones.

    Returns:
        (P, A) float64 log odds; very low where a part has no positive patch.
    """
    network = load_patch_network()
    odds = np.full((len(clicks), len(reading.together)), NEVER)
    asked = [row for row, (positive, _) in enumerate(clicks) if len(positive)]
    for start in range(0, len(asked), _QUESTIONS_AT_ONCE):
        rows = asked[start : start + _QUESTIONS_AT_ONCE]
        questions = [(_tensor(clicks[row][0]), _tensor(clicks[row][1])) for row in rows]
        odds[rows] = network.ask(reading.encoded, questions).double().numpy()
    return odds


def togetherness(
    reading: Reading, agreement: FloatArray | None, trust: float = 0.0, reserve: float = 0.0
) -> FloatArray:
    """(A, A) probability that two patches are of one part, after geometry and draws.

    Args:
        reading: of the object.
        agreement: (A, A) share of draws that give two patches one label; None without draws.
        trust: in the draws, a factor of their log odds.
        reserve: log odds taken from patches of different loose pieces.
    """
    odds = reading.together
    if reserve:
        pieces = reading.terrain.pieces
        odds = odds - reserve * (pieces[:, None] != pieces)
    if agreement is not None:
        agreed = np.clip(agreement, *DRAW_RANGE)
        odds = odds + trust * np.log(agreed / (1.0 - agreed))
    return sigmoid(odds)


def sigmoid(odds: FloatArray) -> FloatArray:
    """Log odds to probability, without overflow."""
    result: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * odds))
    return result


def _tensor(ids: IntArray) -> Tensor:
    return torch.from_numpy(np.unique(ids).astype(np.int64))


def _blend(surface: Surface, atoms: Atoms, places: FloatArray) -> csr_matrix:
    """Inverse-square weights of the nearest patches of the same region, the own one included."""
    middle = 0.5 * (surface.triangles.min(axis=(0, 1)) + surface.triangles.max(axis=(0, 1)))
    at = (surface.centers - middle) / surface.extent
    points = np.concatenate([at, NORMAL_WEIGHT * surface.normals], axis=1)
    count = min(_NUM_BLENDED, atoms.count)
    near = cKDTree(places).query(points, k=count)[1].reshape(len(points), count)
    near = np.concatenate([atoms.of_face[:, None], near], axis=1)
    first = np.unique(atoms.of_face, return_index=True)[1]
    is_used = surface.regions[first][near] == surface.regions[:, None]
    is_used[:, 1:] &= near[:, 1:] != near[:, :1]  # the own patch once
    gaps = np.linalg.norm(points[:, None] - places[near], axis=2)
    weight = np.where(is_used, 1.0 / (gaps + _BLEND_FLOOR) ** 2, 0.0)
    weight[:, 0] = np.maximum(weight[:, 0], 1e-12)
    weight /= weight.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(points)), near.shape[1])
    return csr_matrix((weight.reshape(-1), (rows, near.reshape(-1))), (len(points), atoms.count))
