"""Every reason for which a file is refused, once; and noise, which must never do worse."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFile

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes


def refused(data, suffix, **kwargs):
    with pytest.raises(AssetRejected) as caught:
        mesh_from_bytes(data, suffix, **kwargs)
    assert len(caught.value.message) > 15
    return caught.value.reason


@pytest.mark.parametrize("suffix", ["glb", "gltf", "obj", "ply", "stl", "off"])
def test_empty(suffix):
    assert refused(b"", suffix) == "empty_file"
    assert refused(b" \n\x00", suffix) == "empty_file"


@pytest.mark.parametrize("suffix", ["glb", "ply", "stl"])
@pytest.mark.parametrize("keep", [0.03, 0.5, 0.95])
def test_truncated(box, suffix, keep):
    data = box.export(file_type=suffix)
    reason = refused(data[: max(int(len(data) * keep), 3)], suffix)
    assert reason in ("truncated", "wrong_extension", "unreadable", "empty_file")
    if keep > 0.1:
        assert reason in ("truncated", "unreadable")
    if suffix == "glb":
        assert reason == "truncated"


def test_wrong_extension(box, png):
    glb = box.export(file_type="glb")
    for suffix in ("glb", "gltf", "obj", "ply", "stl", "off"):
        assert refused(png(), suffix) == "wrong_extension"
        assert refused(b"PK\x03\x04" + bytes(200), suffix) == "wrong_extension"
        if suffix != "glb":
            assert refused(glb, suffix) == "wrong_extension"
    assert refused(b"hello, this is a letter\n" * 9, "obj") == "wrong_extension"
    assert refused(b"x" * 100, "exe") == "unsupported_format"


def test_too_large(box):
    assert (
        refused(box.export(file_type="glb"), "glb", limits=MeshLimits(max_bytes=100)) == "too_large"
    )


def test_nan_vertices(gltf):
    gltf.triangle([[0, 0, 0], [np.nan, 0, 0], [0, 1, 0]])
    assert refused(gltf.glb(), "glb") == "nan_vertices"
    assert refused(b"v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n", "obj") == "nan_vertices"


def test_no_faces(gltf):
    positions = gltf.accessor(np.eye(3))
    gltf.mesh(attributes={"POSITION": positions}, mode=0)
    assert refused(gltf.glb(), "glb") == "no_faces"
    assert refused(b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "obj") == "no_faces"
    assert refused(b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "off") == "no_faces"
    assert refused(bytes(80) + struct.pack("<I", 0), "stl") in ("no_faces", "empty_file")
    empty = {"asset": {"version": "2.0"}, "scenes": [{"nodes": []}], "scene": 0}
    assert refused(json.dumps(empty).encode(), "gltf") == "no_faces"


def test_degenerate(gltf):
    gltf.triangle(np.ones((3, 3)))
    assert refused(gltf.glb(), "glb") == "degenerate"


def test_ten_million_faces_are_refused_by_their_announcement(gltf):
    """No data stands behind the counts; only the announcement can have been read."""
    gltf.header["accessors"] = [
        {"componentType": 5126, "count": 100, "type": "VEC3"},
        {"componentType": 5125, "count": 30_000_000, "type": "SCALAR"},
    ]
    gltf.mesh(attributes={"POSITION": 0}, indices=1)
    assert refused(gltf.glb(), "glb") == "too_many_faces"
    stl = bytes(80) + struct.pack("<I", 10_000_000)
    assert refused(stl, "stl") == "truncated", "announces more than it has"
    header = (
        b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        b"property float z\nelement face 10000000\n"
        b"property list uchar int vertex_indices\nend_header\n"
    )
    assert refused(header + b"0\n" * 10_000_100, "ply") == "too_many_faces"
    assert refused(header, "ply") == "truncated"
    assert refused(b"OFF\n3 10000000 0\n" + b"0\n" * 10_000_100, "off") == "too_many_faces"
    assert refused(b"v 0 0 0\n" + b"f 1 1 1\n" * 3_000_000, "obj") == "too_many_faces"


def test_instancing_bomb(gltf):
    gltf.triangle()
    gltf.header["nodes"] = [{"mesh": 0} for _ in range(500)]
    gltf.header["scenes"] = [{"nodes": list(range(500))}]
    assert refused(gltf.glb(), "glb", limits=MeshLimits(max_faces=400)) == "too_many_faces"
    assert refused(gltf.glb(), "glb", limits=MeshLimits(max_vertices=400)) == "too_many_vertices"
    assert refused(gltf.glb(), "glb", limits=MeshLimits(max_nodes=400)) == "too_many_nodes"
    # A graph whose paths double at every level would never end.
    gltf.header["nodes"] = [{"children": [i + 1, i + 1]} for i in range(60)] + [{"mesh": 0}]
    gltf.header["scenes"] = [{"nodes": [0]}]
    assert refused(gltf.glb(), "glb") == "unreadable"
    gltf.header["nodes"] = [{"children": [0], "mesh": 0}]
    assert refused(gltf.glb(), "glb") == "unreadable"


def test_texture_bombs(gltf, bomb_png, png, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("was decoded"))
    material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    gltf.header |= {"textures": [{"source": 0}], "materials": [material]}
    gltf.triangle(material=0)
    for side in (9000, 60000):  # below and above the point where PIL itself refuses
        gltf.header["images"] = [{"bufferView": gltf.view(bomb_png(side))}]
        assert refused(gltf.glb(), "glb") == "texture_too_large"
    gltf.header["images"] = [{"bufferView": gltf.view(png(100, 100))}]
    limits = MeshLimits(max_texture_pixels=9999)
    assert refused(gltf.glb(), "glb", limits=limits) == "texture_too_large"
    two = {"emissiveTexture": {"index": 1}, **material}
    gltf.header |= {"textures": [{"source": 0}, {"source": 1}], "materials": [two]}
    gltf.header["images"] *= 2
    limits = MeshLimits(max_texture_pixels=19_999)
    assert refused(gltf.glb(), "glb", limits=limits) == "texture_too_large", "all together"
    obj = b"mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n"
    sides = {"a.mtl": b"newmtl m\nmap_Kd b.png\n", "b.png": bomb_png()}
    assert refused(obj, "obj", side_files=sides) == "texture_too_large"


def test_bad_texture(gltf, png):
    material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    gltf.header |= {"textures": [{"source": 0}], "materials": [material]}
    gltf.triangle(material=0)
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"no image", png(64, 64)[:60]):
        gltf.header["images"] = [{"bufferView": gltf.view(data)}]
        assert refused(gltf.glb(), "glb") == "bad_texture"
    gltf.header["images"] = [{"name": "nothing"}]
    assert refused(gltf.glb(), "glb") == "bad_texture"


@pytest.mark.parametrize(
    "uri",
    ["../secret.bin", "/etc/passwd", "http://example.org/a.bin", "file:///etc/passwd",
     "C:\\a.bin", "a/../../b.bin", "~/x", "%2e%2e/secret.bin", "beside.bin"],
)  # fmt: skip
def test_a_glb_that_names_files_outside_itself(gltf, uri):
    gltf.triangle()
    gltf.header["buffers"] = [{"byteLength": len(gltf.blob), "uri": uri}]
    given = {"secret.bin": gltf.blob, "beside.bin": gltf.blob}
    blob, gltf.blob = gltf.blob, b""
    assert refused(gltf.glb(), "glb", side_files={uri: blob, **given}) == "external_reference"
    text = json.dumps(gltf.header).encode()
    if uri == "beside.bin":
        assert refused(text, "gltf") == "missing_side_file"
        assert mesh_from_bytes(text, "gltf", side_files={"beside.bin": blob}).num_faces == 1
    else:
        assert refused(text, "gltf", side_files=given) == "external_reference"


def test_a_file_that_was_found_for_an_outside_name_is_read(gltf):
    """`side_search` gives it under the name as written, from inside the mesh's folder."""
    gltf.triangle()
    gltf.header["buffers"] = [{"byteLength": len(gltf.blob), "uri": "../else/a.bin"}]
    text = json.dumps(gltf.header).encode()
    assert mesh_from_bytes(text, "gltf", side_files={"../else/a.bin": gltf.blob}).num_faces == 1


