"""Scenes to labelled folders: what becomes a part, what is left out and why, adding twice."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh

from segvigen_model.datasets import scenes
from segvigen_model.datasets.scenes import NotAnObject, import_scenes, label_scene
from segvigen_model.datasets.voxel_samples import load_labelled, read_pack_rows
from segvigen_model.mesh.io import mesh_from_bytes

RED, BLUE = ([200, 30, 30, 255], [30, 30, 200, 255])


def box(size, at=(0, 0, 0), color=RED):
    mesh = trimesh.creation.box(size)
    for _ in range(2):
        mesh = mesh.subdivide()
    mesh.apply_translation(at)
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=color)
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    return mesh


def scene_of(**pieces):
    scene = trimesh.Scene()
    for name, mesh in pieces.items():
        scene.add_geometry(mesh, node_name=name, geom_name=name)
    return scene


def loaded(scene):
    return mesh_from_bytes(scene.export(file_type="glb"), ".glb")


@pytest.fixture
def table():
    legs = trimesh.util.concatenate([box((0.2, 2, 0.2), (x, -1.2, 0)) for x in (-1, 1)])
    return scene_of(top=box((3, 0.3, 2), color=BLUE), legs=legs)


def test_pieces_of_a_scene_are_parts_and_components_instances(table):
    made = label_scene(loaded(table))
    assert made.part_source == "node+mat"
    assert len(made.part_names) == 2
    assert sorted(made.part_names) == sorted(made.mesh.geometry_names)
    assert made.face_part.max() == 1
    assert made.face_inst.max() == 2  # the top and two legs
    for part in range(3):
        assert len(np.unique(made.face_part[made.face_inst == part])) == 1
    used = made.mesh.vertices
    assert np.ptp(used, axis=0).max() == pytest.approx(1.0)
    assert used.min(axis=0) + used.max(axis=0) == pytest.approx(0.0, abs=1e-9)


def test_parts_come_by_falling_area(table):
    made = label_scene(loaded(table))
    corners = made.mesh.triangles
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.bincount(made.face_part, 0.5 * np.linalg.norm(cross, axis=1))
    assert (np.diff(areas) <= 0).all()


def test_components_are_the_parts_of_a_single_piece():
    both = trimesh.util.concatenate([box((1, 1, 1)), box((1, 1, 1), (3, 0, 0))])
    made = label_scene(loaded(scene_of(both=both)))
    assert made.part_source == "components"
    assert len(made.part_names) == 2


def test_a_tiny_part_joins_the_nearest():
    knob = box((0.05, 0.05, 0.05), (1.55, 0, 0))
    far = box((1, 1, 1), (-3, 0, 0), BLUE)
    made = label_scene(loaded(scene_of(body=box((3, 1, 1)), knob=knob, far=far)))
    assert len(made.part_names) == 2
    centers = made.mesh.triangles.mean(axis=1)
    rightmost = made.face_part[centers[:, 0].argmax()]
    assert rightmost == made.face_part[np.abs(centers[:, 0] - centers[:, 0].mean()).argmin()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: scene_of(a=trimesh.creation.box(), b=trimesh.creation.box()), r"24 faces; 60 to"),
        (lambda: scene_of(a=box((1, 1, 1))), r"1 parts; 2 to 30 are taken"),
        (
            lambda: scene_of(a=box((9, 9, 9)), b=box((1.6, 1.6, 1.6), (9, 0, 0))),
            r"one part is 9\d% of the surface",
        ),
    ],
)
def test_what_is_no_labelled_object_reports_why(make, message):
    with pytest.raises(NotAnObject, match=message):
        label_scene(loaded(make()))


def test_a_folder_is_added_to_and_read_back(table, tmp_path):
    folder, pack = tmp_path / "scenes" / "deep", tmp_path / "pack"
    folder.mkdir(parents=True)
    (folder / "table.glb").write_bytes(table.export(file_type="glb"))
    (folder / "broken.glb").write_bytes(b"glTF, but not really")
    moved = table.copy().apply_scale(7.0)
    (folder / "table_again.glb").write_bytes(moved.export(file_type="glb"))
    about = {"source": "someone/models", "licence": "CC0-1.0", "category": "furniture"}
    assert import_scenes(folder.parent, pack, **about) == {"taken": 1, "left out": 2}
    two = scene_of(a=box((1, 1, 1)), b=box((2, 1, 1), (4, 0, 0)))
    (folder / "two.glb").write_bytes(two.export(file_type="glb"))
    reported = import_scenes(folder.parent, pack, **about)
    assert reported == {"there before": 1, "taken": 1, "left out": 2}
    rows = read_pack_rows(pack, split="train") + read_pack_rows(pack, split="validation")
    assert len(rows) == 2
    for row in rows:
        mesh, labels = load_labelled(pack, row)
        assert labels.max() + 1 == row["n_inst"]
        assert mesh.num_faces == row["n_faces"]
        assert row["source_repo"] == "someone/models"
    lines = (pack / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["source_path"] for line in lines] == ["deep/table.glb", "deep/two.glb"]


def test_shapes_of_other_folders_are_left_out(table, tmp_path, caplog):
    folder = tmp_path / "scenes"
    folder.mkdir()
    (folder / "table.glb").write_bytes(table.export(file_type="glb"))
    about = {"source": "someone/models", "licence": "CC0-1.0", "category": "furniture"}
    import_scenes(folder, tmp_path / "first", **about)
    reported = import_scenes(folder, tmp_path / "second", **about, unlike=[tmp_path / "first"])
    assert reported == {"left out": 1}
    assert "the same shape is there already" in caplog.text


def test_held_out_themes_are_left_out(table, tmp_path, caplog):
    (tmp_path / "Sword_Big.glb").write_bytes(table.export(file_type="glb"))
    blade = scene_of(handle=box((1, 1, 1)), Dagger_Blade=box((2, 1, 1), (4, 0, 0)))
    (tmp_path / "piece.glb").write_bytes(blade.export(file_type="glb"))
    about = {"source": "someone/models", "licence": "CC0-1.0", "category": "items"}
    assert import_scenes(tmp_path, tmp_path / "pack", **about) == {"left out": 2}
    assert "held-out theme weapon (sword)" in caplog.text
    assert "held-out theme weapon (blade)" in caplog.text


def test_the_command_names_what_it_found(table, tmp_path, caplog):
    (tmp_path / "table.glb").write_bytes(table.export(file_type="glb"))
    command = ["--scenes", str(tmp_path), "--out", str(tmp_path / "pack")]
    with caplog.at_level("INFO"):
        scenes.main([*command, "--source", "someone/models", "--licence", "CC0-1.0"])
    assert "1 taken" in caplog.text
