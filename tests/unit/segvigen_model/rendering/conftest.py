"""Meshes that a camera can be checked on."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.types import AssetMesh, Material


def sheets(*heights: float, materials=None, **more) -> AssetMesh:
    """Squares in the xy plane, two faces each, one at every z; material k for square k."""
    materials = materials or (Material(),)
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    vertices = np.concatenate([square + np.array([0, 0, z]) for z in heights])
    faces = np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * k for k in range(len(heights))])
    owner = np.repeat(np.arange(len(heights)) % len(materials), 2).astype(np.int32)
    return AssetMesh(vertices, faces, owner, tuple(materials), **more)


@pytest.fixture
def make_sheets():
    return sheets
