"""Compressed geometry and textures of glTF, written by the formats' own encoders."""

from __future__ import annotations

import base64
import sys

import numpy as np
import pytest

from segvigen_model import load_mesh
from segvigen_model.errors import AssetRejected, MissingExtra
from segvigen_model.mesh.formats.isolation import allow_decoding_here
from segvigen_model.mesh.io import mesh_from_bytes

DracoPy = pytest.importorskip("DracoPy", reason="needs the extra `formats`")
meshopt = pytest.importorskip("meshopt", reason="needs the extra `formats`")
pytest.importorskip("opengl_basisu", reason="needs the extra `formats`")

GRID = np.array([[x, y, 0.25 * x * y] for y in range(5) for x in range(5)], dtype=np.float32)
CORNER = (np.arange(4)[:, None] * 5 + np.arange(4)).ravel()
FACES = np.concatenate([
    np.column_stack([CORNER, CORNER + 1, CORNER + 5]),
    np.column_stack([CORNER + 1, CORNER + 6, CORNER + 5]),
]).astype(np.uint32)  # fmt: skip
# 8 x 8 pixels, (200, 100, 0) above and (200, 0, 0) below, as basisu's encoder writes them.
KTX2 = {
    "etc1s": (
        "q0tUWCAyMLsNChoKAAAAAAEAAAAIAAAACAAAAAAAAAAAAAAAAQAAAAEAAAABAAAAaAAAACwAAACUAAAAJAAAALgA"
        "AAAAAAAAhwAAAAAAAAA/AQAAAAAAAAIAAAAAAAAAAAAAAAAAAAAsAAAAAAAAAAIAKACjAQIAAwMAAAgAAAAAAAAA"
        "AAA/AAAAAAAAAAAA/////x8AAABLVFh3cml0ZXIAQmFzaXMgVW5pdmVyc2FsIDIuMTAAAAIAAgAqAAAACQAAACwA"
        "AAAAAAAAAAAAAAAAAAACAAAAAAAAAAAAAAABwAQAAAAAAACiA4gBAAAAAABZKSQBYAJAAAAAAABRAJgAAAAAAABA"
        "gC2sqqqqUlVVVQU0wEQAAAAAAAASRQCYAAAAAAAAQBgBJgQIAAAAgCBySgHABAAAAAAAAAIIAHQA"
    ),
    "uastc": (
        "q0tUWCAyMLsNChoKAAAAAAEAAAAIAAAACAAAAAAAAAAAAAAAAQAAAAEAAAAAAAAAaAAAACwAAACUAAAALAAAAAAA"
        "AAAAAAAAAAAAAAAAAADAAAAAAAAAAEAAAAAAAAAAQAAAAAAAAAAsAAAAAAAAAAIAKACmAQIAAwMAABAAAAAAAAAA"
        "AAB/AAAAAAAAAAAA/////x8AAABLVFh3cml0ZXIAQmFzaXMgVW5pdmVyc2FsIDIuMTAAAAQAAAB/fwAAF5kM4P/z"
        "EgAAAAAAAAAAABeZDOD/8xIAAAAAAAAAAAAXGQDg//MAAAAAAAAAAAAAFxkA4P/zAAAAAAAAAAAAAA=="
    ),
}


@pytest.fixture
def decode_here():
    with allow_decoding_here():
        yield


