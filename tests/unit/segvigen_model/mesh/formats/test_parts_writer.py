"""Parts as GLB nodes: names, ids, colours, materials, texture coordinates, exact places."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segvigen_model.datasets.procedural import make_asset
from segvigen_model.mesh.formats.glb_blob import choose_origin
from segvigen_model.mesh.io import make_part_colors, mesh_from_bytes, mesh_to_glb, parts_to_glb
from segvigen_model.types import AssetMesh, Material


def read_header(data: bytes) -> dict:
    (size,) = struct.unpack("<I", data[12:16])
    return json.loads(data[20 : 20 + size])


@pytest.fixture(scope="module")
def painted_chair() -> tuple[AssetMesh, np.ndarray]:
    """A textured object in two materials, and parts that cross them."""
    made = make_asset("chair", 1, textured=True)
    texture = np.zeros((2, 2, 4), np.uint8)
    texture[..., 3] = 255
    second = Material("second", base_color_texture=texture)
    mesh = replace(
        made.mesh,
        vertices=made.mesh.vertices.astype(np.float32).astype(np.float64),
        materials=(made.mesh.materials[0], second),
        face_material=(np.arange(made.mesh.num_faces) % 2).astype(np.int32),
        corner_uv=np.random.default_rng(1).random((made.mesh.num_faces, 3, 2)).astype(np.float32),
    )
    return mesh, (np.arange(mesh.num_faces) // 7 % 5).astype(np.int32)


def describe_faces(mesh: AssetMesh) -> list[tuple]:
    """What a face is whatever its place in the file."""
    texels = [
        None if m.base_color_texture is None else m.base_color_texture.tobytes()
        for m in mesh.materials
    ]
    uv = np.zeros((mesh.num_faces, 3, 2)) if mesh.corner_uv is None else mesh.corner_uv
    return sorted(
        (
            *mesh.triangles[face].ravel().tolist(),
            *uv[face].ravel().tolist(),
            mesh.materials[mesh.face_material[face]].name,
            mesh.materials[mesh.face_material[face]].base_color_factor,
            str(hash(texels[mesh.face_material[face]])),
        )
        for face in range(mesh.num_faces)
    )


def test_faces_uvs_and_materials_come_back(painted_chair):
    mesh, labels = painted_chair
    data = parts_to_glb(mesh, labels, make_part_colors(5), is_painted=False)
    again = mesh_from_bytes(data, "glb")
    assert describe_faces(again) == describe_faces(mesh)
    assert [m.name for m in again.materials if not m.name.startswith("part ")] == [
        m.name for m in mesh.materials
    ]


def test_each_part_is_a_node_with_name_id_and_colour(painted_chair):
    mesh, labels = painted_chair
    names = ("seat", "", "back <b>", "\ud800", "leg")
    for is_painted in (True, False):
        data = parts_to_glb(mesh, labels, make_part_colors(5), names, is_painted=is_painted)
        nodes = read_header(data)["nodes"]
        assert [node["name"] for node in nodes] == ["seat", "part 1", "back <b>", "\ud800", "leg"]
        assert [node["extras"]["part"] for node in nodes] == [0, 1, 2, 3, 4]
        assert [node["extras"]["name"] for node in nodes] == list(names)
        wanted = ["#" + bytes(color).hex() for color in make_part_colors(5)]
        assert [node["extras"]["color"] for node in nodes] == wanted


def test_both_looks_are_in_one_file_as_variants(painted_chair):
    mesh, labels = painted_chair
    header = read_header(parts_to_glb(mesh, labels, make_part_colors(5), is_painted=False))
    variants = header["extensions"]["KHR_materials_variants"]["variants"]
    assert [row["name"] for row in variants] == ["source", "parts"]
    for part, entry in enumerate(header["meshes"]):
        for primitive in entry["primitives"]:
            source, painted = primitive["extensions"]["KHR_materials_variants"]["mappings"]
            assert source["material"] == primitive["material"] < len(mesh.materials)
            assert header["materials"][painted["material"]]["name"] == f"part {part}"


def test_names_fit_the_parts(painted_chair):
    mesh, labels = painted_chair
    with pytest.raises(ValueError, match="2 names for 5 parts"):
        parts_to_glb(mesh, labels, make_part_colors(5), ("a", "b"))


@pytest.mark.parametrize("is_painted", [True, False])
def test_map_coordinates_keep_their_millimetres(painted_chair, is_painted):
    mesh, labels = painted_chair
    place = np.array([4_500_000.123, 10.0, 512_345.678])
    far = replace(mesh, vertices=mesh.vertices + place)
    again = mesh_from_bytes(
        parts_to_glb(far, labels, make_part_colors(5), is_painted=is_painted), "glb"
    )
    key = np.lexsort(again.triangles.reshape(-1, 9).round(4).T)
    wanted = far.triangles.reshape(-1, 9)
    wanted = wanted[np.lexsort(wanted.round(4).T)]
    gap = np.abs(again.triangles.reshape(-1, 9)[key] - wanted)
    assert gap.max() < 1e-6 < np.abs(far.vertices.astype(np.float32) - far.vertices).max()
    plain = mesh_from_bytes(mesh_to_glb(far), "glb")
    assert np.abs(plain.triangles - far.triangles).max() < 1e-6


def test_float32_coordinates_are_written_as_they_are(painted_chair):
    mesh, labels = painted_chair
    data = parts_to_glb(mesh, labels, make_part_colors(5), is_painted=False)
    assert not any("translation" in node for node in read_header(data)["nodes"])


@given(
    place=st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3),
    size=st.floats(1e-6, 1e4),
    seed=st.integers(0, 99),
)
def test_no_vertex_is_further_off_than_float32_of_its_own_size(place, size, seed):
    vertices = np.array(place) + size * np.random.default_rng(seed).random((20, 3))
    origin = choose_origin(vertices)
    written = (vertices - origin).astype(np.float32).astype(np.float64) + origin
    extent = float(np.ptp(vertices, axis=0).max())
    noise = np.spacing(np.abs(vertices).max())  # of the double coordinates themselves
    assert np.abs(written - vertices).max() <= 2.0**-22 * extent + 2 * noise
