"""O-Voxel conversion on CUDA against the compiled kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from segvigen_model.datasets.procedural import CATEGORIES, make_asset
from segvigen_model.errors import AssetRejected
from segvigen_model.ovoxel import mesh_to_ovoxel
from segvigen_model.types import AssetMesh, Material

DUAL_STEPS, DUAL_SHARE = 2, 0.005  # as in the golden comparison
ATTRIBUTES = ("base_color", "metallic", "roughness", "alpha", "emissive", "normal")


def textured(mesh):
    """Noise in all four texture slots, and a smooth normal per vertex."""
    rng = np.random.default_rng(0)
    faces = np.asarray(mesh.faces, dtype=np.int64)
    maps = [rng.integers(0, 256, (256, 256, channels), dtype=np.uint8) for channels in (4, 3, 3, 3)]
    return AssetMesh(
        vertices=np.asarray(mesh.vertices, dtype=np.float64),
        faces=faces,
        face_material=np.zeros(len(faces), dtype=np.int32),
        materials=(Material("", (1, 1, 1, 1), 1.0, 1.0, (1, 1, 1), "BLEND", 0.5, *maps),),
        corner_uv=np.ascontiguousarray(mesh.vertices[faces][..., :2], dtype=np.float32),
        vertex_normals=np.asarray(mesh.vertex_normals, dtype=np.float32),
    )


def assert_near(found, wanted):
    np.testing.assert_array_equal(found.coords, wanted.coords)
    np.testing.assert_array_equal(found.intersected, wanted.intersected)
    steps = np.abs(found.dual.astype(int) - wanted.dual).max(axis=1)
    assert (steps > DUAL_STEPS).mean() <= DUAL_SHARE
    for name in ATTRIBUTES:
        off = np.abs(getattr(found, name).astype(int) - getattr(wanted, name))
        assert off.max() <= 1, name


@pytest.mark.parametrize("category", CATEGORIES[:3])
def test_conversion_equals_the_compiled_one(device, category):
    mesh = make_asset(category, 1).mesh
    assert_near(mesh_to_ovoxel(mesh, 128, device, "torch"), mesh_to_ovoxel(mesh, 128))


def test_textures_are_sampled_alike_and_every_time_alike(device):
    mesh = textured(trimesh.creation.icosphere(subdivisions=4))
    found = mesh_to_ovoxel(mesh, 128, device, "torch")
    assert_near(found, mesh_to_ovoxel(mesh, 128))
    again = mesh_to_ovoxel(mesh, 128, device, "torch")
    for name in ("dual", *ATTRIBUTES):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name), err_msg=name)


def test_memory_is_bounded_at_large_grids(device):
    if device.type != "cuda":
        pytest.skip("measures CUDA memory")
    mesh = textured(trimesh.creation.icosphere(subdivisions=6))
    torch.cuda.reset_peak_memory_stats(device)
    found = mesh_to_ovoxel(mesh, 512, device)
    assert len(found.coords) > 1_000_000
    assert torch.cuda.max_memory_allocated(device) < 6 << 30


def test_refusals_come_from_the_device_too(device):
    speck = trimesh.Trimesh(np.eye(3) * [1, 1e-9, 1e-9], [[0, 1, 2]], process=False)
    with pytest.raises(AssetRejected) as caught:
        mesh_to_ovoxel(textured(speck), 16, device, "torch")
    assert caught.value.reason == "degenerate"
