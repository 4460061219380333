from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import trimesh

from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.pieces import compute_vertex_normals
from segvigen_model.mesh.io import mesh_from_bytes, mesh_to_glb, parts_to_glb

SHARED = Path(os.environ.get("SEGVIGEN_SHARED", Path(__file__).resolve().parents[6] / "shared"))


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl", "off"])
def test_every_format_gives_trimeshs_faces_in_trimeshs_order(box, suffix):
    data = box.export(file_type=suffix)
    data = data.encode() if isinstance(data, str) else data
    mesh = mesh_from_bytes(data, "." + suffix.upper())
    expected = trimesh.load(io.BytesIO(data), file_type=suffix, force="scene").to_geometry()
    np.testing.assert_allclose(mesh.triangles, expected.triangles, atol=1e-6)
    assert mesh.num_faces == 12 and len(mesh.materials) == 1
    assert mesh.vertex_normals.shape == mesh.vertices.shape


def test_ascii_ply_and_stl_and_polygons():
    ply = (
        "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\n"
        "property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
        "0 0 0 255 0 0\n1 0 0 255 0 0\n1 1 0 0 255 0\n0 1 0 0 255 0\n4 0 1 2 3\n"
    )
    mesh = mesh_from_bytes(ply.encode(), "ply")
    assert mesh.num_faces == 2
    assert mesh.vertex_colors[:, :3].tolist() == [[255, 0, 0]] * 2 + [[0, 255, 0]] * 2
    stl = trimesh.creation.box().export(file_type="stl_ascii")
    assert mesh_from_bytes(stl.encode(), "stl").num_faces == 12
    obj = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 2 0\nf 1 2 3 4 5\nf 1 2 3\n"
    assert mesh_from_bytes(obj.encode(), "obj").num_faces == 4


def test_face_colours_keep_face_rows():
    mesh = trimesh.creation.box()
    mesh.visual.face_colors = [[i * 20, 0, 0, 255] for i in range(12)]
    loaded = mesh_from_bytes(mesh.export(file_type="ply"), "ply")
    np.testing.assert_allclose(loaded.triangles, mesh.triangles, atol=1e-6)
    assert loaded.vertex_colors[loaded.faces][:, 0, 0].tolist() == [i * 20 for i in range(12)]


def test_obj_with_material_and_texture_options(png):
    obj = b"mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\n"
    obj += b"f 1/1 2/2 3/3\n"
    mtl = b"newmtl m\nKd 0.5 0.5 1\nNs 30\nmap_Kd -s 1 1 1 -clamp on my tex.png\n"
    mesh = mesh_from_bytes(obj, "obj", side_files={"./a.mtl": mtl, "my tex.png": png()})
    (material,) = mesh.materials
    assert material.base_color_texture.shape == (2, 4, 4)
    assert material.base_color_factor == pytest.approx((0.5, 0.5, 1, 1), abs=0.01)
    assert mesh.corner_uv[0].tolist() == [[0, 1], [1, 1], [0, 0]], "v points down"


def test_obj_without_its_material_loads_plain_when_allowed(caplog):
    obj = b"mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    mesh = mesh_from_bytes(obj, "obj", limits=MeshLimits(is_side_file_required=False))
    assert mesh.num_faces == 1
    assert "gone.mtl" in caplog.text


def test_scene_transforms_instances_and_order(gltf):
    gltf.triangle()
    gltf.triangle(((0, 0, 5), (1, 0, 5), (0, 1, 5)))
    turn = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]  # a quarter turn about z
    gltf.header["scenes"] = [{"nodes": [0, 3]}]
    gltf.header["nodes"] = [
        {"translation": [10, 0, 0], "children": [1, 2]},
        {"mesh": 0, "scale": [-1, 1, 1]},
        {"mesh": 1, "rotation": turn, "scale": [2, 2, 2]},
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 7, 0, 1]},
    ]
    data = gltf.glb()
    mesh = mesh_from_bytes(data, "glb")
    expected = trimesh.load(io.BytesIO(data), file_type="glb", force="scene").to_geometry()
    np.testing.assert_allclose(mesh.triangles, expected.triangles, atol=1e-6)
    assert mesh.face_geometry.tolist() == [0, 1, 2]
    assert mesh.triangles[0, 0].tolist() == [0, 7, 0], "the last root comes first"
    # A mirrored instance is turned, so that it still faces the same side of the world.
    normals = np.cross(mesh.triangles[:, 1] - mesh.triangles[:, 0],
                       mesh.triangles[:, 2] - mesh.triangles[:, 0])  # fmt: skip
    assert (normals[:, 2] > 0).all()
    assert (mesh.vertex_normals[:, 2] > 0.99).all()