def test_references_of_obj_and_ply(tmp_path, png):
    outside = tmp_path / "real.mtl"
    outside.write_bytes(b"newmtl m\nKd 1 0 0\n")
    body = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    for name in (str(outside).encode(), b"../real.mtl", b"http://example.org/real.mtl"):
        assert refused(b"mtllib " + name + b"\n" + body, "obj") == "external_reference"
    assert refused(b"mtllib gone.mtl\n" + body, "obj") == "missing_side_file"
    sides = {"a.mtl": b"newmtl m\nmap_Kd /etc/hosts\n"}
    body = b"usemtl m\n" + body
    assert refused(b"mtllib a.mtl\n" + body, "obj", side_files=sides) == "external_reference"
    ply = (
        b"ply\nformat ascii 1.0\ncomment TextureFile ../t.png\nelement vertex 3\n"
        b"property float x\nproperty float y\nproperty float z\nproperty float s\n"
        b"property float t\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
        b"0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 1\n3 0 1 2\n"
    )
    assert refused(ply, "ply") == "external_reference"


def test_unsupported_extension(gltf):
    gltf.triangle()
    gltf.header["extensionsRequired"] = ["CESIUM_RTC"]
    assert refused(gltf.glb(), "glb") == "unsupported_extension"


def _break(change):
    def apply(gltf):
        indices = gltf.accessor([0, 1, 2], "u2")
        gltf.triangle(indices=indices)
        change(gltf.header)
        return gltf.glb()

    return apply


