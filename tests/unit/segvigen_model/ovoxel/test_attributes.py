from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.ovoxel import mesh_to_ovoxel
from segvigen_model.ovoxel.textures import build_mip_chain, pack_materials, resize_to_power_of_two
from segvigen_model.types import Material


def solid(color, side=8):
    return np.broadcast_to(np.array(color, dtype=np.uint8), (side, side, len(color))).copy()


@pytest.mark.parametrize("value", [0, 255])
def test_pure_black_and_white_stay_pure(plane, value):
    texture = solid([value, value, value, 255], side=64)
    found = mesh_to_ovoxel(plane(Material(base_color_texture=texture)), 48)
    assert (found.base_color == value).all()
    assert (
        mesh_to_ovoxel(plane(Material(base_color_factor=(1, 1, 1, 1))), 48).base_color == 255
    ).all()


def test_factors_multiply_textures(plane):
    material = Material(
        base_color_factor=(0.5, 1.0, 0.2, 0.5),
        metallic_factor=0.5,
        roughness_factor=0.25,
        emissive_factor=(1.0, 0.5, 0.0),
        base_color_texture=solid([200, 100, 50, 128]),
        metallic_roughness_texture=solid([0, 200, 100]),
        emissive_texture=solid([100, 100, 100]),
        alpha_mode="BLEND",
    )
    found = mesh_to_ovoxel(plane(material), 16)

    def near(values, goal):
        return np.abs(values.astype(float) - goal).max() <= 1.5

    assert near(found.base_color, [100, 100, 10])
    assert near(found.metallic, 50) and near(found.roughness, 50)
    assert near(found.emissive, [100, 50, 0])
    assert near(found.alpha, 64)


@pytest.mark.parametrize(
    ("mode", "texel", "goal"),
    [("OPAQUE", 10, 255), ("MASK", 101, 0), ("MASK", 102, 255), ("BLEND", 102, 102)],
)
def test_alpha_modes(plane, mode, texel, goal):
    material = Material(
        base_color_texture=solid([1, 2, 3, texel]), alpha_mode=mode, alpha_cutoff=0.4
    )
    assert np.abs(mesh_to_ovoxel(plane(material), 16).alpha.astype(int) - goal).max() <= 1


def test_texture_lands_where_it_belongs(plane):
    """Left half red, right half blue; top half of the image (v = 0) lies at y = +1."""
    texture = solid([255, 0, 0, 255], side=64)
    texture[:, 32:] = [0, 0, 255, 255]
    texture[:32, :, 1] = 255
    found = mesh_to_ovoxel(plane(Material(base_color_texture=texture)), 32)
    x, y = found.coords[:, 0], found.coords[:, 1]
    inner = (
        (np.abs(x - 15.5) > 2)
        & (np.abs(y - 15.5) > 2)
        & (np.minimum(x, y) > 1)
        & (np.maximum(x, y) < 30)
    )
    left, top = x < 16, y > 16
    assert (found.base_color[inner & left, 0] == 255).all()
    assert (found.base_color[inner & ~left, 2] == 255).all()
    assert (found.base_color[inner & top, 1] == 255).all()
    assert (found.base_color[inner & ~top, 1] == 0).all()


def test_far_textures_are_averaged_by_mips(plane):
    texture = np.zeros((256, 256, 4), dtype=np.uint8)
    texture[::2, ::2] = texture[1::2, 1::2] = 255
    found = mesh_to_ovoxel(plane(Material(base_color_texture=texture)), 16)
    assert np.abs(found.base_color.astype(int) - 127).max() <= 1


def test_texture_coordinates_repeat(plane):
    texture = solid([0, 0, 0, 255], side=64)
    texture[:, :32, 0] = 255
    once = mesh_to_ovoxel(plane(Material(base_color_texture=texture)), 64)
    twice = mesh_to_ovoxel(plane(Material(base_color_texture=texture), scale=2.0), 64)
    share = [np.mean(found.base_color[:, 0] > 127) for found in (once, twice)]
    assert share[0] == pytest.approx(share[1], abs=0.05)
    row = twice.base_color[twice.coords[:, 1] == 20]
    assert (np.diff((row[:, 0] > 127).astype(int)) != 0).sum() >= 3


def test_vertex_colours_tint(plane):
    colors = np.array([[255, 0, 0, 255]] * 2 + [[0, 0, 255, 255]] * 2, dtype=np.uint8)
    found = mesh_to_ovoxel(plane(Material(), vertex_colors=colors), 32)
    low, high = found.coords[:, 1] < 4, found.coords[:, 1] > 27
    assert found.base_color[low, 0].min() > 200 and found.base_color[high, 2].min() > 200
    assert (found.base_color[:, 1] == 0).all()


def test_normals_from_vertices_from_faces_and_through_a_map(plane):
    flat = mesh_to_ovoxel(plane(), 16)
    assert np.abs(flat.normal.astype(int) - [127, 127, 255]).max() <= 1
    smooth = np.tile(np.array([[1, 0, 0]], dtype=np.float32), (4, 1))
    assert (
        np.abs(mesh_to_ovoxel(plane(vertex_normals=smooth), 16).normal - [255.0, 127, 127]).max()
        <= 1
    )
    # A map that leans fully along +u: u grows with x here.
    leaning = plane(Material(normal_texture=solid([255, 128, 128])))
    normal = mesh_to_ovoxel(leaning, 16).normal
    assert normal[:, 0].min() > 250 and np.abs(normal[:, 2].astype(int) - 128).max() <= 2


def test_materials_by_face(plane):
    red = Material(base_color_factor=(1, 0, 0, 1))
    blue = Material(base_color_factor=(0, 0, 1, 1))
    mesh = plane(face_material=np.array([0, 1], dtype=np.int32), materials=(red, blue))
    found = mesh_to_ovoxel(mesh, 32)
    x, y = found.coords[:, 0], found.coords[:, 1]
    assert (found.base_color[x - y > 3] == [255, 0, 0]).all()
    assert (found.base_color[y - x > 3] == [0, 0, 255]).all()


def test_textures_become_squares_with_integer_mips():
    texture = np.arange(5 * 3 * 4, dtype=np.uint8).reshape(5, 3, 4)
    assert resize_to_power_of_two(texture).shape == (8, 8, 4)
    assert resize_to_power_of_two(texture[:1, :1]).shape == (1, 1, 4)
    huge = np.zeros((2, 5000, 3), dtype=np.uint8)
    assert resize_to_power_of_two(huge).shape == (2048, 2048, 3)
    chain = build_mip_chain(np.array([[[1], [2]], [[2], [2]]], dtype=np.uint8))
    assert [level.shape for level in chain] == [(2, 2, 1), (1, 1, 1)]
    assert chain[1].item() == 1, "cut off, not rounded"
    shared = solid([1, 2, 3, 4])
    packed = pack_materials([Material(base_color_texture=shared)] * 3)
    assert packed.slots[:, 0].tolist() == [0, 0, 0]
    assert len(packed.texels) == 4 * (64 + 16 + 4 + 1)
