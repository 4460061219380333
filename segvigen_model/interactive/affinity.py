"""Patch embeddings and the affinity of every two patches, before any click.

A surface is a whole object or a crop of one (crops.py). A face between the centres of patches gets
a blend of their logits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from segvigen_model.config import PatchConfig, SegmenterConfig
from segvigen_model.interactive.mask_proposals import RegionGraph, build_region_graph
from segvigen_model.interactive.patch_network import (
    EncodedPatches,
    PatchNetwork,
    build_patch_tensors,
    load_patch_network,
)
from segvigen_model.surface.adjacency import Superfaces
from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.patch_features import compute_patch_features
from segvigen_model.surface.region_merging import SegmentTree
from segvigen_model.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class AffinityMatrix:
    """Affinity of every two patches, before any click.

    Attributes:
        logits: (A, A) float64 logits that two patches are of one part.
        components: (A,) int64, the connected component that each patch lies in.
    """

    logits: FloatArray
    components: IntArray


Patches = tuple[Superfaces, AffinityMatrix]  # to grow parts from


@dataclass(frozen=True, slots=True)
class PatchEmbedding:
    """Patches of one surface as the network encoded them, before any click.

    Attributes:
        network: the patch network that encoded them; it also answers clicks.
        encoded: its hidden state.
        affinity_logits: (A, A) float64 logits that two patches are of one part.
        blend: (F, A) sparse, rows sum to 1: how much of each patch a face takes.
        region_graph: input of mask proposals; has the connected component of each patch.
    """

    network: PatchNetwork
    encoded: EncodedPatches
    affinity_logits: FloatArray
    blend: csr_matrix
    region_graph: RegionGraph

    @property
    def affinity_matrix(self) -> AffinityMatrix:
        """The affinity that parts are grown from."""
        return AffinityMatrix(self.affinity_logits, self.region_graph.components)


@torch.no_grad()
def embed_patches(
    surface: Surface,
    tree: SegmentTree,
    superfaces: Superfaces,
    config: SegmenterConfig,
    network: PatchNetwork | None = None,
) -> PatchEmbedding:
    """Measure the features of patches and encode them.

    Args:
        surface: geometry.
        tree: its segments.
        superfaces: the patches.
        config: how faces are blended of patches, and how masks will be proposed.
        network: encodes them; the shipped one when None.
    """
    network = network or load_patch_network()
    features = compute_patch_features(
        surface, tree.levels, superfaces.of_face, superfaces.pairs, superfaces.folds
    )
    encoded = network.encode(build_patch_tensors(features))
    logits = network.predict_affinity(encoded).double().numpy()
    logits = 0.5 * (logits + logits.T)
    # A view of it would keep the encoder's biases as well, twice as large.
    encoded = replace(encoded, biases=encoded.biases.contiguous())
    normals = config.patches.normal_weight * features.normals
    places = np.concatenate([features.centers, normals], axis=1)
    blend = _compute_blend_weights(surface, superfaces, places, config.patches)
    region_graph = build_region_graph(superfaces, sigmoid(logits), features, config.proposals)
    return PatchEmbedding(network, encoded, logits, blend, region_graph)


def sigmoid(logits: FloatArray) -> FloatArray:
    """Logits to probability, without overflow."""
    result: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return result


def _compute_blend_weights(
    surface: Surface, superfaces: Superfaces, places: FloatArray, config: PatchConfig
) -> csr_matrix:
    """Inverse-square weights of the nearest patches of the same region, the own one included."""
    at = (surface.centers - surface.middle) / surface.extent
    points = np.concatenate([at, config.normal_weight * surface.normals], axis=1)
    count = min(config.num_blended, superfaces.count)
    near = cKDTree(places).query(points, k=count)[1].reshape(len(points), count)
    near = np.concatenate([superfaces.of_face[:, None], near], axis=1)
    first = np.unique(superfaces.of_face, return_index=True)[1]
    is_used = surface.regions[first][near] == surface.regions[:, None]
    is_used[:, 1:] &= near[:, 1:] != near[:, :1]  # the own patch once
    gaps = np.linalg.norm(points[:, None] - places[near], axis=2)
    weight = np.where(is_used, 1.0 / (gaps + config.blend_floor) ** 2, 0.0)
    weight[:, 0] = np.maximum(weight[:, 0], 1e-12)
    weight /= weight.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(points)), near.shape[1])
    return csr_matrix(
        (weight.reshape(-1), (rows, near.reshape(-1))), (len(points), superfaces.count)
    )
