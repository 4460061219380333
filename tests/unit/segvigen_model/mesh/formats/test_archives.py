"""A ZIP with one mesh and its side files is that mesh; everything else is refused unopened."""

from __future__ import annotations

import contextvars
import io
import json
import struct
import zipfile

import numpy as np
import pytest

from segvigen_model import load_mesh
from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.archives import MAX_ENTRIES
from segvigen_model.mesh.formats.isolation import allow_decoding_here
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes

OBJ = b"mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n"
MTL = b"newmtl m\nmap_Kd textures/t.png\n"


@pytest.fixture(autouse=True)
def _decode_here():
    with allow_decoding_here():
        yield


def pack(files, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, content in files:
            file.writestr(name, content)
    return stream.getvalue()


def refused(data, **options):
    with pytest.raises(AssetRejected) as caught:
        mesh_from_bytes(data, "zip", **options)
    return caught.value.reason


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("folder", ["", "chair/source/"])
def test_a_mesh_with_its_side_files(png, method, folder):
    own = [("a.obj", OBJ), ("a.mtl", MTL), ("textures/t.png", png()), (".DS_Store", b"x")]
    files = [(folder + name, content) for name, content in own]
    files += [("__MACOSX/._a.obj", b"x"), ("readme.txt", b"hello")]
    mesh = mesh_from_bytes(pack(files, method), "zip")
    assert mesh.materials[0].base_color_texture.shape == (2, 4, 4)


def test_every_kind_of_mesh_and_a_gltf_with_its_buffer(gltf):
    gltf.box()
    assert mesh_from_bytes(pack([("a/b.GLB", gltf.glb())]), "zip").num_faces == 12
    gltf.header["buffers"] = [{"byteLength": len(gltf.blob), "uri": "my%20data.bin"}]
    files = [("b.gltf", json.dumps(gltf.header)), ("my data.bin", gltf.blob)]
    assert mesh_from_bytes(pack(files), "zip").num_faces == 12


def test_files_in_a_folder_beside_the_meshs_go_by_their_base_name(png):
    mtl = MTL.replace(b"textures/t.png", b"t.png")
    files = [("source/a.obj", OBJ), ("source/a.mtl", mtl), ("textures/t.png", png())]
    assert mesh_from_bytes(pack(files), "zip").materials[0].base_color_texture is not None


def test_what_is_no_mesh_is_refused(gltf):
    gltf.box()
    inner = pack([("b.glb", gltf.glb())])
    assert refused(pack([("readme.txt", b"x")])) == "no_mesh_in_archive"
    assert refused(pack([("inner.zip", inner)])) == "no_mesh_in_archive"
    two = [("a.glb", gltf.glb()), ("b.stl", b"solid a\nendsolid a\n")]
    assert refused(pack(two)) == "several_meshes_in_archive"
    assert refused(pack([("a.glb", b"")])) == "empty_file"
    assert refused(pack([("a.glb", b"glTF")])) == "truncated"


@pytest.mark.parametrize(
    "name", ["../a.glb", "/etc/a.glb", "x/../../a.glb", "C:/a.glb", "..\\a.glb"]
)
def test_names_that_lead_outside(gltf, name):
    gltf.box()
    assert refused(pack([(name, gltf.glb())])) == "external_reference"


def test_bombs_are_refused_by_their_directory(gltf):
    gltf.box()
    bomb = pack([("a.glb", gltf.glb()), ("zeros.bin", bytes(50_000_000))])
    assert len(bomb) < 100_000
    assert refused(bomb, limits=MeshLimits(max_bytes=10_000_000)) == "too_large"
    many = pack([("a.glb", gltf.glb())] + [(f"{n}.txt", b"") for n in range(MAX_ENTRIES)])
    assert refused(many) == "too_large"
    # A directory that lies about the size: the entry would unfold to more than it says.
    lie = bytearray(bomb)
    at = lie.rindex(b"PK\x01\x02")
    struct.pack_into("<I", lie, at + 24, 100)
    struct.pack_into("<I", lie, lie.rindex(b"PK\x03\x04") + 22, 100)
    assert refused(bytes(lie)) == "unreadable"
    struct.pack_into("<I", lie, at + 24, 0xFFFFFFF0)
    assert refused(bytes(lie), limits=MeshLimits(max_bytes=2**40)) == "too_large"


def test_encrypted_doubled_and_oddly_packed_entries(gltf):
    gltf.box()
    data = bytearray(pack([("a.glb", gltf.glb())]))
    at = data.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 99)):
        changed = bytearray(data)
        struct.pack_into("<H", changed, at + offset, value)
        assert refused(bytes(changed)) == "unreadable"
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = pack([("a.glb", gltf.glb()), ("a.glb", gltf.glb())])
    assert refused(twice) == "unreadable"


def test_an_entry_without_a_name(gltf):
    gltf.box()  # found by mutation
    data = bytearray(pack([("a.glb", gltf.glb())]))
    at = data.index(b"PK\x01\x02")
    del data[at + 46 : at + 51]
    struct.pack_into("<H", data, at + 28, 0)
    end = data.index(b"PK\x05\x06")
    struct.pack_into("<I", data, end + 12, struct.unpack_from("<I", data, end + 12)[0] - 5)
    assert refused(bytes(data)) == "unreadable"


def test_truncation_and_damage_never_crash(gltf):
    gltf.box()
    whole = pack([("a.glb", gltf.glb()), ("b.txt", b"words")])
    for end in range(4, len(whole), 9):
        assert refused(whole[:end]) in ("truncated", "unreadable")
    rng = np.random.default_rng(4)
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(4, len(data), size=2):
            data[at] = int(rng.integers(256))
        try:
            assert mesh_from_bytes(bytes(data), "zip").num_faces == 12
        except AssetRejected:
            continue


def test_load_mesh_decodes_in_a_confined_process(tmp_path, png):
    path = tmp_path / "chair.zip"
    path.write_bytes(pack([("a.obj", OBJ), ("a.mtl", MTL), ("textures/t.png", png())]))
    mesh = contextvars.Context().run(load_mesh, path)  # without the permission of this file
    assert mesh.materials[0].base_color_texture.shape == (2, 4, 4)
