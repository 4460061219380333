"""Rigged scenes: bones become limbs, faces follow their bones, rigid pieces are parts."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from segvigen_model.datasets.importers.rigs import (
    build_rig_mesh,
    import_rigs,
    label_rig,
    main,
    name_limbs,
    read_rig,
)
from segvigen_model.datasets.scenes import NotAnObject
from segvigen_model.datasets.voxel_samples import load_labelled, read_pack_rows
from segvigen_model.errors import AssetRejected

# Names, parents and places (relative to the parent) of the bones of a small figure.
BONES = (
    ("Root", -1, (0, 0, 0)),
    ("Torso", 0, (0, 1, 0)),
    ("UpperArm.L", 1, (1, 0, 0)),
    ("LowerArm.L", 2, (1, 0, 0)),
    ("Hand.L", 3, (1, 0, 0)),
    ("Head", 1, (0, 1, 0)),
)
PLACES = np.array([(0, 0, 0), (0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 0), (0, 2, 0)], float)


class Gltf:
    """Collects accessors of a GLB."""

    def __init__(self):
        self.blob, self.views, self.accessors = b"", [], []

    def add(self, values, kind, component):
        data = np.ascontiguousarray(values).tobytes()
        self.views.append({"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data)})
        self.accessors.append(
            {
                "bufferView": len(self.views) - 1,
                "componentType": component,
                "type": kind,
                "count": len(values),
            }
        )
        self.blob += data + b"\0" * (-len(data) % 4)
        return len(self.accessors) - 1

    def glb(self, **header):
        header |= {"asset": {"version": "2.0"}, "bufferViews": self.views}
        header |= {"accessors": self.accessors, "buffers": [{"byteLength": len(self.blob)}]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 4)
        length = 28 + len(text) + len(self.blob)
        head = struct.pack("<4sII", b"glTF", 2, length)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        return head + chunks + struct.pack("<II", len(self.blob), 0x004E4942) + self.blob


def figure():
    """A torso, an arm with a hand along x, a head: boxes that overlap the bones."""
    boxes = [((1, 1.6, 1), (0, 0.8, 0)), ((3, 0.4, 0.4), (2, 1, 0)), ((0.8, 0.8, 0.8), (0, 2.2, 0))]
    meshes = []
    for size, at in boxes:
        mesh = trimesh.creation.box(size)
        for _ in range(3):
            mesh = mesh.subdivide()
        meshes.append(mesh.apply_translation(at))
    return trimesh.util.concatenate(meshes)


def rig_of(attached="Hat", scale=1.0, bone=5):
    """A GLB of the figure, its vertices moved by the nearest bone, and a rigid box on a bone."""
    mesh, gltf = figure(), Gltf()
    nearest = np.linalg.norm(mesh.vertices[:, None] - PLACES[None, 1:], axis=2).argmin(axis=1) + 1
    joints = np.zeros((len(mesh.vertices), 4), np.uint8)
    joints[:, 0] = nearest
    heavy = np.tile(np.float32([1, 0, 0, 0]), (len(joints), 1))
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(BONES), 1, 1))
    inverse[:, 3, :3] = -PLACES  # column-major: the translation is the last row
    attributes = {
        "POSITION": gltf.add(np.float32(mesh.vertices), "VEC3", 5126),
        "JOINTS_0": gltf.add(joints, "VEC4", 5121),
        "WEIGHTS_0": gltf.add(heavy, "VEC4", 5126),
    }
    skinned = {
        "attributes": attributes,
        "indices": gltf.add(np.uint32(mesh.faces.ravel()), "SCALAR", 5125),
    }
    box = trimesh.creation.box((0.6, 0.3, 0.6)).subdivide().subdivide()
    rigid = {
        "attributes": {"POSITION": gltf.add(np.float32(box.vertices), "VEC3", 5126)},
        "indices": gltf.add(np.uint32(box.faces.ravel()), "SCALAR", 5125),
    }
    nodes = [
        {
            "name": name,
            "translation": list(at),
            "children": [n for n, row in enumerate(BONES) if row[1] == number],
        }
        for number, (name, _, at) in enumerate(BONES)
    ]
    nodes[0]["scale"] = [scale] * 3
    nodes[bone]["children"].append(len(BONES) + 1)
    nodes += [{"name": "Figure", "mesh": 0, "skin": 0}]
    nodes += [{"name": attached, "mesh": 1, "translation": [0, 0.8, 0]}]
    return gltf.glb(
        nodes=nodes,
        scenes=[{"nodes": [0, len(BONES)]}],
        meshes=[{"primitives": [skinned]}, {"primitives": [rigid]}],
        skins=[
            {
                "joints": list(range(len(BONES))),
                "inverseBindMatrices": gltf.add(inverse, "MAT4", 5126),
            }
        ],
    )


def test_bones_of_one_limb_are_joined():
    names = ["Hips", "UpperLeg.L", "LowerLeg.L", "Foot.L", "Toes.L", "UpperLeg.R", "Index3.R"]
    parents = [-1, 0, 1, 2, 3, 0, 5]
    assert name_limbs(names, parents) == [
        "torso",
        "leg left",
        "leg left",
        "foot left",
        "foot left",
        "leg right",
        "hand right",
    ]


@pytest.mark.parametrize(
    ("name", "limb"),
    [
        ("mixamorig:LeftForeArm", "arm left"),
        ("mixamorig:RightUpLeg", "leg right"),
        ("FrontUpperLeg.L", "front leg left"),
        ("BackShoulder.R", "back leg right"),
        ("Shoulder.R", "torso"),
        ("Tail5", "tail"),
        ("Ear2.L", "ear left"),
        ("TankTrack22.L", "tank track left"),
        ("spine_01", "torso"),
    ],
)
def test_a_bone_is_known_by_its_name(name, limb):
    assert name_limbs([name], [-1]) == [limb]


def test_names_that_say_nothing_follow_the_chain_and_split_at_branches():
    names = ["Bone", "Bone.001", "Bone.002", "Bone.003", "Bone.004"]
    limbs = name_limbs(names, [-1, 0, 1, 1, 2])
    assert limbs[0] == limbs[1]  # a chain
    assert len({limbs[1], limbs[2], limbs[3]}) == 3  # a branch
    assert limbs[4] == limbs[2]


def test_faces_take_the_limb_of_their_bones():
    scene = label_rig(build_rig_mesh(read_rig(rig_of(), "glb", {})))
    assert scene.part_source == "rig"
    assert set(scene.part_names) == {"torso", "arm left", "hand left", "head", "Hat"}
    centers = scene.mesh.triangles.mean(axis=1)
    names = np.array(scene.part_names)[scene.face_part]
    assert names[centers[:, 0].argmax()] == "hand left"
    assert names[centers[:, 1].argmax()] == "Hat"
    assert names[centers[:, 1].argmin()] == "torso"


def test_vertices_stand_as_their_bones_hold_them():
    """A rig that is scaled as a whole scales its skin, and rigid pieces stay in their place."""
    plain, scaled = (
        build_rig_mesh(read_rig(rig_of(scale=scale), "glb", {})) for scale in (1.0, 100.0)
    )
    assert scaled.vertices == pytest.approx(100 * plain.vertices, rel=1e-4, abs=1e-3)
    assert plain.vertices[:, 1].max() == pytest.approx(2.95)


def test_a_rigid_piece_of_a_held_out_theme_is_dropped():
    mesh = build_rig_mesh(read_rig(rig_of("1H_Sword"), "glb", {}))
    assert "1H_Sword" not in mesh.geometry_names
    assert len(mesh.faces) == len(figure().faces)


def test_what_a_hand_holds_is_no_part():
    held = build_rig_mesh(read_rig(rig_of("Wand", bone=4), "glb", {}))
    assert "Wand" not in held.geometry_names
    sleeve = build_rig_mesh(read_rig(rig_of("Sleeve", bone=3), "glb", {}))
    assert "Sleeve" in sleeve.geometry_names


def test_scenes_become_labelled_objects(tmp_path, caplog):
    scenes, out = tmp_path / "scenes", tmp_path / "out"
    scenes.mkdir()
    for name, data in {
        "Figure.glb": rig_of(),
        "Again.glb": rig_of(),
        "Spider.glb": rig_of("Cap"),
        "Box.glb": figure().export(file_type="glb"),
        "Broken.glb": b"glTF",
    }.items():
        (scenes / name).write_bytes(data)
    command = [
        "--scenes",
        str(scenes),
        "--out",
        str(out),
        "--source",
        "a/b",
        "--licence",
        "CC0-1.0",
    ]
    with caplog.at_level("INFO"):
        main(command)
    assert "left out=4, taken=1" in caplog.text
    assert "Spider.glb left_out=held-out theme procedural (spider)" in caplog.text
    assert "Box.glb left_out=the file has no skin" in caplog.text
    rows = [*read_pack_rows(out, split="train"), *read_pack_rows(out, split="validation")]
    assert [row["source_path"] for row in rows] == ["Again.glb"]
    _, labels = load_labelled(out, rows[0])
    assert rows[0]["n_parts"] == 5
    assert labels.max() + 1 == rows[0]["n_inst"] >= 5
    about = {"source_repo": "a/b", "licence": "CC0-1.0", "category": "character"}
    assert import_rigs(scenes, tmp_path / "other", about, [out])["taken"] == 0


def test_a_scene_that_cannot_be_labelled_says_why():
    with pytest.raises(NotAnObject, match="no skin"):
        read_rig(figure().export(file_type="glb"), "glb", {})
    whole = build_rig_mesh(read_rig(rig_of("Sword"), "glb", {}))
    with pytest.raises(NotAnObject, match="of one limb"):
        label_rig(replace(whole, face_geometry=np.zeros(whole.num_faces, np.int32)))
    with pytest.raises(NotAnObject, match="no piece is left"):
        build_rig_mesh([])
    for scale in (0.0, 1e308):
        with pytest.raises(NotAnObject, match="no finite extent"), np.errstate(all="ignore"):
            build_rig_mesh(read_rig(rig_of(scale=scale, attached="Sword"), "glb", {}))
    with pytest.raises(AssetRejected):
        read_rig(b"glTF", "glb", {})