def test_strips_fans_and_quantised_positions(gltf):
    positions = gltf.accessor(
        [[0, 0, 0], [127, 0, 0], [0, 127, 0], [-127, 127, 0]], "i1", normalized=True
    )
    gltf.mesh(attributes={"POSITION": positions}, mode=5)
    gltf.mesh(attributes={"POSITION": positions}, mode=6)
    gltf.mesh(attributes={"POSITION": positions}, mode=1)
    gltf.header["nodes"] = [{"mesh": 0}, {"mesh": 1}, {"mesh": 2}]
    gltf.header["scenes"] = [{"nodes": [2, 1, 0]}]
    gltf.header["extensionsRequired"] = ["KHR_mesh_quantization"]
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert mesh.faces.tolist() == [[0, 1, 2], [3, 2, 1], [4, 5, 6], [4, 6, 7]]
    assert mesh.vertices.min() == -1 and mesh.vertices.max() == 1


def test_sparse_and_strided_accessors(gltf):
    rows = np.zeros((3, 4), dtype="<f4")  # stride 16: a spare column
    rows[:, :3] = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    view = gltf.view(rows.tobytes())
    gltf.header["bufferViews"][view]["byteStride"] = 16
    where, what = (
        gltf.view(np.array([2], "<u2").tobytes()),
        gltf.view(np.float32([9, 9, 9]).tobytes()),
    )
    gltf.header["accessors"].append({
        "bufferView": view, "componentType": 5126, "count": 3, "type": "VEC3",
        "sparse": {"count": 1, "indices": {"bufferView": where, "componentType": 5123},
                   "values": {"bufferView": what}},
    })  # fmt: skip
    gltf.mesh(attributes={"POSITION": 0})
    assert mesh_from_bytes(gltf.glb(), "glb").vertices.tolist() == [[0, 0, 0], [1, 0, 0], [9, 9, 9]]


def test_material_texture_transform_and_colours(gltf, png):
    image = {"bufferView": gltf.view(png()), "mimeType": "image/png"}
    gltf.header |= {
        "images": [image],
        "textures": [{"source": 0}],
        "materials": [{
            "pbrMetallicRoughness": {
                "baseColorFactor": [1, 0.5, 0, 0.25], "metallicFactor": 0.1,
                "baseColorTexture": {"index": 0, "extensions": {
                    "KHR_texture_transform": {"offset": [0.5, 0], "scale": [2, 1]}}},
            },
            "alphaMode": "MASK", "alphaCutoff": 0.3, "emissiveFactor": [0, 0, 1],
        }],
    }  # fmt: skip
    attributes = {
        "POSITION": gltf.accessor([[0, 0, 0], [1, 0, 0], [0, 1, 0]]),
        "TEXCOORD_0": gltf.accessor([[0, 0], [1, 0], [0, 1]]),
        "COLOR_0": gltf.accessor([[0, 0, 0], [65535, 0, 0], [0, 65535, 0]], "u2", normalized=True),
    }
    gltf.mesh(attributes=attributes, material=0)
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    (material,) = mesh.materials
    assert material.base_color_factor == (1, 0.5, 0, 0.25)
    assert (material.alpha_mode, material.alpha_cutoff) == ("MASK", 0.3)
    assert material.base_color_texture[0, 0].tolist() == [255, 0, 0, 255]
    assert mesh.corner_uv[0].tolist() == [[0.5, 0], [2.5, 0], [0.5, 1]]
    assert mesh.vertex_colors.tolist() == [[0, 0, 0, 255], [255, 0, 0, 255], [0, 255, 0, 255]]


def test_gltf_with_side_files_and_with_data_uris(gltf, png):
    gltf.triangle()
    blob, header = gltf.blob, gltf.header
    header["buffers"] = [{"byteLength": len(blob), "uri": "my%20mesh.bin"}]
    mesh = mesh_from_bytes(json.dumps(header).encode(), "gltf", side_files={"my mesh.bin": blob})
    assert mesh.num_faces == 1
    header["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(
        blob
    ).decode("ascii")
    assert mesh_from_bytes(b"\xef\xbb\xbf" + json.dumps(header).encode(), "gltf").num_faces == 1


def test_an_inline_buffer_is_decoded_once(gltf, monkeypatch):
    for shift in range(20):
        gltf.triangle(vertices=[[shift, 0, 0], [shift + 0.5, 0, 0], [shift, 1, 0]])
    gltf.header["nodes"] = [{"mesh": index} for index in range(20)]
    gltf.header["scenes"] = [{"nodes": list(range(20))}]
    inline = base64.b64encode(gltf.blob).decode()
    uri = "data:application/octet-stream;base64," + inline
    gltf.header["buffers"] = [{"byteLength": len(gltf.blob), "uri": uri}]
    decoded, real = [], base64.b64decode

    def counted(text, **options):
        decoded.append(len(text))
        return real(text, **options)

    monkeypatch.setattr(base64, "b64decode", counted)
    mesh = mesh_from_bytes(json.dumps(gltf.header).encode(), "gltf")
    assert (mesh.num_faces, decoded) == (20, [len(inline)])
    assert mesh.vertices[:, 0].max() == 19.5


