"""Geometric baselines: right on meshes whose answer is known."""

from __future__ import annotations

import numpy as np

from segvigen_model.datasets.procedural import primitives
from segvigen_model.evaluation import baselines
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import AssetMesh, Click, Material


def two_boxes():
    left, right = primitives.make_box((1, 1, 1)), primitives.make_box((1, 1, 1))
    vertices = np.concatenate([left.vertices, right.vertices + np.array([3, 0, 0])])
    faces = np.concatenate([left.faces, right.faces + len(left.vertices)])
    material = np.zeros(len(faces), np.int32)
    mesh = AssetMesh(vertices, faces, material, (Material(),))
    return mesh, np.repeat([0, 1], len(left.faces))


def test_components_and_folds():
    mesh, boxes = two_boxes()
    prepared = baselines.prepare_baselines(measure_surface(mesh))
    assert len(np.unique(prepared.segments["components"])) == 2
    assert len(np.unique(prepared.segments["dihedral 35"])) == 12  # six flat sides each
    masks = baselines.predict_click_masks(prepared, [click(mesh, 0)])
    assert np.array_equal(masks["components"], boxes == 0)
    assert masks["everything"].all()
    assert "voronoi" not in masks


def test_voronoi_needs_and_obeys_negative_clicks():
    mesh, boxes = two_boxes()
    prepared = baselines.prepare_baselines(measure_surface(mesh))
    last = mesh.num_faces - 1
    masks = baselines.predict_click_masks(prepared, [click(mesh, 0), click(mesh, last, False)])
    assert np.array_equal(masks["voronoi"], boxes == 0)


def test_geodesic_cells_do_not_jump_gaps():
    mesh, boxes = two_boxes()
    surface = measure_surface(mesh)
    nearest = baselines.compute_geodesic_voronoi(surface, [0, mesh.num_faces - 1])
    assert np.array_equal(nearest, boxes)


def test_full_labels_are_partitions():
    mesh, _ = two_boxes()
    full = baselines.predict_full_labels(baselines.prepare_baselines(measure_surface(mesh)))
    assert {"components", "everything", "dihedral 20"} <= set(full)
    assert all(labels.shape == (mesh.num_faces,) for labels in full.values())


def click(mesh, face, is_positive=True):
    return Click(face, mesh.triangles[face].mean(0), is_positive=is_positive)
