"""Labels per polygon of the source, and names of parts after it."""

from __future__ import annotations

import numpy as np

from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.mesh.source_parts import find_source_names, label_polygons

VERTICES = b"v 0 0 0\nv 1 0 0\nv 3 1 0\nv 0 1 0\nv 0 5 0\n"


def test_a_polygon_has_the_label_of_most_of_its_area():
    mesh = mesh_from_bytes(VERTICES + b"f 1 2 3 4\nf 1 2\nf 1 3 5\nf 1 2 3 4\n", "obj")
    assert mesh.face_polygons.tolist() == [0, 0, 2, 3, 3]
    found = label_polygons(mesh, np.array([7, 4, 1, 2, 2]))
    assert found.labels.tolist() == [4, -1, 1, 2], "the second half of the quad is the larger"
    assert found.num_split == 1


def test_equal_areas_take_the_lower_label_and_triangles_are_their_own_polygons():
    square = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n"
    mesh = mesh_from_bytes(square, "obj")
    assert label_polygons(mesh, np.array([5, 3])).labels.tolist() == [3]
    flat = mesh_from_bytes(square + b"f 1 1 1\n", "obj")
    assert label_polygons(flat, np.array([0, 0, 9])).labels.tolist() == [0, 9], "no area, a label"


def test_a_part_has_the_name_of_most_of_its_area():
    body = b"o chair\ng seat\nf 1 2 3\ng back\nf 1 3 5\no\ng\nusemtl red\nf 1 2 4\n"
    mesh = mesh_from_bytes(VERTICES + body, "obj")
    names = find_source_names(mesh, np.array([0, 0, 1]), 3)
    assert names.objects == ("chair", "", "")
    assert names.groups == ("back", "", "")
    assert names.materials == ("", "red", "")
    plain = mesh_from_bytes(VERTICES + b"f 1 2 3\n", "obj")
    assert find_source_names(plain, np.zeros(1, int), 1).objects == ("",)