def test_shared_textures_and_materials_are_held_once(gltf, png):
    image = {"bufferView": gltf.view(png())}
    texture = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    gltf.header |= {"images": [image], "textures": [{"source": 0}], "materials": [texture, texture]}
    for material in (0, 1, 1):
        gltf.triangle(material=material)
    gltf.header["nodes"] = [{"mesh": i} for i in range(3)]
    gltf.header["scenes"] = [{"nodes": [0, 1, 2]}]
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert mesh.face_material.tolist() == [0, 0, 1]
    assert mesh.materials[0].base_color_texture is mesh.materials[1].base_color_texture


def test_vertex_normals_of_a_sphere_point_outwards():
    sphere = trimesh.creation.icosphere(subdivisions=2)
    normals = compute_vertex_normals(sphere.vertices, sphere.faces)
    np.testing.assert_allclose(normals, sphere.vertex_normals, atol=1e-5)


def test_save_glb_comes_back(gltf, png):
    image = {"bufferView": gltf.view(png())}
    textured = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.5}}
    gltf.header |= {"images": [image], "textures": [{"source": 0}], "materials": [textured, {}]}
    uv = gltf.accessor([[0, 0], [1, 0], [0, 1]])
    positions = gltf.accessor([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    gltf.mesh("b", attributes={"POSITION": positions, "TEXCOORD_0": uv}, material=0)
    gltf.mesh("a", attributes={"POSITION": positions}, material=1)
    gltf.header["nodes"] = [{"mesh": 0}, {"mesh": 1, "translation": [0, 0, 1]}]
    gltf.header["scenes"] = [{"nodes": [0, 1]}]
    first = mesh_from_bytes(gltf.glb(), "glb")
    data = mesh_to_glb(first)
    again = mesh_from_bytes(data, "glb")
    np.testing.assert_array_equal(again.triangles, first.triangles)
    np.testing.assert_array_equal(again.corner_uv, first.corner_uv)
    assert again.geometry_names == first.geometry_names == ("a", "b")
    assert [m.metallic_factor for m in again.materials] == [
        m.metallic_factor for m in first.materials
    ]
    other = trimesh.load(io.BytesIO(data), file_type="glb", force="scene").to_geometry()
    np.testing.assert_allclose(other.triangles, first.triangles, atol=1e-6)


def test_save_glb_by_part(box):
    mesh = mesh_from_bytes(box.export(file_type="glb"), "glb")
    labels = np.arange(12) % 3 - 1
    colors = np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)
    painted = mesh_from_bytes(mesh_to_glb(mesh, labels, colors), "glb")
    np.testing.assert_allclose(painted.triangles, mesh.triangles, atol=1e-6)
    seen = painted.vertex_colors[painted.faces[:, 0], :3].tolist()
    assert seen[1] == [10, 20, 30] and seen[2] == [40, 50, 60] and seen[0] == [160] * 3
    default = mesh_from_bytes(mesh_to_glb(mesh, labels), "glb")
    assert len(np.unique(default.vertex_colors, axis=0)) == 3
    with pytest.raises(ValueError, match="12 faces"):
        mesh_to_glb(mesh, None, colors)


def test_save_parts_glb_wants_dense_labels_and_a_color_each(box):
    mesh = mesh_from_bytes(box.export(file_type="glb"), "glb")
    labels, colors = np.arange(12) % 3, np.zeros((4, 3), np.uint8)
    assert len(mesh_from_bytes(parts_to_glb(mesh, labels, colors[:3]), "glb").geometry_names) == 3
    for wrong, table in ((labels, colors), (labels, colors[:2]), (labels - 1, colors[:3])):
        with pytest.raises(ValueError, match="give dense ids from 0 and one colour per part"):
            parts_to_glb(mesh, wrong, table)


@pytest.mark.skipif(not (SHARED / "data/parts").is_dir(), reason="needs ../shared/data/parts")
def test_face_order_of_labelled_meshes():
    objects = sorted((SHARED / "data/parts/objects").glob("*.glb"))[::120]
    assert objects
    for path in objects:
        mesh = mesh_from_bytes(path.read_bytes(), "glb")
        parts = np.load(path.with_suffix("").with_suffix(".parts.npz"), allow_pickle=False)
        assert len(parts["face_part"]) == mesh.num_faces, path.name
        assert mesh.geometry_names == tuple(parts["geom_names"]), path.name
        counts = np.bincount(mesh.face_geometry)
        assert counts.tolist() == parts["geom_nfaces"].tolist(), path.name
