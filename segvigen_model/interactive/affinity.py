"""What the patch network reads of a surface before any click.

A surface is a whole object, or the part of one that a closer look shows (looks.py). Faces between
the middles of patches get blended odds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from segvigen_model.config import PatchConfig, SegmenterConfig
from segvigen_model.interactive.mask_proposals import Terrain, terrain_of
from segvigen_model.interactive.patch_network import (
    Encoded,
    PatchNetwork,
    load_patch_network,
    tensors_of,
)
from segvigen_model.surface.adjacency import Atoms
from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.patch_features import patch_facts
from segvigen_model.surface.region_merging import SegmentTree
from segvigen_model.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Bonds:
    """What belongs together, before any click.

    Attributes:
        together: (A, A) float64 log odds that two patches are of one part.
        pieces: (A,) int64, the loose piece that each patch lies in.
    """

    together: FloatArray
    pieces: IntArray


@dataclass(frozen=True, slots=True)
class Reading:
    """What the network read of one surface, before any click.

    Attributes:
        network: that read it, and answers questions about it.
        encoded: for questions.
        together: (A, A) float64 log odds that two patches are of one part.
        blend: (F, A) sparse, rows sum to 1: how much of each patch a face takes.
        terrain: for choosing masks; knows the loose piece of each patch.
    """

    network: PatchNetwork
    encoded: Encoded
    together: FloatArray
    blend: csr_matrix
    terrain: Terrain

    @property
    def bonds(self) -> Bonds:
        """What of it parts are grown from."""
        return Bonds(self.together, self.terrain.pieces)


@torch.no_grad()
def read_patches(
    surface: Surface,
    tree: SegmentTree,
    atoms: Atoms,
    config: SegmenterConfig,
    network: PatchNetwork | None = None,
) -> Reading:
    """Measure patches and read them.

    Args:
        surface: geometry.
        tree: its segments.
        atoms: the patches.
        config: how faces are blended of patches, and how masks will be proposed.
        network: reads them; the shipped one when None.
    """
    network = network or load_patch_network()
    facts = patch_facts(surface, tree.levels, atoms.of_face, atoms.pairs, atoms.folds)
    encoded = network.encode(tensors_of(facts))
    odds = network.together(encoded).double().numpy()
    odds = 0.5 * (odds + odds.T)
    # A view of it would keep the encoder's biases as well, twice as large.
    encoded = replace(encoded, biases=encoded.biases.contiguous())
    normals = config.patches.normal_weight * facts.normals
    places = np.concatenate([facts.centers, normals], axis=1)
    blend = _blend(surface, atoms, places, config.patches)
    terrain = terrain_of(atoms, sigmoid(odds), facts, config.proposals)
    return Reading(network, encoded, odds, blend, terrain)


def sigmoid(odds: FloatArray) -> FloatArray:
    """Log odds to probability, without overflow."""
    result: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * odds))
    return result


def _blend(surface: Surface, atoms: Atoms, places: FloatArray, config: PatchConfig) -> csr_matrix:
    """Inverse-square weights of the nearest patches of the same region, the own one included."""
    middle = 0.5 * (surface.triangles.min(axis=(0, 1)) + surface.triangles.max(axis=(0, 1)))
    at = (surface.centers - middle) / surface.extent
    points = np.concatenate([at, config.normal_weight * surface.normals], axis=1)
    count = min(config.num_blended, atoms.count)
    near = cKDTree(places).query(points, k=count)[1].reshape(len(points), count)
    near = np.concatenate([atoms.of_face[:, None], near], axis=1)
    first = np.unique(atoms.of_face, return_index=True)[1]
    is_used = surface.regions[first][near] == surface.regions[:, None]
    is_used[:, 1:] &= near[:, 1:] != near[:, :1]  # the own patch once
    gaps = np.linalg.norm(points[:, None] - places[near], axis=2)
    weight = np.where(is_used, 1.0 / (gaps + config.blend_floor) ** 2, 0.0)
    weight[:, 0] = np.maximum(weight[:, 0], 1e-12)
    weight /= weight.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(points)), near.shape[1])
    return csr_matrix((weight.reshape(-1), (rows, near.reshape(-1))), (len(points), atoms.count))
