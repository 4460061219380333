"""Mesh files and the files beside them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.files import MAX_SIDE_FILES, load_mesh
from segvigen_model.mesh.formats.limits import MeshLimits

OPTIONAL = MeshLimits(is_side_file_required=False)
OBJ = "mtllib {mtl}\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"


@pytest.fixture
def png():
    stream = io.BytesIO()
    Image.new("RGB", (4, 2), (255, 0, 0)).save(stream, format="PNG")
    return stream.getvalue()


def write_obj(folder, *, mtl="a.mtl", texture="tex.png"):
    (folder / "m.obj").write_text(OBJ.format(mtl=mtl))
    if not mtl.startswith(("/", "..")):
        (folder / mtl).parent.mkdir(exist_ok=True)
        (folder / mtl).write_text(f"newmtl m\nmap_Kd {texture}\n")
    return folder / "m.obj"


def texture_of(mesh):
    return mesh.materials[0].base_color_texture


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl", "off"])
def test_a_file_alone(tmp_path, suffix):
    box = trimesh.creation.box()
    box.export(tmp_path / f"box.{suffix}")
    mesh = load_mesh(tmp_path / f"box.{suffix}")
    np.testing.assert_allclose(mesh.triangles, box.triangles, atol=1e-6)


@pytest.mark.parametrize(
    ("mtl", "place"), [("a.mtl", "tex.png"), ("sub/a.mtl", "sub/tex.png"), ("sub/a.mtl", "tex.png")]
)
def test_an_obj_with_its_material_and_texture(tmp_path, png, mtl, place):
    file = write_obj(tmp_path, mtl=mtl)
    (tmp_path / place).write_bytes(png)
    assert texture_of(load_mesh(file)).shape == (2, 4, 4)


def test_a_gltf_with_its_buffer(tmp_path):
    box = trimesh.creation.box()
    for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(box)).items():
        (tmp_path / name).write_bytes(data)
    assert load_mesh(tmp_path / "model.gltf").num_faces == 12


def test_an_absent_texture_is_refused_or_left_out(tmp_path):
    file = write_obj(tmp_path)
    with pytest.raises(AssetRejected, match=r"missing_side_file: the file needs 'tex\.png'"):
        load_mesh(file)
    assert texture_of(load_mesh(file, OPTIONAL)) is None


def test_files_outside_the_folder_are_not_read(tmp_path, png):
    (tmp_path / "tex.png").write_bytes(png)
    inside = tmp_path / "inside"
    inside.mkdir()
    for texture in ("../tex.png", str(tmp_path / "tex.png")):
        with pytest.raises(AssetRejected, match="external_reference"):
            load_mesh(write_obj(inside, texture=texture), OPTIONAL)
    (inside / "link.png").symlink_to(tmp_path / "tex.png")
    assert texture_of(load_mesh(write_obj(inside, texture="link.png"), OPTIONAL)) is None


def test_names_that_no_file_can_have_are_absent_files(tmp_path):
    for texture in ("x" * 300 + ".png", "a\x00b.png"):
        assert texture_of(load_mesh(write_obj(tmp_path, texture=texture), OPTIONAL)) is None


def test_too_many_side_files_are_refused(tmp_path):
    images = []
    for number in range(MAX_SIDE_FILES + 1):
        (tmp_path / f"{number}.png").write_bytes(b"x")
        images.append({"uri": f"{number}.png"})
    (tmp_path / "m.gltf").write_text(json.dumps({"asset": {"version": "2.0"}, "images": images}))
    with pytest.raises(AssetRejected, match="too_many_side_files"):
        load_mesh(tmp_path / "m.gltf")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(AssetRejected, match=r"unreadable_file: .*none\.glb: No such file"):
        load_mesh(tmp_path / "none.glb")


def test_side_files_in_another_case_or_folder_are_found(tmp_path, caplog):
    (tmp_path / "Textures").mkdir()
    (tmp_path / "A.MTL").write_text("newmtl m\nmap_Kd C:\\work\\My Tex.png\n")
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "Textures" / "my tex.PNG", "png")
    (tmp_path / "m.obj").write_text(
        "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n"
    )
    texture = load_mesh(tmp_path / "m.obj").materials[0].base_color_texture
    assert texture is not None and texture[0, 0].tolist() == [9, 8, 7, 255]
    assert "in another case" in caplog.text and "by its base name" in caplog.text


def test_links_out_of_the_folder_lead_to_nothing(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "secret.mtl").write_text("newmtl m\nKd 1 0 0\n")
    (tmp_path / "m" / "a.mtl").symlink_to(tmp_path / "secret.mtl")
    (tmp_path / "m" / "m.obj").write_text(
        "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    )
    mesh = load_mesh(tmp_path / "m" / "m.obj", OPTIONAL)
    assert mesh.materials[0].base_color_factor[:3] != (1, 0, 0)
