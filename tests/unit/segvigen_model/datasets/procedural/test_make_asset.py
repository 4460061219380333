"""Procedural shapes: deterministic, exclusively labelled, sound geometry."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.datasets.procedural import CATEGORIES, make_asset
from segvigen_model.datasets.procedural import primitives as p


def test_there_are_enough_categories():
    assert len(CATEGORIES) >= 25
    assert len(set(CATEGORIES)) == len(CATEGORIES)


@pytest.mark.parametrize("category", CATEGORIES)
def test_labels_are_dense_exclusive_and_in_range(category):
    for seed in range(3):
        made = make_asset(category, seed)
        mesh = made.mesh
        assert made.face_labels.shape == (mesh.num_faces,), f"{category}:{seed}"
        found = np.unique(made.face_labels)
        assert found.tolist() == list(range(len(made.part_names))), f"{category}:{seed}"
        assert 2 <= len(made.part_names) <= 40
        assert np.isfinite(mesh.vertices).all()
        assert mesh.faces.min() >= 0 and mesh.faces.max() < len(mesh.vertices)
        assert mesh.face_material.max() < len(mesh.materials)
        assert (np.diff(mesh.face_material) >= 0).all(), "faces must stand in file order"


def test_same_seed_same_mesh_other_seed_other_mesh():
    one, two, other = make_asset("chair", 5), make_asset("chair", 5), make_asset("chair", 6)
    assert np.array_equal(one.mesh.vertices, two.mesh.vertices)
    assert np.array_equal(one.face_labels, two.face_labels)
    assert one.part_names == two.part_names
    assert one.mesh.vertices.shape != other.mesh.vertices.shape or not np.allclose(
        one.mesh.vertices, other.mesh.vertices
    )


def test_structure_is_random_by_seed():
    counts = {len(make_asset("bookcase", seed).part_names) for seed in range(12)}
    assert len(counts) > 2


def test_textured_is_obeyed():
    textured = make_asset("mug", 1, textured=True).mesh
    assert textured.corner_uv is not None
    assert textured.corner_uv.shape == (textured.num_faces, 3, 2)
    assert textured.materials[0].base_color_texture is not None
    assert make_asset("mug", 1, textured=False).mesh.corner_uv is None


def test_colors_do_not_always_give_parts_away():
    shared = 0
    for seed in range(30):
        made = make_asset("chair", seed, textured=False)
        shared += len(made.mesh.materials) < len(made.part_names)
    assert shared >= 15


def test_unknown_category_names_the_choices():
    with pytest.raises(ValueError, match="chair"):
        make_asset("flying carpet", 0)


SOLIDS = {
    "box": p.make_box((1, 2, 3)),
    "bevelled": p.make_box((1, 2, 3), 0.2),
    "cone": p.make_cone(1, 0.5, 2),
    "ball": p.make_ball((1, 2, 1)),
    "capsule": p.make_capsule(0.5, 1),
    "torus": p.make_torus(1, 0.2),
    "tube": p.make_tube(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0]]), 0.1),
    "prism": p.make_prism(np.array([[0, 0], [1, 0], [0, 1]]), 1.0, 0.5),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_closed_solids_wind_outwards(name):
    solid = SOLIDS[name]
    a, b, c = np.moveaxis(solid.vertices[solid.faces], 1, 0)
    assert (a * np.cross(b, c)).sum() / 6 > 0, name


def test_mirroring_keeps_the_winding():
    mirrored = p.transform_solid(p.make_box((1, 1, 1)), np.diag([-1.0, 1, 1]), (0, 0, 0))
    a, b, c = np.moveaxis(mirrored.vertices[mirrored.faces], 1, 0)
    assert (a * np.cross(b, c)).sum() > 0
