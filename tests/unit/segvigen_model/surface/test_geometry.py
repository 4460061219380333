from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import trimesh

from segvigen_model.config import RegionMergingConfig
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.region_merging import SEGMENT_COUNTS, build_segment_tree
from segvigen_model.surface.sampling import find_contacts, sample_faces
from segvigen_model.types import AssetMesh, Material

REGIONS = RegionMergingConfig()


def test_box_areas_edges_and_folds(split_box):
    surface = measure_surface(split_box)
    assert surface.areas.sum() == pytest.approx(10.0)
    assert len(surface.pairs) == 18  # every edge of a closed box joins two of its 12 triangles
    assert surface.components.max() == 0
    folds = np.sort(surface.angles)
    assert np.allclose(folds[:12], -np.pi / 2)  # a box is convex
    assert np.allclose(folds[12:], 0)


def inside_out(mesh):
    return replace(mesh, faces=mesh.faces[:, ::-1].copy())


def test_turned_inside_out_gives_the_same_folds_and_normals(split_box):
    right, turned = measure_surface(split_box), measure_surface(inside_out(split_box))
    assert np.allclose(np.sort(turned.angles), np.sort(right.angles))
    assert np.allclose(turned.normals, right.normals)
    outwards = right.centers - right.centers.mean(axis=0)
    assert (np.einsum("fi,fi->f", right.normals, outwards) > 0).all()


def test_the_larger_closed_pieces_decide_which_side_is_outside(two_boxes, split_box):
    # A small box that was mirrored on its own does not turn the others about.
    offset = len(two_boxes.vertices)
    mesh = replace(
        two_boxes,
        vertices=np.concatenate([two_boxes.vertices, split_box.vertices * 0.1 + 9.0]),
        faces=np.concatenate([two_boxes.faces, inside_out(split_box).faces + offset]),
        face_material=np.zeros(36, np.int32),
    )
    normals = measure_surface(mesh).normals
    assert np.allclose(normals[:24], measure_surface(two_boxes).normals)
    assert np.allclose(measure_surface(inside_out(mesh)).normals, normals)


def test_a_vertex_without_a_face_changes_nothing(two_boxes):
    ball = trimesh.creation.icosphere(2)
    sphere = replace(
        two_boxes,
        vertices=np.asarray(ball.vertices),
        faces=np.asarray(ball.faces, np.int64),
        face_material=np.zeros(320, np.int32),
    )
    stray = replace(sphere, vertices=np.vstack([sphere.vertices, [[1e5, -1e5, 1e300]]]))
    plain, reported = measure_surface(sphere), measure_surface(stray)
    assert len(plain.pairs) == 480
    for each in fields(plain):
        assert np.array_equal(getattr(plain, each.name), getattr(reported, each.name)), each.name
    assert np.array_equal(stray.used_vertices, sphere.vertices)


def test_an_open_sheet_keeps_its_normals(big_sheet):
    turned = measure_surface(inside_out(big_sheet))
    assert np.allclose(turned.normals, -measure_surface(big_sheet).normals)


def test_components_and_regions(two_boxes):
    surface = measure_surface(two_boxes)
    assert surface.components.tolist() == [0] * 12 + [1] * 12
    materials = np.zeros(24, np.int32)
    materials[[2, 3]] = 1
    painted = AssetMesh(two_boxes.vertices, two_boxes.faces, materials, (Material(), Material()))
    assert measure_surface(painted).regions.max() == 2
    assert measure_surface(painted).components.max() == 1


def test_degenerate_and_duplicate_faces_survive():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], float)
    faces = np.array([[0, 1, 2], [0, 1, 2], [0, 0, 1], [0, 3, 3]])
    mesh = AssetMesh(vertices, faces, np.zeros(4, np.int32), (Material(),))
    surface = measure_surface(mesh)
    assert np.isfinite(surface.normals).all()
    assert np.isfinite(surface.angles).all()
    assert surface.components[0] == surface.components[1]
    assert build_segment_tree(surface, REGIONS).levels.shape == (9, 4)


def test_samples_lie_on_their_faces_and_weigh_its_area(table):
    surface = measure_surface(table[0])
    points = sample_faces(surface.triangles, surface.areas, 0.05)
    assert np.allclose(np.bincount(points.face, points.weight), surface.areas)
    offset = np.einsum(
        "sd,sd->s", points.xyz - surface.centers[points.face], surface.normals[points.face]
    )
    assert np.abs(offset).max() < 1e-9


def test_contacts_find_touching_boxes_only(table):
    mesh, parts = table
    surface = measure_surface(mesh)
    points = sample_faces(surface.triangles, surface.areas, 0.01)
    pairs, lengths = find_contacts(points, parts, 0.03)
    assert pairs.tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]]
    assert (lengths > 0).all()


def test_tree_is_nested_and_ends_in_regions_and_components(table, big_sheet):
    for mesh in (table[0], big_sheet):
        tree = build_segment_tree(measure_surface(mesh), REGIONS)
        for fine, coarse in zip(tree.levels[:-1], tree.levels[1:], strict=True):
            first = np.unique(fine, return_index=True)[1]
            assert (coarse[first][fine] == coarse).all()
    assert tree.levels[SEGMENT_COUNTS.index(5)].max() == 4


def test_tree_does_not_depend_on_place_size_or_face_order(table):
    bent = table[0].vertices + 0.05 * np.sin(table[0].vertices[:, [1, 2, 0]] * [3.1, 4.3, 5.7])
    mesh = replace(table[0], vertices=bent)  # no two borders alike: ties may fall either way
    order = np.random.default_rng(1).permutation(mesh.num_faces)
    moved = AssetMesh(
        mesh.vertices * 7.5 + 3, mesh.faces[order], mesh.face_material, mesh.materials
    )
    level = SEGMENT_COUNTS.index(20)
    here = build_segment_tree(measure_surface(mesh), REGIONS).levels[level][order]
    there = build_segment_tree(measure_surface(moved), REGIONS).levels[level]
    assert len(np.unique(np.stack([here, there]), axis=1).T) == here.max() + 1
