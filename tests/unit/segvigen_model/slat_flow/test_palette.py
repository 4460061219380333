from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.config import PaletteConfig
from segvigen_model.slat_flow.palette import (
    absorb_small_parts,
    decode_colors,
    draw_separated_palette,
    find_nearest_colors,
    find_voxel_pairs,
    paint_labels,
    smooth_by_majority,
)

PALETTE = PaletteConfig()


def slabs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A plate of voxels cut into `count` strips, with the strip of each voxel."""
    x, z = np.meshgrid(np.arange(8 * count), np.arange(12), indexing="ij")
    coords = np.stack([x, np.zeros_like(x), z], axis=-1).reshape(-1, 3).astype(np.int32)
    return coords, coords[:, 0] // 8


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 8), seed=st.integers(0, 99), noise=st.sampled_from([0.0, 0.05, 0.1]))
def test_ids_survive_colours_and_noise(count, seed, noise):
    rng = np.random.default_rng(seed)
    coords, labels = slabs(count)
    colors = paint_labels(labels, draw_separated_palette(count, rng)) / 255.0
    found = decode_colors(colors + rng.normal(0, noise, colors.shape), coords, PALETTE)
    agreement = [
        np.bincount(found[labels == part]).max() / (labels == part).sum() for part in range(count)
    ]
    assert found.max() + 1 == count
    assert min(agreement) > 0.95


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 99))
def test_palette_colours_differ_and_known_palette_round_trips(count, seed):
    palette = draw_separated_palette(count, np.random.default_rng(seed))
    assert len(np.unique(palette, axis=0)) == count
    labels = np.arange(count).repeat(3)
    assert (find_nearest_colors(paint_labels(labels, palette) / 255.0, palette) == labels).all()


def test_palette_is_well_separated_and_seeded():
    palette = draw_separated_palette(8, np.random.default_rng(0)).astype(float)
    gaps = np.linalg.norm(palette[:, None] - palette[None], axis=2)[np.triu_indices(8, 1)]
    assert gaps.min() > 100
    assert (palette == draw_separated_palette(8, np.random.default_rng(0))).all()


def test_same_colour_apart_is_two_parts():
    coords, labels = slabs(3)
    colors = np.where((labels == 1)[:, None], [1.0, 0, 0], [0, 0, 1.0])
    assert decode_colors(colors, coords, PALETTE).max() == 2


def test_bad_numbers_are_colours_too():
    coords, _ = slabs(1)
    colors = np.full((len(coords), 3), np.nan)
    colors[0] = np.inf
    assert decode_colors(colors, coords, PALETTE).max() == 0


def test_majority_repaints_a_lonely_voxel():
    coords, labels = slabs(2)
    noisy = labels.copy()
    noisy[5] = 1
    assert (smooth_by_majority(noisy, find_voxel_pairs(coords)) == labels).all()


def test_small_pieces_join_the_neighbour_they_touch_most():
    pairs = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    assert absorb_small_parts(np.array([0, 0, 1, 2, 2]), pairs, 2).max() == 1
    assert absorb_small_parts(np.array([0, 1]), np.zeros((0, 2), int), 2).tolist() == [0, 1]


def test_pairs_are_all_26_neighbours():
    cube = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    pairs = find_voxel_pairs(cube.astype(np.int32))
    assert np.bincount(pairs.reshape(-1))[13] == 26
    assert len(pairs) == pytest.approx(158)