def add_draco(gltf, *, is_required=True, has_fallback=False, **more):
    options = {"preserve_order": True, "quantization_bits": 20} | more
    data = DracoPy.encode(GRID, FACES, **options)
    plain = {"componentType": 5126, "count": len(GRID), "type": "VEC3"}
    indices = {"componentType": 5125, "count": FACES.size, "type": "SCALAR"}
    if has_fallback:
        position, index = gltf.accessor(GRID), gltf.accessor(FACES.ravel(), "u4")
    else:
        gltf.header["accessors"] += [plain, indices]
        position, index = 0, 1
    extension = {"bufferView": gltf.view(data), "attributes": {"POSITION": 0}}
    gltf.mesh(
        attributes={"POSITION": position},
        indices=index,
        extensions={"KHR_draco_mesh_compression": extension},
    )
    gltf.header["extensionsUsed"] = ["KHR_draco_mesh_compression"]
    if is_required:
        gltf.header["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    return data


def test_draco(gltf, decode_here):
    add_draco(gltf)
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert np.allclose(mesh.triangles, GRID[FACES], atol=1e-4)


def test_draco_in_the_confined_process_of_load_mesh(gltf, tmp_path):
    add_draco(gltf)
    path = tmp_path / "a.glb"
    path.write_bytes(gltf.glb())
    with pytest.raises(AssetRejected, match="needs_sandbox: Draco"):
        mesh_from_bytes(gltf.glb(), "glb")
    assert np.allclose(load_mesh(path).triangles, GRID[FACES], atol=1e-4)


def test_draco_attributes_by_number(gltf, decode_here):
    uv = GRID[:, :2].astype(np.float64) / 4
    colors = np.tile(np.uint8([[255, 128, 0, 255]]), (len(GRID), 1))
    add_draco(gltf, tex_coord=uv, colors=colors)
    decoded = DracoPy.decode(DracoPy.encode(GRID, FACES, tex_coord=uv, colors=colors))
    numbers = {entry["attribute_type"]: entry["unique_id"] for entry in decoded.attributes}
    primitive = gltf.header["meshes"][0]["primitives"][0]
    gltf.header["accessors"] += [
        {"componentType": 5126, "count": len(GRID), "type": "VEC2"},
        {"componentType": 5121, "count": len(GRID), "type": "VEC4", "normalized": True},
    ]
    primitive["attributes"] |= {"TEXCOORD_0": 2, "COLOR_0": 3}
    packed = primitive["extensions"]["KHR_draco_mesh_compression"]["attributes"]
    packed |= {"POSITION": numbers[0], "COLOR_0": numbers[2], "TEXCOORD_0": numbers[3]}
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    assert np.allclose(mesh.corner_uv, uv[FACES], atol=1e-3)
    assert mesh.vertex_colors.tolist() == colors.tolist()
    packed["COLOR_0"] = 77
    with pytest.raises(AssetRejected, match="no attribute 77"):
        mesh_from_bytes(gltf.glb(), "glb")


def test_plain_values_beside_draco_need_no_decoder(gltf):
    add_draco(gltf, is_required=False, has_fallback=True)
    assert mesh_from_bytes(gltf.glb(), "glb").num_faces == len(FACES)


@pytest.mark.parametrize("accessor", [0, 1])
def test_draco_that_gives_other_counts_than_announced(gltf, decode_here, accessor):
    add_draco(gltf)
    gltf.header["accessors"][accessor]["count"] += 3
    with pytest.raises(AssetRejected, match=r"truncated.*announces"):
        mesh_from_bytes(gltf.glb(), "glb")


def test_damaged_draco_is_refused(gltf, decode_here):
    data = add_draco(gltf)
    view = gltf.header["bufferViews"][0]
    rng = np.random.default_rng(1)
    for _ in range(60):
        broken = bytearray(data)
        broken[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        gltf.blob = bytes(broken)
        view["byteLength"] = len(data) if rng.random() < 0.7 else int(rng.integers(len(data)))
        try:
            mesh = mesh_from_bytes(gltf.glb(), "glb")
        except AssetRejected:
            continue
        assert mesh.num_faces == len(FACES), "announced = read"


def add_meshopt(gltf, values, mode, name="EXT_meshopt_compression", **more):
    values = np.ascontiguousarray(values)
    data = meshopt.encode_gltf_buffer(values, mode)
    size = values.itemsize * (values.shape[1] if values.ndim == 2 else 1)
    count = len(values)
    packed = gltf.view(data)
    view = gltf.header["bufferViews"][packed]
    extension = view | {"byteStride": size, "count": count, "mode": mode} | more
    gltf.header["bufferViews"][packed] = {
        "buffer": 1, "byteLength": size * count, "extensions": {name: extension},
    }  # fmt: skip
    return packed


@pytest.mark.parametrize("name", ["EXT_meshopt_compression", "KHR_meshopt_compression"])
@pytest.mark.parametrize("mode", ["TRIANGLES", "INDICES"])
def test_meshopt(gltf, decode_here, name, mode):
    positions = add_meshopt(gltf, GRID, "ATTRIBUTES", name)
    indices = add_meshopt(gltf, FACES.ravel(), mode, name)
    gltf.header["accessors"] = [
        {"bufferView": positions, "componentType": 5126, "count": len(GRID), "type": "VEC3"},
        {"bufferView": indices, "componentType": 5125, "count": FACES.size, "type": "SCALAR"},
    ]
    gltf.mesh(attributes={"POSITION": 0}, indices=1)
    gltf.header["extensionsRequired"] = [name]
    mesh = mesh_from_bytes(gltf.glb(), "glb")
    expected = GRID[FACES]
    if mode == "TRIANGLES":  # the codec may begin a triangle at another corner
        found = np.sort(mesh.triangles.reshape(len(FACES), -1), axis=1)
        assert np.array_equal(found, np.sort(expected.reshape(len(FACES), -1), axis=1))
    else:
        assert np.array_equal(mesh.triangles, expected)


def test_meshopt_filters(gltf, decode_here):
    packed = meshopt.encode_filter_exp(GRID, 15)
    positions = add_meshopt(gltf, packed, "ATTRIBUTES", filter="EXPONENTIAL")
    gltf.header["bufferViews"][positions]["byteLength"] = GRID.nbytes
    gltf.header["accessors"] = [
        {"bufferView": positions, "componentType": 5126, "count": len(GRID), "type": "VEC3"}
    ]
    gltf.mesh(attributes={"POSITION": 0}, indices=gltf.accessor(FACES.ravel(), "u4"))
    assert np.allclose(mesh_from_bytes(gltf.glb(), "glb").triangles, GRID[FACES], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"count": 10**9}, "truncated"), ({"count": 24}, "truncated"),
     ({"byteStride": 7}, "unreadable"), ({"mode": "NONE"}, "unreadable"),
     ({"filter": ["x"]}, "unreadable"),
     ({"byteLength": 20}, "unreadable"), ({"byteStride": 1024}, "unreadable")],
)  # fmt: skip
def test_meshopt_views_that_lie(gltf, decode_here, change, reason):
    positions = add_meshopt(gltf, GRID, "ATTRIBUTES")
    extensions = gltf.header["bufferViews"][positions]["extensions"]
    extensions["EXT_meshopt_compression"] |= change
    gltf.header["accessors"] = [
        {"bufferView": positions, "componentType": 5126, "count": len(GRID), "type": "VEC3"}
    ]
    gltf.mesh(attributes={"POSITION": 0}, indices=gltf.accessor(FACES.ravel(), "u4"))
    with pytest.raises(AssetRejected) as caught:
        mesh_from_bytes(gltf.glb(), "glb")
    assert caught.value.reason in (reason, "unreadable")


