"""A survey covers what is large and fine enough, and changes nothing elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segvigen_model.config import AutoPromptConfig, SegmenterConfig
from segvigen_model.interactive.crops import MultiScaleCrops
from segvigen_model.partition import auto_prompts
from segvigen_model.partition.auto_prompts import (
    AutoPrompts,
    assign_clicks_to_tiles,
    cover_with_tiles,
)
from segvigen_model.partition.consensus import find_consensus
from segvigen_model.surface.adjacency import build_superfaces
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.region_merging import build_segment_tree

CONFIG = SegmenterConfig()
PROMPTS = CONFIG.auto_prompts


def make_auto_prompts(mesh, config: SegmenterConfig = CONFIG) -> AutoPrompts:
    surface = measure_surface(mesh)
    tree = build_segment_tree(surface, config.regions)
    return AutoPrompts(surface, tree, MultiScaleCrops.build(surface, tree, config).whole, config)


def add_beside(sheet, count: int, smaller: float):
    """A sheet and others above it, of a fraction of its size."""
    step = np.array([0.0, 20.0, 0.0])
    places = [sheet.vertices] + [
        sheet.vertices * smaller + (number + 1) * step for number in range(count)
    ]
    return replace(
        sheet,
        vertices=np.concatenate(places),
        faces=np.concatenate(
            [sheet.faces + number * len(sheet.vertices) for number in range(len(places))]
        ),
        face_material=np.zeros(len(places) * len(sheet.faces), np.int32),
    )


@pytest.fixture(scope="module")
def sheet(sheet_of):
    return sheet_of(40)


def test_tiles_cover_the_largest_piece_and_leave_others(sheet):
    surface = measure_surface(add_beside(sheet, 2, 0.1))
    shown = np.zeros(surface.num_faces, int)
    shares = surface.areas / surface.areas.sum()
    found = list(cover_with_tiles(surface, PROMPTS))
    for faces, distances in found:
        assert distances[faces].max() <= np.delete(distances, faces).min()
        assert (np.diff(faces) > 0).all() and len(np.unique(surface.components[faces])) == 1
        assert shares[faces].sum() <= PROMPTS.crop_share + 2 * shares.max()
        shown[faces] += 1
    is_large = surface.components == surface.components[0]
    assert (shown[is_large] >= 1).all() and (shown[~is_large] == 0).all()
    assert shown[is_large].mean() > 1.3  # they overlap
    assert len(found) < PROMPTS.max_crops


def test_fine_patches_are_half_as_large_and_know_their_pieces(sheet):
    found = make_auto_prompts(sheet)
    superfaces, affinity_matrix = found.dense()
    coarse, plain = found.coarse()
    assert superfaces.count == pytest.approx(PROMPTS.num_patches, rel=0.1)
    assert superfaces.count > coarse.count
    assert affinity_matrix.logits.shape == (superfaces.count, superfaces.count)
    assert np.isfinite(affinity_matrix.logits).all() and np.allclose(
        affinity_matrix.logits, affinity_matrix.logits.T
    )
    assert found.dense()[0] is superfaces  # looked at once
    assert (
        len(affinity_matrix.components) == superfaces.count
        and (affinity_matrix.components == affinity_matrix.components[0]).all()
    )
    # A gentle sheet is of one part for both.
    areas = measure_surface(sheet).areas
    for each in ((superfaces, affinity_matrix), (coarse, plain)):
        none = np.zeros((0, len(areas)), int)
        assert find_consensus(none, each, areas, "coarse", CONFIG).count <= 4


def test_clicks_go_to_the_tile_whose_middle_is_nearest(sheet):
    surface = measure_surface(add_beside(sheet, 1, 0.1))
    is_large = surface.components == surface.components[0]
    clicked = np.arange(0, surface.num_faces, 17)
    distances = {
        faces.tobytes(): distances for faces, distances in cover_with_tiles(surface, PROMPTS)
    }
    nearest = np.min([distance[clicked] for distance in distances.values()], axis=0)
    found = list(assign_clicks_to_tiles(surface, clicked, PROMPTS))
    assert np.array_equal(
        np.sort(np.concatenate([own for _, own in found])), clicked[is_large[clicked]]
    )
    for faces, own in found:
        assert np.isin(own, faces).all()
        assert np.allclose(distances[faces.tobytes()][own], nearest[np.isin(clicked, own)])


def test_clicks_are_spread_over_open_faces_only(sheet):
    surface = measure_surface(add_beside(sheet, 2, 0.1))
    tree = build_segment_tree(surface, CONFIG.regions)
    superfaces = build_superfaces(surface, tree, 512, CONFIG.patches, CONFIG.components)
    is_open = surface.components == surface.components[0]
    faces = auto_prompts._PatchMap(surface, superfaces).select_spread_faces(is_open, 30)
    assert is_open[faces].all() and len(np.unique(superfaces.of_face[faces])) == 30
    centers = surface.centers[faces]
    gaps = np.linalg.norm(centers[:, None] - centers, axis=2) + 1e9 * np.eye(30)
    assert gaps.min() > 0.4 * gaps.min(axis=1).max()


def test_without_crops_and_clicks_the_whole_is_left(sheet, monkeypatch):
    """What is averaged is the whole's reading, moved onto finer patches."""
    monkeypatch.setattr(auto_prompts, "cover_with_tiles", lambda *_: iter(()))
    found = make_auto_prompts(sheet)
    superfaces, affinity_matrix = found.dense()
    coarse, plain = found.coarse()
    at = np.unique(superfaces.of_face, return_index=True)[1]
    own = coarse.of_face[at]
    affinity_logits = affinity_matrix.logits
    expected = plain.logits[np.ix_(own, own)]
    assert np.corrcoef(affinity_logits.reshape(-1), expected.reshape(-1))[0, 1] > 0.97
    assert (
        affinity_logits.min() >= plain.logits.min() - 1e-9
        and affinity_logits.max() <= plain.logits.max() + 1e-9
    )


@pytest.mark.parametrize("kind", ["many pieces", "loose parts", "no area"])
def test_what_is_no_shell_stays_as_the_whole_reads_it(kind, sheet, table):
    mesh = {"many pieces": add_beside(sheet, 2, 1.0), "loose parts": table[0]}.get(kind)
    found = make_auto_prompts(mesh or replace(sheet, vertices=sheet.vertices * [1.0, 0.0, 0.0]))
    assert found.dense()[0] is found.coarse()[0]
    assert found.dense()[1].logits is found.coarse()[1].logits


@pytest.mark.parametrize("kind", ["coarse mesh", "very fine mesh"])
def test_where_crops_add_nothing_or_take_long_clicks_alone_are_tried(kind, sheet, sheet_of):
    config = replace(CONFIG, auto_prompts=AutoPromptConfig(max_faces=3000))
    found = make_auto_prompts(sheet_of(12) if kind == "coarse mesh" else sheet, config)
    (superfaces, affinity_matrix), (coarse, plain) = found.dense(), found.coarse()
    assert superfaces is coarse and np.array_equal(affinity_matrix.components, plain.components)
    assert not np.allclose(affinity_matrix.logits, plain.logits)
    assert np.allclose(affinity_matrix.logits, affinity_matrix.logits.T)


@pytest.mark.parametrize("count", [1, 2])
def test_a_shell_of_a_face_or_two_are_sampled_too(count, sheet):
    found = make_auto_prompts(
        replace(sheet, faces=sheet.faces[:count], face_material=np.zeros(count, int))
    )
    superfaces, affinity_matrix = found.dense()
    assert superfaces.count == count and np.isfinite(affinity_matrix.logits).all()
