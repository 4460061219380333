"""Pieces joined to one mesh: materials, names and counts of what a reader left out."""

from __future__ import annotations

import numpy as np

from segvigen_model.mesh.formats.pieces import Piece, join_pieces, place_piece
from segvigen_model.types import FaceOrigin, Material, NameColumn

RED, BLUE = Material("red"), Material("blue")
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], float)
QUAD = np.array([[0, 1, 2], [2, 1, 3]])


def name_faces(*names):
    table = tuple(dict.fromkeys(name for name in names if name))
    return NameColumn(np.array([table.index(n) if n else -1 for n in names], np.int32), table)


def test_names_polygons_and_counts_of_pieces_are_joined():
    plain = Piece(CORNERS, QUAD, (RED,), "plain", repairs=(("degenerate_faces", 2),))
    named = Piece(
        CORNERS,
        np.concatenate([QUAD, QUAD]),
        (RED, BLUE),
        face_material=np.array([1, 0, 1, 1]),
        geometries=name_faces("a", "b", "a", "a"),
        origin=FaceOrigin(
            np.array([0, 0, 2, 2]), name_faces("o", "o", "", "p"), None, name_faces(*"mmmn")
        ),
        num_polygons=3,
        repairs=(("degenerate_faces", 1), ("lines_left_out", 4)),
        announced={"polygons": 3},
    )
    empty = Piece(CORNERS, QUAD[:0], (RED,), repairs=(("lines_left_out", 1),))
    mesh = join_pieces([named, empty, plain, named])
    assert mesh.materials == (RED, BLUE)
    assert mesh.face_material.tolist() == [1, 0, 1, 1, 0, 0, 1, 0, 1, 1]
    assert mesh.face_geometry.tolist() == [0, 1, 0, 0, 2, 2, 3, 4, 3, 3]
    assert mesh.geometry_names == ("a", "b", "plain", "a", "b")
    assert mesh.origin.polygons.tolist() == [0, 0, 2, 2, 3, 4, 5, 5, 7, 7]
    assert mesh.origin.objects.names == ("o", "p")
    assert mesh.origin.objects.indices.tolist() == [0, 0, -1, 1, -1, -1, 0, 0, -1, 1]
    assert mesh.origin.groups is None
    assert mesh.repairs == (("degenerate_faces", 4), ("lines_left_out", 9))
    assert mesh.announced == {"polygons": 6}
    few = mesh.origin.take(np.array([9, 2]))
    assert few.polygons.tolist() == [7, 2] and few.objects.indices.tolist() == [1, -1]


def test_without_polygons_every_face_is_its_own():
    mesh = join_pieces([Piece(CORNERS, QUAD, (RED,))])
    assert mesh.origin.polygons is None and mesh.face_polygons.tolist() == [0, 1]


def test_mirroring_turns_corners_with_their_texture_coordinates():
    uv = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    moved = place_piece(Piece(CORNERS, QUAD, (RED,), corner_uv=uv), np.diag([-1.0, 1, 1, 1]))
    assert moved.faces.tolist() == [[2, 1, 0], [3, 1, 2]]
    assert join_pieces([moved]).corner_uv[0, 0].tolist() == [4, 5]


def test_absent_normals_of_some_vertices_are_computed():
    normals = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]], np.float32)
    mesh = join_pieces([Piece(CORNERS, QUAD, (RED,), normals=normals)])
    assert mesh.vertex_normals.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]]
