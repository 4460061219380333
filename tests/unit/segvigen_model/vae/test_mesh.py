"""Triangles from a dual grid."""

from __future__ import annotations

import pytest
import torch

from segvigen_model.vae.mesh import extract_mesh, extract_meshes
from segvigen_model.vae.shape import ShapeVoxels

RING = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]])
FLAGS = torch.tensor([[True, False, False]] + [[False] * 3] * 3)


@pytest.mark.parametrize(("split", "num_faces"), [("weights", 2), ("normals", 2), ("train", 4)])
def test_one_crossed_edge_makes_one_quad(split, num_faces):
    mesh = extract_mesh(RING, torch.full((4, 3), 0.5), FLAGS, torch.ones(4, 1), grid=4, split=split)
    assert len(mesh.faces) == num_faces
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert float(area.norm(dim=1).sum() / 2) == pytest.approx(1 / 16)


def test_a_quad_with_a_missing_voxel_is_dropped():
    mesh = extract_mesh(
        RING[:3], torch.full((3, 3), 0.5), FLAGS[:3], torch.ones(3, 1), grid=4, split="weights"
    )
    assert mesh.faces.shape == (0, 3)


def test_weights_choose_the_diagonal():
    heavy_02 = torch.tensor([[2.0], [1.0], [1.0], [2.0]])  # rows of ring corners 0, 1, 3, 2
    for weight, wanted in ((heavy_02, {0, 3}), (1 / heavy_02, {1, 2})):
        mesh = extract_mesh(RING, torch.full((4, 3), 0.5), FLAGS, weight, grid=4, split="weights")
        shared = set(mesh.faces[0].tolist()) & set(mesh.faces[1].tolist())
        assert shared == wanted


def test_normals_prefer_the_flatter_split():
    dual = torch.full((4, 3), 0.5)
    dual[0, 0] = 0.9  # corner 0 sticks out: the fold lies on the other diagonal
    mesh = extract_mesh(RING, dual, FLAGS, torch.ones(4, 1), grid=4, split="normals")
    first = extract_mesh(RING, dual, FLAGS, torch.ones(4, 1), grid=4, split="first")
    assert set(first.faces[0].tolist()) & set(first.faces[1].tolist()) == {0, 3}
    assert len(mesh.faces) == 2


def test_training_mesh_moves_weights_and_vertices():
    dual = torch.rand(4, 3, requires_grad=True)
    weight = torch.rand(4, 1).add(0.5).requires_grad_()
    mesh = extract_mesh(RING, dual, FLAGS, weight, grid=4, split="train")
    mesh.vertices.square().sum().backward()
    assert bool(dual.grad.any())
    assert bool(weight.grad.any())


def test_assets_of_a_batch_are_separate():
    coords = torch.nn.functional.pad(RING, (1, 0)).repeat(2, 1)
    coords[4:, 0] = 1
    voxels = ShapeVoxels(
        torch.full((8, 3), 0.5), torch.ones(8, 3), torch.ones(8, 1), coords.to(torch.int32)
    )
    meshes = extract_meshes(voxels, 4, intersected=FLAGS.repeat(2, 1))
    assert len(meshes) == 2
    assert torch.equal(meshes[0].faces, meshes[1].faces)
    assert len(meshes[0].vertices) == 4
