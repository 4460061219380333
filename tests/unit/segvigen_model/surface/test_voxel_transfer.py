from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.config import TransferConfig
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.voxel_transfer import find_nearest_voxels, relate_faces_to_voxels
from segvigen_model.types import Encoding


def relate(mesh, voxelize, grid=32):
    coords, frame = voxelize(mesh, grid)
    none = np.zeros((0, 3))
    encoding = Encoding(grid, 1, coords, coords, none, none, none.astype(np.uint8), frame, "test")
    return relate_faces_to_voxels(mesh, measure_surface(mesh), encoding, TransferConfig()), coords


def test_labels_survive_the_trip_through_voxels(table, voxelize):
    mesh, parts = table
    relation, coords = relate(mesh, voxelize)
    voxels = relation.labels_to_voxels(parts)
    assert voxels.shape == (len(coords),)
    assert (relation.labels_to_faces(voxels) == parts).mean() > 0.9


def test_constant_stays_constant_and_shares_sum_to_one(table, voxelize):
    relation, coords = relate(table[0], voxelize)
    assert np.allclose(relation.average_to_faces(np.full(len(coords), 0.3)), 0.3)
    assert relation.average_to_faces(np.ones((len(coords), 2))).shape == (60, 2)


def test_large_face_takes_the_label_that_covers_most_of_it(single_face, voxelize):
    relation, coords = relate(single_face, voxelize)
    labels = (coords[:, 0] < 10).astype(int)  # the wide end of the triangle
    assert relation.labels_to_faces(labels).tolist() == [1]
    assert relation.average_to_faces(labels.astype(float))[0] == pytest.approx(0.53, abs=0.1)


def test_small_faces_take_the_majority_of_their_corners(big_sheet, voxelize):
    relation, coords = relate(big_sheet, voxelize, grid=16)
    labels = (coords[:, 0] >= 8).astype(int)
    faces = relation.labels_to_faces(labels)
    middle = big_sheet.triangles.mean(axis=1)[:, 0] > 158
    assert (faces == middle).mean() > 0.99


def test_tie_takes_the_lower_label_and_every_voxel_gets_one(two_boxes, voxelize):
    relation, coords = relate(two_boxes, voxelize)
    labels = relation.labels_to_voxels(np.repeat([1, 0], 12))
    assert set(labels.tolist()) == {0, 1}
    assert len(labels) == len(coords)


def test_point_beside_all_voxels_takes_the_nearest():
    coords = np.array([[5, 5, 5], [0, 0, 0]], np.int32)
    points = np.array([[5.5, 5.5, 5.5], [2.0, 2.0, 2.0], [9.0, 9.0, 9.0]]) / 16 - 0.5
    assert find_nearest_voxels(points, coords, 16).tolist() == [0, 1, 0]
