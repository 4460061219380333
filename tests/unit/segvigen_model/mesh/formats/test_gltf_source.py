"""What browsers forgive in the outer layer of glTF is forgiven, and nothing more."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest

from segvigen_model import load_mesh
from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.io import mesh_from_bytes


def repack(data, change):
    """A GLB whose JSON chunk is changed as bytes."""
    size = struct.unpack_from("<I", data, 12)[0]
    text = change(data[20 : 20 + size].rstrip())
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + data[20 + size :]
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def refused(data, suffix="glb", **options):
    with pytest.raises(AssetRejected) as caught:
        mesh_from_bytes(data, suffix, **options)
    assert " at 0x" not in caught.value.message, "an address is another one each time"
    return caught.value.reason


@pytest.mark.parametrize("padding", [b"\x00\x00\x00\x00", b" \x00\r\n", b"\n   "])
def test_json_padded_with_zeros_or_spaces(gltf, padding):
    gltf.box()
    assert mesh_from_bytes(repack(gltf.glb(), lambda text: text + padding), "glb").num_faces == 12
    gltf.header["buffers"] = [{"byteLength": len(gltf.blob), "uri": "a.bin"}]
    text = json.dumps(gltf.header).encode() + padding
    assert mesh_from_bytes(text, "gltf", side_files={"a.bin": gltf.blob}).num_faces == 12


def test_a_name_that_is_not_utf8_costs_the_name_only(gltf):
    gltf.box(name="Stuehle")
    data = repack(gltf.glb(), lambda text: text.replace(b"Stuehle", "Stühle".encode("latin-1")))
    assert mesh_from_bytes(data, "glb").geometry_names == ("St\ufffdhle",)


def _make_inline(gltf, spell):
    header = dict(gltf.header)
    header["buffers"] = [{"byteLength": len(gltf.blob), "uri": spell(gltf.blob)}]
    return json.dumps(header).encode()


URIS = {
    "no padding": lambda b: "data:;base64," + base64.b64encode(b).decode().rstrip("="),
    "upper case": lambda b: "DATA:application/octet-stream;BASE64," + base64.b64encode(b).decode(),
    "line breaks": lambda b: "data:;base64," + base64.encodebytes(b).decode(),
    "percent signs": lambda b: "data:;base64," + base64.b64encode(b).decode().replace("/", "%2F")
    .replace("+", "%2B").replace("=", "%3D"),
    "url alphabet": lambda b: "data:;base64," + base64.urlsafe_b64encode(b).decode(),
    "no base64": lambda b: "data:application/octet-stream," + "".join(f"%{v:02x}" for v in b),
}  # fmt: skip


@pytest.mark.parametrize("how", URIS)
def test_spellings_of_data_uris(gltf, how):
    gltf.box(shift=(0.3, 0.1, 0))  # 168 bytes and one more: base64 needs padding
    gltf.blob += b"\xff"
    mesh = mesh_from_bytes(_make_inline(gltf, URIS[how]), "gltf")
    assert mesh.num_faces == 12 and mesh.vertices.max() == np.float32(0.8)


def test_a_data_uri_of_other_characters_is_refused(gltf):
    gltf.box()
    assert refused(_make_inline(gltf, lambda b: "data:;base64,&&&&"), "gltf") == "unreadable"


def test_percent_signs_in_names(gltf):
    gltf.box()
    for name in ("k%C3%BCche%20%23%31.bin", "50%25%20off.bin", "100%.bin"):
        gltf.header["buffers"] = [{"byteLength": len(gltf.blob), "uri": name}]
        text = json.dumps(gltf.header).encode()
        decoded = {"k%C3%BCche%20%23%31.bin": "küche #1.bin", "50%25%20off.bin": "50% off.bin"}
        for given in {decoded.get(name, name), name}:
            assert mesh_from_bytes(text, "gltf", side_files={given: gltf.blob}).num_faces == 12


def test_a_name_that_begins_with_a_space(gltf, tmp_path):
    # tinygltf's CubeImageUriMultipleSpaces
    gltf.box()
    gltf.header["buffers"] = [{"byteLength": len(gltf.blob), "uri": "%20a  b.bin"}]
    (tmp_path / "a.gltf").write_text(json.dumps(gltf.header))
    (tmp_path / " a  b.bin").write_bytes(gltf.blob)
    assert load_mesh(tmp_path / "a.gltf").num_faces == 12


def test_numbers_of_no_file(gltf):
    gltf.box()
    for number in (b"1e300", b"12345678901234567890", b"-1e300", b"Infinity"):
        data = repack(
            gltf.glb(),
            lambda text, number=number: text.replace(
                b'"byteOffset": 0', b'"byteOffset": ' + number
            ),
        )
        assert refused(data) == "unreadable"


def test_whole_numbers_written_as_decimals(gltf):
    gltf.box()
    data = repack(
        gltf.glb(),
        lambda text: text.replace(b'"mesh": 0', b'"mesh": 0.0').replace(b"5126", b"5126.0"),
    )
    assert mesh_from_bytes(data, "glb").num_faces == 12


JUNK = [None, True, -1, 1.5, 10**40, "x", [], {}, [[]], float("nan")]


def _list_places(value, path=()):
    """Every place in the JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        yield (*path, key)
        if isinstance(child, dict | list):
            yield from _list_places(child, (*path, key))


