"""Colourings that a codec must carry and a transformer must paint: masks, palettes, nature.

Colours are (N, 6) texture features in -1..1 (texture.py of the autoencoders says the channels).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segvigen_model.training.data import Sample
from segvigen_model.types import BoolArray, FloatArray, IntArray
from segvigen_model.vae.texture import color_features, texture_features

LEVELS = (0.0, 0.5, 1.0)


def well_separated(count: int, rng: np.random.Generator) -> FloatArray:
    """(count, 3) colours in 0..1, far apart, in random order.

    Points of a 3x3x3 lattice are picked farthest-first from a random start and slightly shaken.
    """
    lattice = np.array([[r, g, b] for r in LEVELS for g in LEVELS for b in LEVELS])
    lattice = lattice + rng.uniform(-0.08, 0.08, lattice.shape)
    picked = [int(rng.integers(len(lattice)))]
    gap = np.linalg.norm(lattice - lattice[picked[0]], axis=1)
    for _ in range(min(count, len(lattice)) - 1):
        best = int((gap * rng.uniform(0.85, 1.0, len(gap))).argmax())
        picked.append(best)
        gap = np.minimum(gap, np.linalg.norm(lattice - lattice[best], axis=1))
    order = np.array(picked * (count // len(picked) + 1))[:count]
    colors: FloatArray = np.clip(lattice[order[rng.permutation(count)]], 0, 1)
    return colors


def palette_features(labels: IntArray, rng: np.random.Generator) -> Tensor:
    """(N, 6): a random well-separated colour for each label."""
    colors = well_separated(int(labels.max()) + 1, rng)[labels]
    return color_features(torch.from_numpy(colors.astype(np.float32)))


def mask_features(mask: BoolArray) -> Tensor:
    """(N, 6): white where true, black elsewhere."""
    values = np.repeat(mask[:, None], 3, axis=1).astype(np.float32)
    return color_features(torch.from_numpy(values))


def natural_features(sample: Sample) -> Tensor:
    """(N, 6): the object's own attributes."""
    return texture_features(torch.from_numpy(sample.attributes.astype(np.float32) / 255.0))


def random_regions(coords: IntArray, rng: np.random.Generator) -> IntArray:
    """(N,) int: a Voronoi partition by a few random voxels, so that borders fall anywhere."""
    count = min(int(rng.integers(2, 9)), len(coords))
    seeds = coords[rng.choice(len(coords), count, replace=False)].astype(float)
    scale = rng.uniform(0.5, 2.0, 3)
    gaps = np.linalg.norm((coords[:, None].astype(float) - seeds[None]) * scale, axis=2)
    regions: IntArray = np.unique(gaps.argmin(1), return_inverse=True)[1].reshape(-1)
    return regions


def random_coloring(sample: Sample, rng: np.random.Generator) -> Tensor:
    """One colouring for the codec: a third nature, a third palettes, a third masks."""
    kind = rng.random()
    if kind < 0.3:
        return natural_features(sample)
    free = rng.random() < 0.25
    labels = random_regions(sample.coords, rng) if free else sample.labels.astype(int)
    if kind < 0.7:
        return palette_features(labels, rng)
    return mask_features(labels == rng.integers(int(labels.max()) + 1))
