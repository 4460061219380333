"""The compiled merging loop beside the plain array form that it has to equal bit for bit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.config import RegionMergingConfig, SegmenterConfig
from segvigen_model.datasets.fuse import fuse_mesh
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.surface.arrays import TINY, label_components, sum_by
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.merging_kernel import merge_regions, sort_borders
from segvigen_model.surface.region_merging import SEGMENT_COUNTS, build_segment_tree
from segvigen_model.types import AssetMesh, Material

CONFIG = RegionMergingConfig()
# numpy's own power is another one on each processor: its last bits decide between equal borders.
power = np.vectorize(math.pow, otypes=[float])


class PlainMerger:
    """Every round computes everything anew, by array operations."""

    def __init__(self, areas, pairs, borders, chain_above):
        self.labels, self.areas, self.pairs, self.borders = (
            np.arange(len(areas)), areas, pairs, borders,
        )  # fmt: skip
        self.chain_above = chain_above

    def merge_down_to(self, count):
        while True:
            total = len(self.areas)
            keys, where = np.unique(
                self.pairs[:, 0] * total + self.pairs[:, 1], return_inverse=True
            )
            self.pairs = np.stack([keys // total, keys % total], axis=1)
            self.borders = np.stack(
                [sum_by(where, column, len(keys)) for column in self.borders.T], axis=1
            )
            if total <= count or not len(self.pairs):
                return self.labels.copy()
            costs = self.compute_costs()
            if total > self.chain_above:
                chosen = self.select_chains(costs)
            else:
                chosen = self.select_cheapest(costs, total - count)
            target = label_components(total, self.pairs[chosen])
            self.labels = target[self.labels]
            self.areas = sum_by(target, self.areas, int(target.max()) + 1)
            pairs = np.sort(target[self.pairs], axis=1)
            kept = pairs[:, 0] != pairs[:, 1]
            self.pairs, self.borders = pairs[kept], self.borders[kept]

    def compute_costs(self):
        left, right = self.pairs.T
        length = np.maximum(self.borders[:, 0], TINY)
        count = len(self.areas)
        perimeter = sum_by(left, length, count) + sum_by(right, length, count)
        neck = length / np.maximum(np.minimum(perimeter[left], perimeter[right]), TINY)
        size = power(np.minimum(self.areas[left], self.areas[right]), CONFIG.size_power)
        fold = CONFIG.border_floor + self.borders[:, 1] / length
        return fold * size / power(np.maximum(neck, 1e-3), CONFIG.neck_power)

    def select_cheapest(self, costs, limit):
        rank = np.zeros(len(costs), np.int64)
        rank[np.argsort(costs, kind="stable")] = np.arange(len(costs))
        best = np.full(len(self.areas), len(costs))
        for side in (0, 1):
            np.minimum.at(best, self.pairs[:, side], rank)
        mutual = (best[self.pairs[:, 0]] == rank) & (best[self.pairs[:, 1]] == rank)
        rows = np.flatnonzero(mutual)
        return rows[np.argsort(rank[rows])][:limit]

    def select_chains(self, costs):
        best = np.full(len(self.areas), np.inf)
        for side in (0, 1):
            np.minimum.at(best, self.pairs[:, side], costs)
        is_best = costs <= np.maximum(best[self.pairs[:, 0]], best[self.pairs[:, 1]])
        chosen = np.flatnonzero(is_best)
        return chosen[costs[chosen] <= np.median(costs[chosen])]


def compare(areas, pairs, borders, counts, chain_above):
    plain = PlainMerger(areas, pairs, borders, chain_above)
    costing = (CONFIG.border_floor, CONFIG.size_power, CONFIG.neck_power)
    left = sort_borders(len(areas), pairs, borders[:, 0].copy(), borders[:, 1].copy())
    labels = np.arange(len(areas))
    for count in counts:
        wanted = plain.merge_down_to(count)
        group, areas, left = merge_regions(count, chain_above, areas, left, costing)
        labels = group[labels]
        assert np.array_equal(labels, wanted), count
        assert np.array_equal(areas, plain.areas)
        assert np.array_equal(np.stack(left[:2], axis=1), plain.pairs)
        assert np.array_equal(np.stack(left[2:], axis=1), plain.borders)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 60),
    degree=st.integers(0, 6),
    seed=st.integers(0, 10_000),
    chain_above=st.sampled_from([5, 20, 1000]),
    is_even=st.booleans(),
)
def test_any_graph_gives_the_same_as_the_plain_form(size, degree, seed, chain_above, is_even):
    rng = np.random.default_rng(seed)
    pairs = np.sort(rng.integers(0, size, size=(size * degree, 2)), axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    borders = rng.random((len(pairs), 2))
    areas = rng.random(size)
    if is_even:  # full of ties
        borders, areas = np.ones_like(borders), np.ones_like(areas)
    compare(areas, pairs, borders, [size // 2, size // 4, 1], chain_above)


@pytest.mark.parametrize("kind", ["table", "shell", "copies"])
def test_real_surfaces_give_the_same_as_the_plain_form(kind):
    made = make_asset("table", 1, textured=False)
    mesh = made.mesh
    if kind == "shell":
        mesh = fuse_mesh(mesh, made.face_labels, grid=40)[0]
    if kind == "copies":
        box = trimesh.creation.box()
        faces = np.concatenate([box.faces, np.repeat(box.faces[:1], 500, axis=0)])
        mesh = AssetMesh(box.vertices, faces, np.zeros(len(faces), np.int32), (Material(),))
    surface = measure_surface(mesh)
    pairs = np.sort(surface.pairs, axis=1)
    lengths = surface.lengths / surface.extent
    borders = np.stack([lengths, lengths * np.abs(surface.angles)], axis=1)
    areas = surface.areas / surface.areas.sum()
    counts = [min(count, max(len(areas) // 2, 1)) for count in SEGMENT_COUNTS]
    compare(areas, pairs, borders, counts, CONFIG.chain_above)


def test_levels_are_nested_and_end_with_regions_and_components():
    surface = measure_surface(make_asset("chair", 2, textured=False).mesh)
    levels = build_segment_tree(surface, SegmenterConfig().regions).levels
    for finer, coarser in itertools.pairwise(levels[:-2]):
        owners = {(a, b) for a, b in zip(finer.tolist(), coarser.tolist(), strict=True)}
        assert len(owners) == finer.max() + 1
    assert np.array_equal(levels[-2], surface.regions)
    assert np.array_equal(levels[-1], surface.components)
