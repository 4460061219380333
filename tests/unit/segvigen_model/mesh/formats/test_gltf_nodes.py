"""Which primitives of a glTF scene are drawn, and where."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes


def refused(data, **options):
    with pytest.raises(AssetRejected) as caught:
        mesh_from_bytes(data, "glb", **options)
    return caught.value.reason


def instances(**attributes):
    return {"extensions": {"EXT_mesh_gpu_instancing": {"attributes": attributes}}}


@pytest.mark.parametrize("is_required", [False, True])
def test_instances_are_expanded(gltf, is_required):
    gltf.box()
    shift = gltf.accessor([[0, 0, 0], [3, 0, 0], [6, 0, 0]])
    gltf.place({"mesh": 0} | instances(TRANSLATION=shift))
    gltf.header["extensionsUsed"] = ["EXT_mesh_gpu_instancing"]
    if is_required:
        gltf.header["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert mesh.num_faces == 36
    assert (mesh.vertices[:, 0].min(), mesh.vertices[:, 0].max()) == (-0.5, 6.5)
    assert np.allclose(mesh.triangles.reshape(3, -1, 3).mean(axis=1)[:, 0], [0, 3, 6])


def test_instances_turn_and_scale_below_their_node(gltf):
    gltf.triangle([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    quarter = [0, 0, 32767 * 0.70710678, 32767 * 0.70710678]
    turn = gltf.accessor([quarter, [0, 0, 0, 32767]], "i2", normalized=True)
    scale = gltf.accessor([[2, 2, 2], [-1, 1, 1]])
    gltf.place({"mesh": 0, "translation": [10, 0, 0]} | instances(ROTATION=turn, SCALE=scale))
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert np.allclose(mesh.triangles[0], [[10, 0, 0], [10, 2, 0], [8, 0, 0]], atol=1e-3)
    assert np.allclose(mesh.triangles[1], [[10, 1, 0], [9, 0, 0], [10, 0, 0]], atol=1e-3), (
        "mirrored"
    )


def test_instances_are_counted_before_they_are_made(gltf):
    gltf.box()
    gltf.header["accessors"].append({"componentType": 5126, "count": 10**9, "type": "VEC3"})
    gltf.place({"mesh": 0} | instances(TRANSLATION=2))
    assert refused(gltf.glb()) == "too_many_nodes"
    gltf.header["accessors"][2]["count"] = 1000
    assert refused(gltf.glb(), limits=MeshLimits(max_faces=11_999)) == "too_many_faces"
    two = gltf.accessor(np.zeros((2, 3)))
    three = gltf.accessor(np.ones((3, 3)))
    gltf.place({"mesh": 0} | instances(TRANSLATION=two, SCALE=three))
    assert refused(gltf.glb()) == "unreadable"
    gltf.place({"mesh": 0} | instances())
    assert refused(gltf.glb()) == "unreadable"


def test_the_default_scene_is_drawn_and_without_scenes_all_roots(gltf):
    gltf.box()
    gltf.place({"mesh": 0}, {"children": [2]}, {"mesh": 0, "translation": [5, 0, 0]})
    header = gltf.header
    header["scenes"] = [{"nodes": [0, 1]}, {"nodes": [1]}, {}]
    for scene, centers in ((0, [5, 0]), (1, [5])):
        header["scene"] = scene
        mesh = mesh_from_bytes(gltf.glb(), "glb")
        found = mesh.triangles.reshape(-1, 36, 3).mean(axis=1)[:, 0]
        assert np.allclose(found, centers), scene
    header["scene"] = 2
    assert refused(gltf.glb()) == "no_faces"
    header["scene"] = 3
    assert refused(gltf.glb()) == "unreadable"
    del header["scene"]
    assert mesh_from_bytes(gltf.glb(), "glb").num_faces == 24, "the first scene"
    del header["scenes"]
    assert mesh_from_bytes(gltf.glb(), "glb").num_faces == 24


def test_circles_and_second_parents_are_refused(gltf):
    gltf.box()
    for children in ([[1], [2], [0]], [[0], [], []], [[1, 2], [2], []]):
        nodes = [{"mesh": 0, "children": found} for found in children]
        gltf.header["nodes"] = nodes
        gltf.header["scenes"] = [{"nodes": [0]}]
        assert refused(gltf.glb()) == "unreadable", children
    gltf.header["nodes"] = [{"children": [1]}, {"children": [0], "mesh": 0}]
    del gltf.header["scenes"], gltf.header["scene"]
    assert refused(gltf.glb()) == "no_faces", "no node is a root"


def test_a_chain_of_many_nodes_is_walked(gltf):
    gltf.box()
    count = 100_000
    chain = [{"children": [index + 1], "translation": [1, 0, 0]} for index in range(count - 1)]
    gltf.header["nodes"] = [*chain, {"mesh": 0}]
    gltf.header["scenes"] = [{"nodes": [0]}]
    assert mesh_from_bytes(gltf.glb(), "glb").vertices[:, 0].max() == count - 0.5


def test_points_and_lines_are_left_out_and_other_modes_refused(gltf, caplog):
    caplog.set_level("INFO")
    positions = gltf.accessor(np.eye(3))
    for mode in range(7):
        gltf.mesh(f"of mode {mode}", attributes={"POSITION": positions}, mode=mode)
    gltf.place(*({"mesh": mode} for mode in range(7)))
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert mesh.geometry_names == ("of mode 4", "of mode 5", "of mode 6")
    assert [f"of mode {mode}" in caplog.text for mode in range(5)] == [True] * 4 + [False]
    assert (mesh.repairs, mesh.announced) == ((("primitives_without_faces", 4),), {"faces": 3})
    for mode in (7, -1, "4", None):
        gltf.header["meshes"][4]["primitives"][0]["mode"] = mode
        assert refused(gltf.glb()) == "unreadable", mode


def test_every_face_knows_its_node_mesh_and_material(gltf):
    gltf.header["materials"] = [{"name": "oak"}, {}]
    gltf.triangle(material=0)
    gltf.triangle(material=1)
    gltf.triangle()
    gltf.header["meshes"][0]["name"], gltf.header["meshes"][1]["name"] = "seat", "leg"
    del gltf.header["meshes"][2]["name"]
    gltf.place({"mesh": 0, "name": "chair"}, {"mesh": 1, "name": "left"},
               {"mesh": 1, "name": "right"}, {"mesh": 2})  # fmt: skip
    origin = mesh_from_bytes(gltf.glb(), "glb").origin

    def spell(column):
        return [None if index < 0 else column.names[index] for index in column.indices]

    assert spell(origin.objects) == ["chair", "left", "right", None]
    assert spell(origin.groups) == ["seat", "leg", "leg", None]
    assert spell(origin.materials) == ["oak", "material_1", "material_1", None]
    assert origin.polygons is None
