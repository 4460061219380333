"""Primitives of glTF: shared vertices, component types, second texture coordinates, materials."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes

TRIANGLE = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_shared_vertices_are_read_and_counted_once(gltf):
    side, parts = 40, 20
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    positions = gltf.accessor(np.column_stack([grid, np.zeros(len(grid))]))
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    faces = np.concatenate([
        np.column_stack([corner, corner + 1, corner + side]),
        np.column_stack([corner + 1, corner + side + 1, corner + side]),
    ])  # fmt: skip
    primitives = [
        {"attributes": {"POSITION": positions}, "indices": gltf.accessor(rows.ravel(), "u2")}
        for rows in np.array_split(faces, parts)
    ]
    gltf.header["meshes"] = [{"primitives": primitives}]
    gltf.place({"mesh": 0})
    limits = MeshLimits(max_vertices=2 * 3 * len(faces))
    assert limits.max_vertices < parts * len(grid)
    mesh = mesh_from_bytes(gltf.glb(), "glb", limits=limits)
    np.testing.assert_array_equal(
        mesh.triangles[:, :, :2], grid[np.concatenate(np.array_split(faces, parts))]
    )
    assert len(mesh.vertices) < 3 * len(faces) and mesh.is_vertex_used.all()
    with pytest.raises(AssetRejected, match="too_many_vertices"):
        mesh_from_bytes(gltf.glb(), "glb", limits=MeshLimits(max_vertices=len(grid) - 1))


@pytest.mark.parametrize(
    ("kind", "is_normalized", "expected"),
    [("i1", False, 100), ("u1", False, 100), ("i2", False, 100), ("u2", False, 100),
     ("f4", False, 100), ("i1", True, 100 / 127), ("u1", True, 100 / 255),
     ("i2", True, 100 / 32767), ("u2", True, 100 / 65535)],
)  # fmt: skip
def test_component_types_of_positions(gltf, kind, is_normalized, expected):
    extra = {"normalized": True} if is_normalized else {}
    gltf.mesh(attributes={"POSITION": gltf.accessor(np.array(TRIANGLE) * 100, kind, **extra)})
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert mesh.vertices.max() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["u1", "u2", "u4"])
def test_component_types_of_indices(gltf, kind):
    gltf.triangle(TRIANGLE, indices=gltf.accessor([2, 1, 0], kind))
    assert mesh_from_bytes(gltf.glb(), "glb").faces.tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("kind", ["i2", "f4"])
def test_indices_that_are_no_whole_numbers(gltf, kind):
    gltf.triangle(TRIANGLE, indices=gltf.accessor([2, 1, 0], kind))
    with pytest.raises(AssetRejected, match="indices"):
        mesh_from_bytes(gltf.glb(), "glb")


@pytest.mark.parametrize(
    ("kind", "top", "extra"),
    [("f4", 1, {}), ("u1", 255, {"normalized": True}), ("u2", 65535, {"normalized": True}),
     ("u1", 255, {}), ("u2", 65535, {})],
)  # fmt: skip
@pytest.mark.parametrize("width", [3, 4])
def test_vertex_colours_of_all_types(gltf, kind, top, extra, width):
    rows = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]])[:, :width] * top
    colors = gltf.accessor(rows, kind, **extra)
    gltf.mesh(attributes={"POSITION": gltf.accessor(TRIANGLE), "COLOR_0": colors})
    found = mesh_from_bytes(gltf.glb(), "glb").vertex_colors
    alpha = [255, 0 if width == 4 else 255, 255]
    assert found[:, :3].tolist() == (np.eye(3, dtype=int) * 255).tolist()
    assert found[:, 3].tolist() == alpha


def test_interleaved_attributes(gltf):
    rows = np.zeros(3, dtype=[("p", "<f4", 3), ("n", "i1", 3), ("pad", "u1"), ("uv", "<u2", 2)])
    rows["p"], rows["n"], rows["uv"] = TRIANGLE, [0, 0, 127], [[0, 0], [65535, 0], [0, 65535]]
    view = gltf.view(rows.tobytes())
    gltf.header["bufferViews"][view]["byteStride"] = rows.itemsize
    layout = ((0, 5126, "VEC3", False), (12, 5120, "VEC3", True), (16, 5123, "VEC2", True))
    for offset, component, shape, is_normalized in layout:
        gltf.header["accessors"].append({
            "bufferView": view, "byteOffset": offset, "componentType": component, "count": 3,
            "type": shape, "normalized": is_normalized,
        })  # fmt: skip
    gltf.mesh(attributes={"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2})
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert mesh.triangles[0].tolist() == TRIANGLE
    assert mesh.vertex_normals.tolist() == [[0, 0, 1]] * 3
    assert mesh.corner_uv[0].tolist() == [[0, 0], [1, 0], [0, 1]]
    gltf.header["bufferViews"][view]["byteStride"] = rows.itemsize + 4
    with pytest.raises(AssetRejected, match="truncated"):
        mesh_from_bytes(gltf.glb(), "glb")


def test_sparse_values_without_a_base(gltf):
    where, what = gltf.view(b"\x01\x02"), gltf.view(np.float32([1, 0, 0, 0, 1, 0]).tobytes())
    sparse = {"count": 2, "indices": {"bufferView": where, "componentType": 5121},
              "values": {"bufferView": what}}  # fmt: skip
    accessor = {"componentType": 5126, "count": 3, "type": "VEC3", "sparse": sparse}
    gltf.header["accessors"].append(accessor)
    gltf.mesh(attributes={"POSITION": 0})
    assert mesh_from_bytes(gltf.glb(), "glb").triangles[0].tolist() == TRIANGLE
    accessor["count"] = 2
    with pytest.raises(AssetRejected, match="outside its range"):
        mesh_from_bytes(gltf.glb(), "glb")
    sparse["indices"]["componentType"] = 5120
    with pytest.raises(AssetRejected, match="not whole numbers"):
        mesh_from_bytes(gltf.glb(), "glb")


def test_the_colours_texture_coordinates_lead(gltf, png):
    material = gltf.texture(png())
    entry = gltf.header["materials"][material]
    entry["pbrMetallicRoughness"]["baseColorTexture"]["texCoord"] = 1
    entry["normalTexture"] = {"index": 0}
    gltf.mesh(material=material, attributes={
        "POSITION": gltf.accessor(TRIANGLE),
        "TEXCOORD_0": gltf.accessor(np.full((3, 2), 0.5)),
        "TEXCOORD_1": gltf.accessor([[0, 0], [1, 0], [0, 1]]),
    })  # fmt: skip
    assert mesh_from_bytes(gltf.glb(), "glb").corner_uv[0].tolist() == [[0, 0], [1, 0], [0, 1]]


def test_a_turned_texture_shows_the_standards_quarter(gltf, png):
    # The extension's own example: the lower left quarter of the image, turned clockwise.
    material = gltf.texture(png())
    info = gltf.header["materials"][material]["pbrMetallicRoughness"]["baseColorTexture"]
    transform = {"offset": [0, 1], "rotation": np.pi / 2, "scale": [0.5, 0.5]}
    info["extensions"] = {"KHR_texture_transform": transform}
    uv = gltf.accessor([[0, 0], [1, 0], [0, 1]])
    gltf.mesh(material=material, attributes={"POSITION": gltf.accessor(TRIANGLE), "TEXCOORD_0": uv})
    found = mesh_from_bytes(gltf.glb(), "glb").corner_uv[0]
    assert np.allclose(found, [[0, 1], [0, 0.5], [0.5, 1]], atol=1e-6)


def test_specular_glossiness_becomes_metallic_roughness(gltf, png):
    gltf.texture(png(color=(1, 2, 3)))
    gloss = {"diffuseFactor": [0.5, 0.25, 1, 0.5], "glossinessFactor": 0.75,
             "diffuseTexture": {"index": 0}}  # fmt: skip
    gltf.header["materials"] = [{"extensions": {"KHR_materials_pbrSpecularGlossiness": gloss}}]
    gltf.header["extensionsRequired"] = ["KHR_materials_pbrSpecularGlossiness"]
    gltf.box(material=0)
    (material,) = mesh_from_bytes(gltf.glb(), "glb").materials
    assert material.base_color_factor == (0.5, 0.25, 1, 0.5)
    assert (material.metallic_factor, material.roughness_factor) == (0, 0.25)
    assert material.base_color_texture[0, 0].tolist() == [1, 2, 3, 255]


def test_many_nodes_and_materials(gltf):
    count = 3000
    positions = gltf.accessor(TRIANGLE)
    attributes = {"POSITION": positions}
    gltf.header["meshes"] = [
        {"primitives": [{"attributes": attributes, "material": number}]} for number in range(count)
    ]
    gltf.header["materials"] = [
        {"pbrMetallicRoughness": {"baseColorFactor": [number / count, 0, 0, 1]}}
        for number in range(count)
    ]
    gltf.place(*({"mesh": n, "translation": [n, 0, 0]} for n in range(count)))
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert (mesh.num_faces, len(mesh.materials)) == (count, count)
    assert mesh.triangles[:, 0, 0].tolist() == list(range(count))
    reds = [mesh.materials[m].base_color_factor[0] for m in mesh.face_material]
    assert reds == [number / count for number in range(count)]


def test_a_file_with_bytes_missing_anywhere_is_refused(gltf, png):
    gltf.box(
        material=gltf.texture(png()), attributes={"TEXCOORD_0": gltf.accessor(np.ones((8, 2)))}
    )
    data = gltf.glb()
    assert mesh_from_bytes(data, "glb").num_faces == 12
    for end in range(0, len(data), 7):
        with pytest.raises(AssetRejected) as caught:
            mesh_from_bytes(data[:end], "glb")
        assert caught.value.reason in ("truncated", "empty_file"), end
