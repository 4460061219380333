"""Patches: small, even pieces of a surface, the tokens of the patch network.

Patches have about equal area where the surface is smooth, because parts of scans and generated
meshes often end where there is no fold. No patch crosses a component or a material.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from segvigen_model.config import PatchConfig
from segvigen_model.surface.arrays import TINY, compute_cell_keys, densify_ids, sum_by
from segvigen_model.surface.geometry import Surface
from segvigen_model.types import FloatArray, IntArray

_REGION_GAP = 10.0  # further than anything else: the nearest centre is one of the same region


def cluster_patches(surface: Surface, count: int, config: PatchConfig) -> IntArray:
    """Cluster faces into patches: Lloyd's algorithm on positions and normals, region by region.

    Args:
        surface: geometry.
        count: wanted number; regions (component and material) without a centre add one each.
        config: how to cluster.

    Returns:
        (F,) int64 dense ids. Up to `count` faces are all patches of their own.
    """
    if surface.num_faces <= count:
        return np.arange(surface.num_faces)
    owner = _pool_regions(surface, config)
    points = _build_points(surface, owner, config.normal_weight)
    order = np.argsort(owner, kind="stable")
    share = np.cumsum(np.maximum(surface.areas, TINY)[order])
    number = min(config.samples_per_patch * count, 4 * surface.num_faces)
    rows = np.searchsorted(share, (np.arange(number) + 0.5) / number * share[-1])
    sample = points[order[np.minimum(rows, len(order) - 1)]]
    centers = sample[np.linspace(0, number - 1, count).astype(np.int64)]
    for _ in range(config.lloyd_steps):
        near = cKDTree(centers).query(sample)[1]
        size = sum_by(near, np.ones(number), len(centers))
        sums = [sum_by(near, column, len(centers)) for column in sample.T]
        centers = (np.stack(sums, axis=1) / np.maximum(size, 1)[:, None])[size > 0]
    held = np.unique(np.rint(centers[:, -1] / _REGION_GAP))
    lonely = np.setdiff1d(owner, held)
    first = np.searchsorted(owner[order], lonely)
    centers = np.concatenate([centers, points[order[first]]])
    return densify_ids(cKDTree(centers).query(points)[1])


def separate_pooled_regions(surface: Surface, patches: IntArray, config: PatchConfig) -> IntArray:
    """Make each region that was pooled with others a piece of its own.

    Args:
        surface: geometry.
        patches: (F,) int64 patch of each face, from `cluster_patches`.
        config: how many regions stay apart; the smallest beyond stay pooled.

    Returns:
        (F,) int64 dense ids: the patches, but for the regions taken out of them.
    """
    count = int(surface.regions.max(initial=0)) + 1
    if count <= config.max_regions:
        return patches
    order = _order_regions(surface)
    is_apart = np.zeros(count, bool)
    is_apart[order[config.max_regions : config.max_pieces]] = True
    own = int(patches.max()) + 1 + surface.regions
    return densify_ids(np.where(is_apart[surface.regions], own, patches))


def _order_regions(surface: Surface) -> IntArray:
    """Regions, the largest first."""
    count = int(surface.regions.max(initial=0)) + 1
    order: IntArray = np.argsort(-sum_by(surface.regions, surface.areas, count), kind="stable")
    return order


def _build_points(surface: Surface, owner: IntArray, normal_weight: float) -> FloatArray:
    """(F, 7) position, weighted normal, and owning region far apart."""
    places = surface.centers / surface.extent
    parts = [places, normal_weight * surface.normals, owner[:, None] * _REGION_GAP]
    return np.concatenate(parts, axis=1)


def _pool_regions(surface: Surface, config: PatchConfig) -> IntArray:
    """(F,) regions; where there are very many, the small ones go by coarse cells."""
    count = int(surface.regions.max(initial=0)) + 1
    if count <= config.max_regions:
        return surface.regions
    is_large = np.zeros(count, bool)
    is_large[_order_regions(surface)[: config.max_regions]] = True
    low = surface.centers.min(axis=0)
    cells = np.floor((surface.centers - low) / surface.extent * config.pool_cells)
    cells = cells.astype(np.int64)
    return densify_ids(
        np.where(is_large[surface.regions], surface.regions, count + compute_cell_keys(cells))
    )
