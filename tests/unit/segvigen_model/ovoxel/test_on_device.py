"""The torch conversion is the compiled one's twin, bit by bit where a CPU runs both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model import segmenter
from segvigen_model.datasets.procedural import CATEGORIES, make_asset
from segvigen_model.errors import AssetRejected
from segvigen_model.ovoxel import mesh_to_ovoxel
from segvigen_model.ovoxel.attributes import Surface
from segvigen_model.ovoxel.convert import voxelise
from segvigen_model.ovoxel.on_device import convert as on_device
from segvigen_model.types import AssetMesh, Material

CPU = torch.device("cpu")


def texture(seed, side, channels):
    shape = (side, side, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def materials():
    """Every kind: plain, cut out, see-through, with all four textures, factors only."""
    return (
        Material(base_color_factor=(0.2, 0.4, 0.6, 0.3), metallic_factor=0.3),
        Material(
            base_color_texture=texture(0, 16, 4),
            alpha_mode="MASK",
            alpha_cutoff=0.4,
            emissive_factor=(0.5, 1.0, 0.1),
        ),
        Material(
            base_color_texture=texture(1, 64, 4),
            metallic_roughness_texture=texture(2, 32, 3),
            emissive_texture=texture(3, 8, 3),
            normal_texture=texture(4, 128, 3),
            alpha_mode="BLEND",
            emissive_factor=(1.0, 1.0, 1.0),
        ),
        Material(normal_texture=texture(5, 1, 3)),
    )


def soup(seed, count, *, is_on_lattice=False):
    """Triangles of all sizes that share some edges, with everything a surface may carry."""
    rng = np.random.default_rng(seed)
    vertices = rng.uniform(-1, 1, (count + 2, 3)) * rng.choice([0.05, 0.4, 1.0], (count + 2, 1))
    if is_on_lattice:
        vertices = np.round(vertices * 8) / 8
    faces = np.stack([np.arange(count), np.arange(count) + 1, rng.permutation(count) + 2], axis=1)
    kinds = materials()
    return AssetMesh(
        vertices=vertices,
        faces=faces,
        face_material=rng.integers(0, len(kinds), count).astype(np.int32),
        materials=kinds,
        corner_uv=rng.uniform(-2, 2, (count, 3, 2)).astype(np.float32),
        vertex_colors=rng.integers(0, 256, (count + 2, 4), dtype=np.uint8),
        vertex_normals=rng.normal(size=(count + 2, 3)).astype(np.float32),
    )


def assert_same(one, other):
    for name in ("coords", "intersected", "dual", "base_color", "metallic", "roughness"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("alpha", "emissive", "normal"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.dual.dtype == other.dual.dtype and one.coords.dtype == other.coords.dtype


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(2, 40), st.booleans())
def test_any_triangles_give_the_same_voxels(seed, count, grid, is_on_lattice):
    mesh = soup(seed, count, is_on_lattice=is_on_lattice)
    try:
        wanted = mesh_to_ovoxel(mesh, grid)
    except AssetRejected as err:
        with pytest.raises(AssetRejected) as caught:
            mesh_to_ovoxel(mesh, grid, backend="torch")
        assert caught.value.args == err.args
        return
    assert_same(mesh_to_ovoxel(mesh, grid, backend="torch"), wanted)


@pytest.mark.parametrize("category", CATEGORIES[:3])
def test_whole_objects_give_the_same_voxels(category):
    mesh = make_asset(category, 1).mesh
    assert_same(mesh_to_ovoxel(mesh, 64, backend="torch"), mesh_to_ovoxel(mesh, 64))


def test_open_and_closed_solids_give_the_same_voxels(to_asset):
    box = trimesh.creation.box()
    for faces in (box.faces, box.faces[2:], box.faces[:1]):
        mesh = to_asset(trimesh.Trimesh(box.vertices, faces, process=False))
        assert_same(mesh_to_ovoxel(mesh, 48, backend="torch"), mesh_to_ovoxel(mesh, 48))


@pytest.mark.parametrize("budget", [8, 57, 1000])
def test_slicing_changes_no_bit(budget):
    """One triangle may be spread over many slices, and one voxel's sums too."""
    mesh, grid = soup(3, 12), 16
    triangles = (mesh.triangles * 0.45 + 0.5) * grid
    surface = Surface(
        triangles=triangles,
        normals=mesh.vertex_normals[mesh.faces],
        uvs=mesh.corner_uv,
        colors=np.ones((1, 3, 4), dtype=np.float32),
        material=mesh.face_material,
    )
    wanted = voxelise(surface, mesh.faces, mesh.materials, grid)
    found = on_device.voxelise(surface, mesh.faces, mesh.materials, grid, device=CPU, budget=budget)
    for one, other in zip(found[:3], wanted[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    for name, values in wanted.attributes.items():
        np.testing.assert_array_equal(found.attributes[name], values, err_msg=name)


def test_refusals_are_the_same(to_asset, sphere):
    line = trimesh.Trimesh(np.eye(3) * [1, 1e-9, 1e-9], [[0, 1, 2]], process=False)
    with pytest.raises(AssetRejected) as caught:
        mesh_to_ovoxel(to_asset(line), 16, backend="torch")
    assert caught.value.reason == "degenerate"
    with pytest.raises(ValueError, match=r"grid 1025 is not in 1\.\.1024"):
        mesh_to_ovoxel(sphere, 1025, backend="torch")
    triangles = np.tile(np.array([[[0, 0, 0], [64, 1, 64], [1, 64, 60]]], dtype=float), (50, 1, 1))
    flat = np.zeros((50, 3, 3), dtype=np.float32)
    surface = Surface(triangles, flat, flat[..., :2], flat, np.zeros(50, dtype=np.int32))
    faces = np.arange(150).reshape(-1, 3)
    with pytest.raises(
        AssetRejected, match="crosses a 64\\^3 grid more than 10000 times"
    ) as caught:
        on_device.voxelise(surface, faces, (Material(),), 64, device=CPU, max_crossings=10_000)
    assert caught.value.reason == "too_dense"


def test_a_device_without_compiled_kernels_is_given_to_torch(sphere, monkeypatch):
    requested = []

    def note(*_args, device):
        requested.append(device)
        raise AssetRejected("seen", "no such device here")

    monkeypatch.setattr(on_device, "voxelise", note)
    with pytest.raises(AssetRejected, match="seen"):
        mesh_to_ovoxel(sphere, 8, device="cuda:1")
    assert requested == [torch.device("cuda:1")]


def test_the_largest_grid_gives_the_same_voxels(to_asset):
    stick = to_asset(trimesh.creation.box((1.0, 0.004, 0.004)))
    wanted = mesh_to_ovoxel(stick, 1024)
    assert wanted.coords.max() == 1023
    assert_same(mesh_to_ovoxel(stick, 1024, backend="torch"), wanted)


def test_an_asset_is_converted_where_its_model_computes(tiny_model, sphere, monkeypatch):
    requested = []

    def note(mesh, grid, device):
        requested.append((grid, device))
        return mesh_to_ovoxel(mesh, grid, device)

    monkeypatch.setattr(segmenter, "mesh_to_ovoxel", note)
    segmenter.Segmenter(tiny_model).encode(sphere)
    assert requested == [(tiny_model.config.grid, tiny_model.device)]
