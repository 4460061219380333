"""Crops show what is nearest to the clicks, cut finer, and say where they end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.config import CropConfig, SegmenterConfig
from segvigen_model.interactive import crops
from segvigen_model.interactive.crops import MultiScaleCrops, crop_around_clicks
from segvigen_model.surface.geometry import cut_surface, measure_surface
from segvigen_model.surface.region_merging import build_segment_tree

CONFIG = SegmenterConfig()


def make_crops(mesh) -> MultiScaleCrops:
    surface = measure_surface(mesh)
    return MultiScaleCrops.build(surface, build_segment_tree(surface, CONFIG.regions), CONFIG)


@pytest.fixture(scope="module")
def sheet(sheet_of):
    """A wavy sheet of 9,800 faces."""
    mesh = sheet_of(70)
    return measure_surface(mesh), make_crops(mesh)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_cut_out_is_the_surface_of_these_faces_alone(sheet_of, seed):
    rng = np.random.default_rng(seed)
    grid = sheet_of(6)
    two = rng.integers(0, 2, len(grid.faces)).astype(np.int32)
    mesh = replace(grid, face_material=two, materials=grid.materials * 2)
    faces = np.flatnonzero(rng.random(len(mesh.faces)) < rng.uniform(0.1, 1))
    faces = faces if len(faces) else np.array([3])
    part = replace(mesh, faces=mesh.faces[faces], face_material=two[faces])
    cut, alone = cut_surface(measure_surface(mesh), faces), measure_surface(part)
    for name in ("triangles", "areas", "normals", "centers", "components", "regions", "materials"):
        assert np.allclose(getattr(cut, name), getattr(alone, name)), name
    edges = [
        # Which way an open sheet folds is a matter of convention, and the whole has settled it.
        {(*map(int, pair), round(abs(float(a)), 9)) for pair, a in zip(*each, strict=True)}
        for each in ((np.sort(s.pairs, axis=1), s.angles) for s in (cut, alone))
    ]
    assert edges[0] == edges[1]
    used = mesh.vertices[np.unique(mesh.faces[faces])]
    assert cut.extent == pytest.approx(np.ptp(used, axis=0).max())


def test_everything_cut_out_is_everything(sheet):
    surface, _ = sheet
    cut = cut_surface(surface, np.arange(surface.num_faces))
    assert np.array_equal(cut.pairs, surface.pairs) and np.array_equal(cut.angles, surface.angles)


def test_crops_show_the_nearest_surface_in_finer_patches(sheet):
    surface, found = sheet
    clicked = np.array([4000, 7000])
    whole, *closer = found.select(clicked)
    assert whole is found.whole and len(closer) == len(CONFIG.crops.shares)
    center = surface.centers[clicked]
    gaps = np.linalg.norm(surface.centers[:, None] - center, axis=2).min(axis=1)
    for crop, share in zip(closer, CONFIG.crops.shares, strict=True):
        assert set(clicked) <= set(crop.faces) and (np.diff(crop.faces) > 0).all()
        assert crop.share == pytest.approx(share, abs=0.01)
        outside = np.setdiff1d(np.arange(surface.num_faces), crop.faces)
        # Ways over a mesh are longer than straight ones, but not twice as long.
        assert gaps[crop.faces].max() < 2 * gaps[outside].min()
        known = len(np.unique(whole.superfaces.of_face[crop.faces]))
        assert crop.superfaces.count >= CONFIG.crops.min_gain * known
        rows = crop.find_rows(np.arange(surface.num_faces))
        assert np.array_equal(rows[crop.faces], np.arange(len(crop.faces)))
        assert (rows[outside] == -1).all()
    assert set(closer[1].faces) <= set(closer[0].faces)


def test_the_rim_is_where_the_surface_goes_on(sheet):
    surface, found = sheet
    _, crop, _ = found.select(np.array([5000]))
    shown = set(crop.faces.tolist())
    crossing = {
        int(face)
        for pair in surface.pairs
        for face in pair
        if face in shown and not shown >= set(pair.tolist())
    }
    expected = {
        int(crop.superfaces.of_face[crop.find_rows(np.array([face]))[0]]) for face in crossing
    }
    assert set(np.flatnonzero(crop.rim)) == expected and 0 < len(expected) < crop.superfaces.count
    assert not found.whole.rim.any()


def test_the_same_clicks_are_cropped_once_and_the_last_few_are_kept(sheet, monkeypatch):
    _, found = sheet
    first = found.select(np.array([10, 20]))
    assert found.select(np.array([20, 10, 10])) is first
    made = []
    monkeypatch.setattr(crops, "crop_around_clicks", lambda *_: made.append(1) or ())
    num_kept = CONFIG.limits.num_kept_crops
    for face in range(100, 100 + num_kept):
        found.select(np.array([face]))
    assert len(made) == num_kept and len(found._kept) == num_kept
    assert found.select(np.array([10, 20])) is not first  # forgotten


def test_a_mesh_without_finer_faces_gets_no_closer_crop(table):
    mesh, _ = table
    assert len(make_crops(mesh).select(np.array([0]))) == 1


def test_clicks_on_small_components_get_no_closer_crop(sheet_of):
    """Three equal sheets, one above the other: one click holds a third, two hold most."""
    sheet = sheet_of(30)
    count, step = len(sheet.faces), np.array([0.0, 20.0, 0.0])
    stack = replace(
        sheet,
        vertices=np.concatenate([sheet.vertices + number * step for number in range(3)]),
        faces=np.concatenate([sheet.faces + number * len(sheet.vertices) for number in range(3)]),
        face_material=np.zeros(3 * count, np.int32),
    )
    found = make_crops(stack)
    assert len(found.select(np.array([5]))) == 1
    whole, *closer = found.select(np.array([5, count + 5]))
    assert whole is found.whole and closer
    assert all((crop.faces < 2 * count).all() for crop in closer)


def test_every_click_is_shown_however_much_they_hold(sheet):
    """More clicked surface than a crop takes: the crop grows."""
    _, found = sheet
    clicked = np.arange(0, 9800, 2)  # half of it
    for crop in found.select(clicked)[1:]:
        assert (crop.find_rows(clicked) >= 0).all()


def test_what_would_take_too_long_is_not_looked_at(sheet, monkeypatch):
    surface, found = sheet
    whole = found.whole
    clicked = np.array([77])
    small = replace(CONFIG, crops=CropConfig(max_faces=2000))  # .12 of 9,800 faces, not .35
    (crop,) = crop_around_clicks(surface, whole, clicked, small)
    assert crop.share == pytest.approx(0.12, abs=0.01)
    smaller = replace(CONFIG, crops=CropConfig(max_faces=1000))
    monkeypatch.setattr(crops, "compute_geodesic_distances", None)  # not even measured
    assert list(crop_around_clicks(surface, whole, clicked, smaller)) == []


def test_crops_are_as_configured(sheet):
    surface, found = sheet
    config = replace(CONFIG, crops=CropConfig(shares=(0.2,), num_patches=150, min_gain=1.0))
    (crop,) = crop_around_clicks(surface, found.whole, np.array([77]), config)
    assert crop.share == pytest.approx(0.2, abs=0.01)
    assert crop.superfaces.count == pytest.approx(150, rel=0.1)
