"""Tiny meshes as AssetMesh, and a plain-Python reference of the voxel scan."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from segvigen_model.types import AssetMesh, Material


def as_asset(mesh, material=None, **extra):
    faces = np.asarray(mesh.faces, dtype=np.int64)
    return AssetMesh(
        vertices=np.asarray(mesh.vertices, dtype=np.float64),
        faces=faces,
        face_material=extra.pop("face_material", np.zeros(len(faces), dtype=np.int32)),
        materials=extra.pop("materials", (material or Material(metallic_factor=0.0),)),
        **extra,
    )


@pytest.fixture
def to_asset():
    return as_asset


@pytest.fixture
def sphere():
    return as_asset(trimesh.creation.icosphere(subdivisions=2))


@pytest.fixture
def plane():
    """A square in the x-y plane at z = 0, tilted by nothing, with texture coordinates 0..1."""
    vertices = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=float)
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], process=False)
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=np.float32)

    def make(material=None, scale=1.0, **extra):
        return as_asset(mesh, material, corner_uv=uv[mesh.faces] * np.float32(scale), **extra)

    return make
