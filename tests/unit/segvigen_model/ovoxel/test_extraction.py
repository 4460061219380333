from __future__ import annotations

import numpy as np
import pytest
import trimesh

from segvigen_model.ovoxel import mesh_to_ovoxel, ovoxel_to_mesh
from segvigen_model.ovoxel.mesh import Split, dual_grid_to_mesh


@pytest.mark.parametrize("split", list(Split))
def test_a_sphere_comes_back_closed_and_in_place(sphere, split):
    found = mesh_to_ovoxel(sphere, 32)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(found.coords)).astype(np.float32)
    vertices, faces = ovoxel_to_mesh(found, weight, split)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    _, uses = np.unique(np.sort(mesh.edges, axis=1), axis=0, return_counts=True)
    assert (uses == 2).all(), "every edge has two faces"
    # A sphere of diameter 1, seen through facets of 1/32.
    assert np.abs(np.linalg.norm(vertices[np.unique(faces)], axis=1) - 0.5).max() < 0.03
    assert mesh.area == pytest.approx(np.pi, rel=0.05)


def test_quads_with_a_missing_voxel_are_dropped():
    coords = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]])
    flags = np.array([[True, True, True]] + [[False] * 3] * 3)
    half = np.full((4, 3), 0.5, dtype=np.float32)
    _, faces = dual_grid_to_mesh(coords, half, flags, 4)
    assert len(faces) == 2, "only the quad round the edge along x is whole"
    _, faces = dual_grid_to_mesh(coords[::-1], half, flags[::-1], 4)
    assert len(faces) == 2
    _, none = dual_grid_to_mesh(coords, half, np.zeros_like(flags), 4)
    assert none.shape == (0, 3)
    edge = np.array([[3, 3, 3]])
    assert dual_grid_to_mesh(edge, half[:1], flags[:1], 4)[1].shape == (0, 3)


def test_the_split_follows_weights_and_angle():
    coords = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]])
    flags = np.array([[True, False, False]] + [[False] * 3] * 3)
    dual = np.full((4, 3), 0.5, dtype=np.float32)
    heavy = np.array([1, 2, 1, 2], dtype=np.float32)
    _, faces = dual_grid_to_mesh(coords, dual, flags, 4, heavy, Split.WEIGHT)
    assert faces.tolist() == [[0, 1, 3], [3, 1, 2]]
    _, faces = dual_grid_to_mesh(coords, dual, flags, 4, heavy[::-1], Split.WEIGHT)
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    # One raised corner: the diagonal beside it leaves the other half flat and bends less.
    for corner, goal in ((0, [[0, 1, 3], [3, 1, 2]]), (1, [[0, 1, 2], [0, 2, 3]])):
        bent = dual.copy()
        bent[corner, 0] = 1.0
        assert dual_grid_to_mesh(coords, bent, flags, 4)[1].tolist() == goal
    with pytest.raises(ValueError, match="split_weight"):
        dual_grid_to_mesh(coords, dual, flags, 4, None, Split.TRAIN)
