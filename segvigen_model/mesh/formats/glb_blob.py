"""The bytes of a GLB under construction: accessors, textures, materials, exact positions.

Positions are float32 in the file. Where that would move vertices (a scan in map coordinates), they
are written relative to an origin, which the node gives back as its translation in double precision.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from segvigen_model.types import ByteArray, FloatArray, Material

ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963
FLOAT, UNSIGNED_INT, UNSIGNED_BYTE = 5126, 5125, 5121


@dataclass(slots=True)
class GlbBlob:
    """A GLB under construction."""

    data: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    image_of: dict[int, int] = field(default_factory=dict)

    def add_view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes, aligned to four, and give the view's number."""
        self.data.extend(b"\x00" * (-len(self.data) % 4))
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(view | ({"target": target} if target else {}))
        self.data.extend(data)
        return len(self.views) - 1

    def add_accessor(self, values: Any, kind: str, component: int, **extra: Any) -> int:
        """Append an array and give the accessor's number."""
        target = ELEMENT_BUFFER if kind == "SCALAR" else ARRAY_BUFFER
        view = self.add_view(np.ascontiguousarray(values).tobytes(), target)
        entry = {"bufferView": view, "componentType": component, "count": len(values)}
        self.accessors.append(entry | {"type": kind} | extra)
        return len(self.accessors) - 1

    def add_texture(self, texels: ByteArray) -> dict[str, int]:
        """Append a texture as PNG, once per array, and give its texture info."""
        if id(texels) not in self.image_of:
            stream = io.BytesIO()
            Image.fromarray(texels).save(stream, format="PNG")
            self.image_of[id(texels)] = len(self.images)
            self.images.append(
                {"bufferView": self.add_view(stream.getvalue()), "mimeType": "image/png"}
            )
        return {"index": self.image_of[id(texels)]}


def choose_origin(vertices: FloatArray) -> FloatArray:
    """Choose what positions are written relative to.

    Args:
        vertices: (V, 3) float64, V >= 1.

    Returns:
        (3,) float64: zero where float32 holds every coordinate as it is, else the middle of the
        bounds, rounded to a step that leaves the differences short.
    """
    if np.array_equal(vertices.astype(np.float32).astype(np.float64), vertices):
        return np.zeros(3)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    extent = float((high - low).max())
    if extent <= 0 or float(np.abs(vertices).max()) < extent:
        return np.zeros(3)  # nothing to gain: the coordinates are no larger than the object
    step = 2.0 ** np.floor(np.log2(extent))
    origin: FloatArray = np.round((low + high) / 2 / step) * step
    return origin


def add_positions(blob: GlbBlob, vertices: FloatArray) -> int:
    """Append (V, 3) positions with their bounds, which the standard asks for."""
    values = vertices.astype("<f4")
    bounds = {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
    return blob.add_accessor(values, "VEC3", FLOAT, **bounds)


def describe_node(name: str, mesh: int, origin: FloatArray) -> dict[str, Any]:
    """Make a node that puts a mesh back at its origin."""
    node: dict[str, Any] = {"mesh": mesh, "name": name}
    return node | ({"translation": origin.tolist()} if origin.any() else {})


def build_material(blob: GlbBlob, material: Material) -> dict[str, Any]:
    """Describe a material; its textures are appended, each array once."""
    pbr: dict[str, Any] = {
        "baseColorFactor": list(material.base_color_factor),
        "metallicFactor": material.metallic_factor,
        "roughnessFactor": material.roughness_factor,
    }
    entry: dict[str, Any] = {
        "name": material.name,
        "pbrMetallicRoughness": pbr,
        "emissiveFactor": list(material.emissive_factor),
        "alphaMode": material.alpha_mode,
    }
    if material.alpha_mode == "MASK":
        entry["alphaCutoff"] = material.alpha_cutoff
    if material.base_color_texture is not None:
        pbr["baseColorTexture"] = blob.add_texture(material.base_color_texture)
    if material.metallic_roughness_texture is not None:
        pbr["metallicRoughnessTexture"] = blob.add_texture(material.metallic_roughness_texture)
    if material.emissive_texture is not None:
        entry["emissiveTexture"] = blob.add_texture(material.emissive_texture)
    if material.normal_texture is not None:
        entry["normalTexture"] = blob.add_texture(material.normal_texture)
    return entry


def pack_glb(header: dict[str, Any], blob: GlbBlob) -> bytes:
    """Put header and data together."""
    body = bytes(blob.data) + b"\x00" * (-len(blob.data) % 4)
    header = {
        "asset": {"version": "2.0", "generator": "segvigen"},
        "scene": 0,
        **header,
        "accessors": blob.accessors,
        "bufferViews": blob.views,
        "buffers": [{"byteLength": len(body)}],
    }
    if blob.images:
        header["images"] = blob.images
        header["textures"] = [{"source": number} for number in range(len(blob.images))]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(body)
    return b"".join([
        struct.pack("<4sII", b"glTF", 2, total),
        struct.pack("<II", len(text), 0x4E4F534A),
        text,
        struct.pack("<II", len(body), 0x004E4942),
        body,
    ])  # fmt: skip
