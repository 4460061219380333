"""Skins and morph targets of glTF at rest."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.io import mesh_from_bytes


def add_skin(gltf, joints, inverse=None, kind="u1", weights=None):
    """A box whose vertices all follow the first joint, or (8, 4) weights."""
    shares = np.tile([1.0, 0, 0, 0], (8, 1)) if weights is None else weights
    order = np.tile([0, 1, 0, 0], (8, 1))
    attributes = {"JOINTS_0": gltf.accessor(order, kind), "WEIGHTS_0": gltf.accessor(shares)}
    gltf.box(attributes=attributes)
    skin = {"joints": joints}
    if inverse is not None:
        matrices = [np.asarray(matrix).T.ravel() for matrix in inverse]
        skin["inverseBindMatrices"] = gltf.accessor(matrices)
    gltf.header.setdefault("skins", []).append(skin)


def shift(x, y=0, z=0):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def bounds(mesh):
    return [mesh.vertices.min(axis=0).tolist(), mesh.vertices.max(axis=0).tolist()]


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_the_transform_of_a_skinned_node_does_not_count(gltf, kind):
    add_skin(gltf, [1], [np.eye(4)], kind)
    moved = {"mesh": 0, "skin": 0, "translation": [0, 100, 0], "scale": [0.01] * 3}
    gltf.place(moved, {}, {"mesh": 0, "skin": 0})
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert mesh.num_faces == 24
    assert bounds(mesh) == [[-0.5] * 3, [0.5] * 3]


def test_a_joint_in_its_bind_pose_moves_nothing(gltf):
    add_skin(gltf, [1, 2], [shift(-3), shift(-3, -2)])
    gltf.place({"mesh": 0, "skin": 0, "scale": [7, 7, 7]},
               {"translation": [3, 0, 0], "children": [2]}, {"translation": [0, 2, 0]})  # fmt: skip
    gltf.header["scenes"] = [{"nodes": [0, 1]}]
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert bounds(mesh) == [[-0.5] * 3, [0.5] * 3], "exactly"


def test_a_skeleton_that_stands_elsewhere_takes_the_mesh_along(gltf):
    # As exporters write figures of centimetres below a node that scales and turns them.
    add_skin(gltf, [2], [np.eye(4)])
    gltf.header["nodes"] = [{"children": [1, 2], "scale": [0.01] * 3, "translation": [4, 0, 0]},
                            {"mesh": 0, "skin": 0}, {}]  # fmt: skip
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert np.allclose(bounds(mesh), [[3.995, -0.005, -0.005], [4.005, 0.005, 0.005]])


def test_vertices_between_two_posed_joints_are_mixed(gltf):
    weights = np.tile([0.25, 0.75, 0, 0], (8, 1)) * 2  # need not sum to one
    add_skin(gltf, [1, 2], weights=weights)
    gltf.place({"mesh": 0, "skin": 0}, {"translation": [4, 0, 0]}, {"translation": [0, 4, 0]})
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert np.allclose(bounds(mesh), [[0.5, 2.5, -0.5], [1.5, 3.5, 0.5]])
    assert mesh.vertex_normals.shape == (8, 3)


def test_a_joint_outside_the_scene_still_has_a_place(gltf):
    add_skin(gltf, [2])
    gltf.header["nodes"] = [{"mesh": 0, "skin": 0}, {"children": [2], "translation": [1, 0, 0]},
                            {"translation": [1, 0, 0]}]  # fmt: skip
    assert mesh_from_bytes(gltf.glb(), "glb").vertices[:, 0].max() == 2.5
    gltf.header["nodes"][2]["children"] = [1]
    with pytest.raises(AssetRejected, match="contains itself"):
        mesh_from_bytes(gltf.glb(), "glb")


def test_broken_skins(gltf):
    def refused(match):
        with pytest.raises(AssetRejected, match=match):
            mesh_from_bytes(gltf.glb(), "glb")

    add_skin(gltf, [1])
    gltf.place({"mesh": 0, "skin": 0}, {})
    assert mesh_from_bytes(gltf.glb(), "glb").num_faces == 12
    gltf.header["skins"][0]["inverseBindMatrices"] = 99
    refused(r"accessors\[99\]")
    gltf.header["skins"][0]["inverseBindMatrices"] = 0
    refused("no MAT4")
    gltf.header["skins"][0] = {"joints": [7]}
    refused(r"nodes\[7\]")
    gltf.header["skins"][0] = {"joints": []}
    refused("names joint 0 of 0")
    gltf.header["nodes"][0]["skin"] = 3
    refused(r"skins\[3\]")
    gltf.header["skins"][0] = {
        "joints": [1, 1],
        "inverseBindMatrices": gltf.accessor(np.ones((1, 16))),
    }
    gltf.header["nodes"][0]["skin"] = 0
    refused("1 inverse bind matrices for 2 joints")


def test_a_skin_without_weights_leaves_the_raw_positions(gltf):
    gltf.box()
    gltf.header["skins"] = [{"joints": [1]}]
    gltf.place({"mesh": 0, "skin": 0, "translation": [9, 0, 0]}, {"translation": [5, 0, 0]})
    assert bounds(mesh_from_bytes(gltf.glb(), "glb")) == [[-0.5] * 3, [0.5] * 3]


def test_morph_targets_count_with_the_files_weights(gltf):
    up = gltf.accessor(np.tile([0.0, 2, 0], (8, 1)))
    aside = gltf.accessor(np.tile([1.0, 0, 0], (8, 1)))
    gltf.box(targets=[{"POSITION": up}, {"POSITION": aside}])
    gltf.place({"mesh": 0})
    assert mesh_from_bytes(gltf.glb(), "glb").vertices.max(axis=0).tolist() == [0.5, 0.5, 0.5]
    gltf.header["meshes"][0]["weights"] = [0.5, 0]
    assert mesh_from_bytes(gltf.glb(), "glb").vertices.max(axis=0).tolist() == [0.5, 1.5, 0.5]
    gltf.place({"mesh": 0, "weights": [0, 1]}, {"mesh": 0})
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert mesh.triangles.reshape(2, -1, 3).max(axis=1).tolist() == [
        [1.5, 0.5, 0.5],
        [0.5, 1.5, 0.5],
    ]
    gltf.header["accessors"][up]["count"] = 7
    with pytest.raises(AssetRejected, match="7 rows"):
        mesh_from_bytes(gltf.glb(), "glb")