def test_junk_anywhere_in_the_json_is_refused_or_harmless(gltf, png):
    material = gltf.texture(png(), alphaMode="MASK", normalTexture={"index": 0})
    joints = gltf.accessor(np.zeros((8, 4)), "u1")
    weights = gltf.accessor(np.tile([1.0, 0, 0, 0], (8, 1)))
    target = gltf.accessor(np.zeros((8, 3)))
    gltf.box(
        material=material, mode=4, targets=[{"POSITION": target}],
        attributes={"JOINTS_0": joints, "WEIGHTS_0": weights, "COLOR_0": weights},
    )  # fmt: skip
    shift = gltf.accessor([[0, 0, 0], [2, 0, 0]])
    instancing = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": shift}}}
    gltf.header["skins"] = [
        {"joints": [1], "inverseBindMatrices": gltf.accessor([np.eye(4).ravel()])}
    ]
    gltf.place(
        {"mesh": 0, "skin": 0, "weights": [0.5]},
        {"translation": [0, 0, 0], "rotation": [0, 0, 0, 1], "children": []},
        {"mesh": 0, "extensions": instancing},
    )
    gltf.header |= {"extensionsUsed": ["EXT_mesh_gpu_instancing"], "extensionsRequired": []}
    data = gltf.glb()
    assert mesh_from_bytes(data, "glb").num_faces == 36
    text = json.dumps(json.loads(json.dumps(gltf.header)))
    for number, place in enumerate(_list_places(gltf.header)):
        for junk in (JUNK[number % len(JUNK)], JUNK[(number * 7 + 3) % len(JUNK)], []):
            header = json.loads(text)
            owner = header
            for key in place[:-1]:
                owner = owner[key]
            owner[place[-1]] = junk
            broken = repack(data, lambda _, header=header: json.dumps(header).encode())
            try:
                mesh = mesh_from_bytes(broken, "glb")
            except AssetRejected:
                continue
            assert mesh.faces.max() < len(mesh.vertices), place


def test_announced_lengths_are_compared(gltf):
    gltf.box()
    whole = gltf.header
    short = gltf.blob[:-8]
    for bytes_there, reason in ((short, "truncated"), (gltf.blob[:40], "truncated")):
        header = whole | {"buffers": [{"byteLength": len(gltf.blob), "uri": "a.bin"}]}
        text = json.dumps(header).encode()
        assert refused(text, "gltf", side_files={"a.bin": bytes_there}) == reason
    # A writer may count the padding of the last value, or not.
    header = whole | {"buffers": [{"byteLength": len(gltf.blob) + 3, "uri": "a.bin"}]}
    text = json.dumps(header).encode()
    assert mesh_from_bytes(text, "gltf", side_files={"a.bin": gltf.blob}).num_faces == 12
