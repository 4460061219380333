"""Colourings that a codec must carry and a transformer must paint: masks, palettes, nature.

Colours are (N, 6) texture features in -1..1 (texture.py of the autoencoders says the channels).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segvigen_model.datasets.voxel_samples import Sample
from segvigen_model.slat_flow.palette import draw_separated_colors
from segvigen_model.types import BoolArray, IntArray
from segvigen_model.vae.texture import encode_color_features, encode_texture_features


def make_palette_features(labels: IntArray, rng: np.random.Generator) -> Tensor:
    """(N, 6): a random well-separated colour for each label."""
    colors = draw_separated_colors(int(labels.max()) + 1, rng)[labels]
    return encode_color_features(torch.from_numpy(colors.astype(np.float32)))


def make_mask_features(mask: BoolArray) -> Tensor:
    """(N, 6): white where true, black elsewhere."""
    values = np.repeat(mask[:, None], 3, axis=1).astype(np.float32)
    return encode_color_features(torch.from_numpy(values))


def make_natural_features(sample: Sample) -> Tensor:
    """(N, 6): the object's own attributes."""
    return encode_texture_features(torch.from_numpy(sample.attributes.astype(np.float32) / 255.0))


def draw_random_regions(coords: IntArray, rng: np.random.Generator) -> IntArray:
    """(N,) int: a Voronoi partition by a few random voxels, so that borders fall anywhere."""
    count = min(int(rng.integers(2, 9)), len(coords))
    seeds = coords[rng.choice(len(coords), count, replace=False)].astype(float)
    scale = rng.uniform(0.5, 2.0, 3)
    gaps = np.linalg.norm((coords[:, None].astype(float) - seeds[None]) * scale, axis=2)
    regions: IntArray = np.unique(gaps.argmin(1), return_inverse=True)[1].reshape(-1)
    return regions


def draw_coloring(sample: Sample, rng: np.random.Generator) -> Tensor:
    """One colouring for the codec: a third nature, a third palettes, a third masks."""
    kind = rng.random()
    if kind < 0.3:
        return make_natural_features(sample)
    free = rng.random() < 0.25
    labels = draw_random_regions(sample.coords, rng) if free else sample.labels.astype(int)
    if kind < 0.7:
        return make_palette_features(labels, rng)
    return make_mask_features(labels == rng.integers(int(labels.max()) + 1))