@pytest.mark.parametrize("codec", KTX2)
def test_ktx2_textures(gltf, decode_here, codec):
    gltf.texture(base64.b64decode(KTX2[codec]))
    gltf.header["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
    gltf.header["extensionsRequired"] = ["KHR_texture_basisu"]
    gltf.box(material=0)
    texels = mesh_from_bytes(gltf.glb(), "glb").materials[0].base_color_texture
    assert texels.shape == (8, 8, 4)
    assert np.abs(texels[0, 0].astype(int) - [200, 100, 0, 255]).max() <= 3
    assert np.abs(texels[7, 7].astype(int) - [200, 0, 0, 255]).max() <= 3


def test_a_plain_image_beside_ktx2_is_taken(gltf, png):
    gltf.texture(png(color=(1, 2, 3)))
    gltf.header["textures"][0]["extensions"] = {"KHR_texture_basisu": {"source": 1}}
    gltf.box(material=0)
    texels = mesh_from_bytes(gltf.glb(), "glb").materials[0].base_color_texture
    assert texels[0, 0].tolist() == [1, 2, 3, 255]


def test_ktx2_that_is_cut_or_damaged(gltf, decode_here):
    whole = base64.b64decode(KTX2["uastc"])
    rng = np.random.default_rng(2)
    for step in range(60):
        data = bytearray(whole)
        if step % 2:
            data = data[: int(rng.integers(12, len(whole)))]
        else:
            data[int(rng.integers(12, len(whole)))] ^= 255
        gltf.header.update(images=[], textures=[], materials=[], meshes=[])
        gltf.box(material=gltf.texture(bytes(data)))
        try:
            texels = mesh_from_bytes(gltf.glb(), "glb").materials[0].base_color_texture
        except AssetRejected as err:
            assert err.reason in ("bad_texture", "texture_too_large")
            continue
        assert texels.shape == (8, 8, 4)


@pytest.mark.parametrize("module", ["DracoPy", "meshopt", "opengl_basisu"])
def test_an_absent_decoder_is_named_with_its_command(gltf, decode_here, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    if module == "DracoPy":
        add_draco(gltf)
    elif module == "meshopt":
        view = add_meshopt(gltf, GRID, "ATTRIBUTES")
        gltf.header["accessors"] = [
            {"bufferView": view, "componentType": 5126, "count": len(GRID), "type": "VEC3"}
        ]
        gltf.mesh(attributes={"POSITION": 0}, indices=gltf.accessor(FACES.ravel(), "u4"))
    else:
        gltf.box(material=gltf.texture(base64.b64decode(KTX2["etc1s"])))
    with pytest.raises(
        MissingExtra, match=rf"{module} is not installed; pip install .*\[formats\]"
    ):
        mesh_from_bytes(gltf.glb(), "glb")


def test_meshopt_and_ktx2_in_the_confined_process_of_load_mesh(gltf, tmp_path):
    view = add_meshopt(gltf, GRID, "ATTRIBUTES")
    gltf.header["accessors"] = [
        {"bufferView": view, "componentType": 5126, "count": len(GRID), "type": "VEC3"}
    ]
    indices = gltf.accessor(FACES.ravel(), "u4")
    material = gltf.texture(base64.b64decode(KTX2["uastc"]))
    gltf.mesh(attributes={"POSITION": 0}, indices=indices, material=material)
    path = tmp_path / "a.glb"
    path.write_bytes(gltf.glb())
    mesh = load_mesh(path)
    assert np.array_equal(mesh.triangles, GRID[FACES])
    assert mesh.materials[0].base_color_texture.shape == (8, 8, 4)