BROKEN = {
    "version": _break(lambda h: h["asset"].update(version="1.0")),
    "no position": _break(lambda h: h["meshes"][0]["primitives"][0].update(attributes={})),
    "index out of range": _break(lambda h: h["accessors"][1].update(count=2)),
    "negative count": _break(lambda h: h["accessors"][0].update(count=-3)),
    "count of text": _break(lambda h: h["accessors"][0].update(count="3")),
    "unknown component": _break(lambda h: h["accessors"][0].update(componentType=1)),
    "view beyond buffer": _break(lambda h: h["bufferViews"][1].update(byteOffset=10**9)),
    "accessor beyond view": _break(lambda h: h["accessors"][1].update(count=9)),
    "no such mesh": _break(lambda h: h["nodes"][0].update(mesh=7)),
    "node is text": _break(lambda h: h.update(nodes=["x"])),
    "scene is a number": _break(lambda h: h.update(scenes=[3])),
    "matrix of text": _break(lambda h: h["nodes"][0].update(matrix=["a"] * 16)),
    "infinite matrix": _break(lambda h: h["nodes"][0].update(translation=[1e400, 0, 0])),
    "material missing": _break(lambda h: h["meshes"][0]["primitives"][0].update(material=2)),
    "factor of text": _break(
        lambda h: (
            h.update(materials=[{"pbrMetallicRoughness": {"metallicFactor": "x"}}]),
            h["meshes"][0]["primitives"][0].update(material=0),
        )
    ),
    "not three corners": _break(lambda h: h["accessors"][0].update(count=2)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_gltf(gltf, name):
    assert refused(BROKEN[name](gltf), "glb") in ("unreadable", "truncated")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    suffix=st.sampled_from(["glb", "gltf", "obj", "ply", "stl", "off"]),
)
def test_damaged_files_are_refused_or_read_but_never_crash(seed, suffix):
    rng = np.random.default_rng(seed)
    data = bytearray(SAMPLES[suffix])
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(data)))
        match int(rng.integers(3)):
            case 0:
                data[at] = int(rng.integers(256))
            case 1:
                del data[at : at + int(rng.integers(1, 40))]
            case _:
                data[at:at] = bytes(rng.integers(0, 256, size=8, dtype=np.uint8))
    try:
        mesh = mesh_from_bytes(bytes(data), suffix, limits=MeshLimits(max_faces=1000))
    except AssetRejected:
        return
    assert np.isfinite(mesh.vertices).all()
    assert mesh.faces.min() >= 0 and mesh.faces.max() < len(mesh.vertices)


def _samples():
    import base64

    import trimesh

    box = trimesh.creation.box()
    files = {kind: box.export(file_type=kind) for kind in ("glb", "obj", "ply", "stl", "off")}
    parts = box.export(file_type="gltf")
    header = json.loads(parts["model.gltf"])
    for buffer in header["buffers"]:
        inline = base64.b64encode(parts[buffer["uri"]]).decode()
        buffer["uri"] = "data:application/octet-stream;base64," + inline
    files["gltf"] = json.dumps(header).encode()
    return {kind: data.encode() if isinstance(data, str) else data for kind, data in files.items()}


SAMPLES = _samples()
