"""A survey covers what is large and fine enough, and changes nothing elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segvigen_model.config import AutoPromptConfig, SegmenterConfig
from segvigen_model.interactive.crops import Looks
from segvigen_model.partition import auto_prompts
from segvigen_model.partition.auto_prompts import Survey, clicked_tiles, tiles
from segvigen_model.partition.consensus import consensus
from segvigen_model.surface.adjacency import patch_atoms
from segvigen_model.surface.geometry import surface_of
from segvigen_model.surface.region_merging import segment_tree

CONFIG = SegmenterConfig()
PROMPTS = CONFIG.auto_prompts


def survey_of(mesh, config: SegmenterConfig = CONFIG) -> Survey:
    surface = surface_of(mesh)
    tree = segment_tree(surface, config.regions)
    return Survey(surface, tree, Looks.of(surface, tree, config).whole, config)


def beside(sheet, count: int, smaller: float):
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
    surface = surface_of(beside(sheet, 2, 0.1))
    shown = np.zeros(surface.num_faces, int)
    shares = surface.areas / surface.areas.sum()
    found = list(tiles(surface, PROMPTS))
    for faces, ways in found:
        assert ways[faces].max() <= np.delete(ways, faces).min()
        assert (np.diff(faces) > 0).all() and len(np.unique(surface.components[faces])) == 1
        assert shares[faces].sum() <= PROMPTS.crop_share + 2 * shares.max()
        shown[faces] += 1
    is_large = surface.components == surface.components[0]
    assert (shown[is_large] >= 1).all() and (shown[~is_large] == 0).all()
    assert shown[is_large].mean() > 1.3  # they overlap
    assert len(found) < PROMPTS.max_crops


def test_fine_patches_are_half_as_large_and_know_their_pieces(sheet):
    found = survey_of(sheet)
    atoms, bonds = found.closely()
    coarse, plain = found.at_once()
    assert atoms.count == pytest.approx(PROMPTS.num_patches, rel=0.1)
    assert atoms.count > coarse.count
    assert bonds.together.shape == (atoms.count, atoms.count)
    assert np.isfinite(bonds.together).all() and np.allclose(bonds.together, bonds.together.T)
    assert found.closely()[0] is atoms  # looked at once
    assert len(bonds.pieces) == atoms.count and (bonds.pieces == bonds.pieces[0]).all()
    # A gentle sheet is of one part for both.
    areas = surface_of(sheet).areas
    for each in ((atoms, bonds), (coarse, plain)):
        none = np.zeros((0, len(areas)), int)
        assert consensus(none, *each, areas, "coarse", CONFIG).count <= 4


def test_clicks_go_to_the_tile_whose_middle_is_nearest(sheet):
    surface = surface_of(beside(sheet, 1, 0.1))
    is_large = surface.components == surface.components[0]
    clicked = np.arange(0, surface.num_faces, 17)
    ways = {faces.tobytes(): ways for faces, ways in tiles(surface, PROMPTS)}
    nearest = np.min([way[clicked] for way in ways.values()], axis=0)
    found = list(clicked_tiles(surface, clicked, PROMPTS))
    assert np.array_equal(
        np.sort(np.concatenate([own for _, own in found])), clicked[is_large[clicked]]
    )
    for faces, own in found:
        assert np.isin(own, faces).all()
        assert np.allclose(ways[faces.tobytes()][own], nearest[np.isin(clicked, own)])


def test_clicks_are_spread_over_open_faces_only(sheet):
    surface = surface_of(beside(sheet, 2, 0.1))
    tree = segment_tree(surface, CONFIG.regions)
    atoms = patch_atoms(surface, tree, 512, CONFIG.patches, CONFIG.components)
    is_open = surface.components == surface.components[0]
    faces = auto_prompts._PatchMap(surface, atoms).spread(is_open, 30)
    assert is_open[faces].all() and len(np.unique(atoms.of_face[faces])) == 30
    centers = surface.centers[faces]
    gaps = np.linalg.norm(centers[:, None] - centers, axis=2) + 1e9 * np.eye(30)
    assert gaps.min() > 0.4 * gaps.min(axis=1).max()


def test_without_looks_and_clicks_the_whole_is_left(sheet, monkeypatch):
    """What is averaged is the whole's reading, moved onto finer patches."""
    monkeypatch.setattr(auto_prompts, "tiles", lambda *_: iter(()))
    found = survey_of(sheet)
    atoms, bonds = found.closely()
    coarse, plain = found.at_once()
    at = np.unique(atoms.of_face, return_index=True)[1]
    own = coarse.of_face[at]
    told = bonds.together
    expected = plain.together[np.ix_(own, own)]
    assert np.corrcoef(told.reshape(-1), expected.reshape(-1))[0, 1] > 0.97
    assert told.min() >= plain.together.min() - 1e-9 and told.max() <= plain.together.max() + 1e-9


@pytest.mark.parametrize("kind", ["many pieces", "loose parts", "no area"])
def test_what_is_no_skin_stays_as_the_whole_reads_it(kind, sheet, table):
    mesh = {"many pieces": beside(sheet, 2, 1.0), "loose parts": table[0]}.get(kind)
    found = survey_of(mesh or replace(sheet, vertices=sheet.vertices * [1.0, 0.0, 0.0]))
    assert found.closely()[0] is found.at_once()[0]
    assert found.closely()[1].together is found.at_once()[1].together


@pytest.mark.parametrize("kind", ["coarse mesh", "very fine mesh"])
def test_where_looks_tell_nothing_or_take_long_clicks_alone_are_tried(kind, sheet, sheet_of):
    config = replace(CONFIG, auto_prompts=AutoPromptConfig(max_faces=3000))
    found = survey_of(sheet_of(12) if kind == "coarse mesh" else sheet, config)
    (atoms, bonds), (coarse, plain) = found.closely(), found.at_once()
    assert atoms is coarse and np.array_equal(bonds.pieces, plain.pieces)
    assert not np.allclose(bonds.together, plain.together)
    assert np.allclose(bonds.together, bonds.together.T)


@pytest.mark.parametrize("count", [1, 2])
def test_a_skin_of_a_face_or_two_is_asked_about_too(count, sheet):
    found = survey_of(replace(sheet, faces=sheet.faces[:count], face_material=np.zeros(count, int)))
    atoms, bonds = found.closely()
    assert atoms.count == count and np.isfinite(bonds.together).all()
