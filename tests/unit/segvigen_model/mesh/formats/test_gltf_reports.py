"""Kinds of faults that users of other glTF readers reported; each report is named at its test."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.io import mesh_from_bytes

TRIANGLE = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


def read(gltf):
    return mesh_from_bytes(gltf.glb(), "glb")


def make_chunks(gltf, *chunks):
    """A GLB of the JSON and these (kind, bytes) chunks."""
    text = json.dumps(gltf.header).encode()
    text += b" " * (-len(text) % 4)
    body = b"".join(
        struct.pack("<II", len(data), kind) + data for kind, data in ((0x4E4F534A, text), *chunks)
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


BIN = 0x004E4942


def test_chunks_of_a_glb(gltf):
    # tinygltf 372 and 382, gltflib 1 and 37, zgltf 21, cesium-native 868, cgltf 38
    gltf.box()
    gltf.header["buffers"] = [{"byteLength": len(gltf.blob)}]
    whole = (BIN, gltf.blob)
    assert mesh_from_bytes(make_chunks(gltf, whole), "glb").num_faces == 12
    assert mesh_from_bytes(make_chunks(gltf, (0x12345678, b"vend"), whole), "glb").num_faces == 12
    assert mesh_from_bytes(make_chunks(gltf, (BIN, gltf.blob + bytes(40))), "glb").num_faces == 12
    assert mesh_from_bytes(make_chunks(gltf, whole) + b"trailing", "glb").num_faces == 12
    for chunks, reason in (
        ([(BIN, gltf.blob[:-20])], "truncated"), ([(BIN, b"")], "truncated"), ([], "unreadable"),
    ):  # fmt: skip
        with pytest.raises(AssetRejected) as caught:
            mesh_from_bytes(make_chunks(gltf, *chunks), "glb")
        assert caught.value.reason == reason


def test_an_inline_buffer_in_a_glb_beside_an_empty_binary_chunk(gltf):
    # tinygltf 79
    gltf.box()
    uri = "data:application/octet-stream;base64," + base64.b64encode(gltf.blob).decode()
    gltf.header["buffers"] = [{"byteLength": len(gltf.blob), "uri": uri}]
    assert mesh_from_bytes(make_chunks(gltf), "glb").num_faces == 12
    assert mesh_from_bytes(make_chunks(gltf, (BIN, b"")), "glb").num_faces == 12


@pytest.mark.parametrize(("kind", "top"), [("u1", 255), ("u2", 65535), ("f4", 1)])
def test_weights_of_all_types_and_a_second_set(gltf, kind, top):
    # assimp 4178, 6130 and 6740
    extra = {} if kind == "f4" else {"normalized": True}
    half = np.zeros((3, 4))
    half[:, 0] = 0.5
    weights = gltf.accessor(np.floor(half * top + 0.5) if kind != "f4" else half, kind, **extra)
    first, second = gltf.accessor(np.zeros((3, 4)), "u1"), gltf.accessor(np.ones((3, 4)), "u2")
    gltf.mesh(attributes={
        "POSITION": gltf.accessor(TRIANGLE), "JOINTS_0": first, "WEIGHTS_0": weights,
        "JOINTS_1": second, "WEIGHTS_1": weights,
    })  # fmt: skip
    gltf.header["skins"] = [{"joints": [1, 2]}]
    gltf.place({"mesh": 0, "skin": 0}, {"translation": [2, 0, 0]}, {"translation": [0, 4, 0]})
    assert np.allclose(read(gltf).triangles[0], np.add(TRIANGLE, [1, 2, 0]), atol=1e-6)


def test_morph_targets_interleaved_zero_filled_and_sparse(gltf):
    # three-gltf-viewer 56, three.js 24838 and 24999, tinygltf 280, playcanvas 4986
    rows = np.zeros(3, dtype=[("base", "<f4", 3), ("shift", "<f4", 3)])
    rows["base"], rows["shift"] = TRIANGLE, [0, 0, 3]
    view = gltf.view(rows.tobytes())
    gltf.header["bufferViews"][view]["byteStride"] = 24
    plain = {"componentType": 5126, "count": 3, "type": "VEC3"}
    where, what = gltf.view(b"\x01\x00"), gltf.view(np.float32([0, 5, 0]).tobytes())
    sparse = {"count": 1, "indices": {"bufferView": where, "componentType": 5123},
              "values": {"bufferView": what}}  # fmt: skip
    gltf.header["accessors"] = [
        {"bufferView": view} | plain, {"bufferView": view, "byteOffset": 12} | plain,
        dict(plain), {"sparse": sparse} | plain,
    ]  # fmt: skip
    gltf.mesh(attributes={"POSITION": 0}, targets=[{"POSITION": n} for n in (1, 2, 3)])
    gltf.header["meshes"][0]["weights"] = [1, 1, 1]
    assert read(gltf).triangles[0].tolist() == [[0, 0, 3], [1, 5, 3], [0, 1, 3]]


def test_accessors_of_one_view_with_different_counts(gltf):
    # three.js 16989
    rows = np.zeros((6, 4), dtype="<f4")
    rows[:, :3] = np.concatenate([np.array(TRIANGLE), np.add(TRIANGLE, [0, 0, 5])])
    view = gltf.view(rows.tobytes())
    gltf.header["bufferViews"][view]["byteStride"] = 16
    for offset, count in ((0, 6), (48, 3)):
        gltf.header["accessors"].append({
            "bufferView": view, "byteOffset": offset, "componentType": 5126, "count": count,
            "type": "VEC3",
        })  # fmt: skip
    gltf.mesh(attributes={"POSITION": 0})
    gltf.mesh(attributes={"POSITION": 1})
    gltf.place({"mesh": 0}, {"mesh": 1})
    mesh = read(gltf)
    assert mesh.num_faces == 3 and mesh.triangles[2].tolist() == mesh.triangles[1].tolist()


def test_an_attribute_that_is_left_empty_is_none(gltf):
    # assimp 2099
    gltf.header["accessors"].append({"componentType": 5126, "count": 0, "type": "VEC2"})
    gltf.mesh(attributes={"POSITION": gltf.accessor(TRIANGLE), "TEXCOORD_0": 0})
    assert read(gltf).corner_uv is None
    gltf.header["accessors"][0]["count"] = 2
    with pytest.raises(AssetRejected, match="TEXCOORD_0 has 2 rows"):
        read(gltf)


def test_quantised_texture_coordinates_with_their_transform(gltf, png):
    # glTFast 439, meshoptimizer's writer
    material = gltf.texture(png())
    info = gltf.header["materials"][material]["pbrMetallicRoughness"]["baseColorTexture"]
    info["extensions"] = {"KHR_texture_transform": {"offset": [-1, 0], "scale": [1 / 4095] * 2}}
    uv = gltf.accessor([[0, 0], [4095, 0], [0, 8190]], "u2")
    gltf.mesh(material=material, attributes={"POSITION": gltf.accessor(TRIANGLE), "TEXCOORD_0": uv})
    assert np.allclose(read(gltf).corner_uv[0], [[-1, 0], [0, 0], [-1, 2]])


def test_normals_below_a_node_that_stretches_and_mirrors(gltf):
    # trimesh 1237
    slope = [[0, 0, 0], [1, 1, 0], [0, 0, 1]]
    normal = np.tile(np.array([-1, 1, 0]) / np.sqrt(2), (3, 1))
    gltf.mesh(attributes={"POSITION": gltf.accessor(slope), "NORMAL": gltf.accessor(normal)})
    gltf.place({"mesh": 0, "scale": [-4, 1, 1]})
    mesh = read(gltf)
    one, two = (
        mesh.triangles[0, 1] - mesh.triangles[0, 0],
        mesh.triangles[0, 2] - mesh.triangles[0, 0],
    )
    assert np.allclose(mesh.vertex_normals @ one, 0, atol=1e-6)
    assert np.allclose(mesh.vertex_normals @ two, 0, atol=1e-6)
    assert mesh.vertex_normals[0, 0] > 0 and mesh.vertex_normals[0, 1] > 0, "still outside"


def test_several_primitives_of_a_mesh_all_count(gltf):
    # trimesh 818, 919 and 1719
    positions = gltf.accessor(TRIANGLE)
    primitives = [{"attributes": {"POSITION": positions}, "material": n % 2} for n in range(5)]
    gltf.header["meshes"] = [{"primitives": primitives}]
    gltf.header["materials"] = [{}, {}]
    mesh = read(gltf)
    assert mesh.num_faces == 5 and mesh.face_material.tolist() == [0, 1, 0, 1, 0]
    assert mesh.geometry_names == tuple(f"mesh_0_{n}" for n in range(5))


def test_nodes_without_a_mesh_and_meshes_that_nobody_draws(gltf):
    # trimesh 2316 and 2125: cameras, lights, empty primitives
    gltf.box()
    gltf.header["meshes"] += [{"primitives": []}, {"primitives": [{"attributes": {}}]}]
    light = {"extensions": {"KHR_lights_punctual": {"light": 0}}}
    gltf.place({"mesh": 0}, {"camera": 0}, light, {"mesh": 1}, {})
    assert read(gltf).num_faces == 12


def test_factors_are_fractions_and_whole_numbers(gltf):
    # trimesh 1971: 1 is white and not 1 / 255
    gltf.header["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 1, 1],
                                                          "metallicFactor": 1}}]  # fmt: skip
    gltf.box(material=0)
    assert read(gltf).materials[0].base_color_factor == (1.0, 0.0, 1.0, 1.0)


def test_an_index_accessor_with_an_offset_of_its_own(gltf):
    # gltf-pipeline, glTF-Transform: several index lists in one view
    view = gltf.view(np.array([9, 9, 9, 0, 1, 2], "<u2").tobytes())
    gltf.header["accessors"].append({"bufferView": view, "byteOffset": 6, "componentType": 5123,
                                     "count": 3, "type": "SCALAR"})  # fmt: skip
    gltf.mesh(attributes={"POSITION": gltf.accessor(TRIANGLE)}, indices=0)
    assert read(gltf).faces.tolist() == [[0, 1, 2]]


def test_an_index_beyond_the_vertices_is_no_crash(gltf):
    # assimp 6634
    gltf.mesh(
        attributes={"POSITION": gltf.accessor(TRIANGLE)}, indices=gltf.accessor([0, 1, 65535], "u2")
    )
    with pytest.raises(AssetRejected, match=r"names vertex 65535 of 3"):
        read(gltf)


def test_one_index_and_other_ends_of_lists(gltf):
    # assimp 6634: lists shorter than a triangle
    positions = gltf.accessor(TRIANGLE)
    for mode, count, faces in ((4, 0, 0), (4, 1, None), (5, 2, 0), (6, 1, 0), (5, 3, 1)):
        index = gltf.accessor(np.arange(3)[:count].reshape(-1), "u2") if count else None
        if index is None:
            gltf.header["accessors"].append({"componentType": 5123, "count": 0, "type": "SCALAR"})
            index = len(gltf.header["accessors"]) - 1
        gltf.header["meshes"] = []
        gltf.mesh(attributes={"POSITION": positions}, indices=index, mode=mode)
        try:
            found = read(gltf).num_faces
        except AssetRejected as err:
            found = 0 if err.reason == "no_faces" else None
        assert found == faces, (mode, count)
