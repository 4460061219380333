"""Small meshes and hand-made glTF files."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
import pytest
import trimesh
from PIL import Image


def pack_glb(header, blob=b""):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    blob += b"\x00" * (-len(blob) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    if blob:
        chunks += struct.pack("<II", len(blob), 0x004E4942) + blob
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


KINDS = {"f4": 5126, "u4": 5125, "u2": 5123, "u1": 5121, "i2": 5122, "i1": 5120}
SHAPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class GltfMaker:
    """Builds a glTF header and its buffer piece by piece."""

    def __init__(self):
        self.blob = b""
        self.header = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}], "meshes": [], "accessors": [], "bufferViews": [],
        }  # fmt: skip

    def view(self, data):
        self.blob += b"\x00" * (-len(self.blob) % 4)
        view = {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data)}
        self.header["bufferViews"].append(view)
        self.blob += data
        return len(self.header["bufferViews"]) - 1

    def accessor(self, values, kind="f4", **extra):
        values = np.atleast_1d(np.asarray(values, dtype="<" + kind))
        width = 1 if values.ndim == 1 else values.shape[1]
        entry = {
            "bufferView": self.view(values.tobytes()), "componentType": KINDS[kind],
            "count": len(values), "type": SHAPES[width],
        }  # fmt: skip
        self.header["accessors"].append(entry | extra)
        return len(self.header["accessors"]) - 1

    def mesh(self, name="box", **primitive):
        self.header["meshes"].append({"name": name, "primitives": [primitive]})
        return len(self.header["meshes"]) - 1

    def triangle(self, vertices=((0, 0, 0), (1, 0, 0), (0, 1, 0)), **extra):
        return self.mesh(attributes={"POSITION": self.accessor(vertices)}, **extra)

    def box(self, shift=(0, 0, 0), extents=(1, 1, 1), name="box", **primitive):
        """A box of 8 vertices and 12 faces about `shift`."""
        mesh = trimesh.creation.box(extents=extents)
        attributes = {"POSITION": self.accessor(mesh.vertices + np.array(shift))}
        attributes |= primitive.pop("attributes", {})
        return self.mesh(
            name,
            attributes=attributes,
            indices=self.accessor(mesh.faces.ravel(), "u2"),
            **primitive,
        )

    def place(self, *nodes):
        """These nodes are the scene, the first one first in the order of faces."""
        self.header["nodes"] = list(nodes)
        self.header["scenes"] = [{"nodes": list(range(len(nodes)))[::-1]}]

    def texture(self, data, **material):
        """A material with a base colour texture of these bytes."""
        header = self.header
        images = header.setdefault("images", [])
        images.append({"bufferView": self.view(data)})
        header.setdefault("textures", []).append({"source": len(images) - 1})
        color = {"baseColorTexture": {"index": len(header["textures"]) - 1}}
        header.setdefault("materials", []).append({"pbrMetallicRoughness": color} | material)
        return len(header["materials"]) - 1

    def glb(self):
        if self.blob:
            self.header["buffers"] = [{"byteLength": len(self.blob)}]
        return pack_glb(self.header, self.blob)


@pytest.fixture
def gltf():
    return GltfMaker()


@pytest.fixture
def box():
    return trimesh.creation.box(extents=(1, 2, 3))


@pytest.fixture
def png():
    def make(width=4, height=2, color=(255, 0, 0)):
        stream = io.BytesIO()
        Image.new("RGB", (width, height), color).save(stream, format="PNG")
        return stream.getvalue()

    return make


@pytest.fixture
def bomb_png():
    """A PNG of 60000 x 60000 pixels in a few hundred bytes; decoding it would take gigabytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    def make(side=60000):
        head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        data = zlib.compress(b"\x00" * 1000)
        return (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
        )

    return make
