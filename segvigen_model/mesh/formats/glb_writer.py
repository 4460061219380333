"""Meshes to GLB: as they came, with their materials, or coloured by part for a viewer.

Faces come back in the same order from `mesh_from_bytes` and from trimesh. Vertices that no face
uses are left out.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from segvigen_model.types import AssetMesh, ByteArray, FloatArray, IntArray, Material

ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963
FLOAT, UNSIGNED_INT, UNSIGNED_BYTE = 5126, 5125, 5121
GOLDEN_SHARE = 0.618033988749895  # steps of this share of the circle keep hues apart


@dataclass(slots=True)
class _Blob:
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


def mesh_to_glb(
    mesh: AssetMesh, face_labels: IntArray | None = None, colors: ByteArray | None = None
) -> bytes:
    """Write a mesh as GLB.

    Args:
        mesh: what to write.
        face_labels: (F,) int, part ids >= 0 (-1 is grey); faces are then coloured by part.
        colors: (P, 3 or 4) uint8, a colour per part, with `face_labels`; or (F, 3 or 4) uint8, a
            colour per face, without.

    Returns:
        The file's bytes.
    """
    if face_labels is None and colors is None:
        return _pack_glb(*_build_plain_scene(mesh))
    per_face = (
        colors if face_labels is None else _look_up_label_colors(np.asarray(face_labels), colors)
    )
    assert per_face is not None
    if len(per_face) != mesh.num_faces:
        raise ValueError(f"{len(per_face)} face colours for {mesh.num_faces} faces")
    return _pack_glb(*_build_colored_scene(mesh, np.asarray(per_face, dtype=np.uint8)))


def parts_to_glb(mesh: AssetMesh, face_labels: IntArray, colors: ByteArray) -> bytes:
    """Write a mesh as GLB with one node per part, named `part 0`, `part 1`, ..., in one colour.

    Args:
        mesh: what to write; its materials are left out.
        face_labels: (F,) int part ids 0..P-1, each with a face.
        colors: (P, 3) uint8, sRGB.

    Returns:
        The file's bytes. Faces of a part keep their order.

    Raises:
        ValueError: the labels are not dense, or there is not one colour per part.
    """
    ids = np.unique(face_labels)
    if not np.array_equal(ids, np.arange(len(colors))):
        raise ValueError(
            f"{len(colors)} colours for part ids {ids.tolist()}; give dense ids from 0 and one "
            "colour per part"
        )
    blob = _Blob()
    linear = np.where(colors <= 10, colors / 3294.6, ((colors / 255 + 0.055) / 1.055) ** 2.4)
    numbers = range(len(colors))
    meshes = []
    for part in numbers:
        corners = mesh.triangles[face_labels == part].reshape(-1, 3)
        primitive = {"attributes": {"POSITION": _add_positions(blob, corners)}, "material": part}
        meshes.append({"name": f"part {part}", "primitives": [primitive]})
    header = {
        "materials": [
            {
                "name": f"part {part}",
                "pbrMetallicRoughness": {
                    "baseColorFactor": [*linear[part].tolist(), 1.0],
                    "metallicFactor": 0.0,
                },
                "doubleSided": True,
            }
            for part in numbers
        ],
        "meshes": meshes,
        "nodes": [{"mesh": part, "name": f"part {part}"} for part in numbers],
        "scenes": [{"nodes": [*numbers][::-1]}],  # readers take the last child first
    }
    return _pack_glb(header, blob)


def make_part_colors(num_parts: int) -> ByteArray:
    """Give well-separated colours, always the same: (num_parts, 3) uint8."""
    turn = 6.0 * ((np.arange(num_parts) * GOLDEN_SHARE) % 1.0)
    hue = np.clip(np.abs((turn[:, None] + np.array([0.0, 4.0, 2.0])) % 6.0 - 3.0) - 1.0, 0.0, 1.0)
    light = np.where(np.arange(num_parts) % 2 == 0, 0.95, 0.7)[:, None]
    table: ByteArray = np.rint(255.0 * light * (0.25 + 0.75 * hue)).astype(np.uint8)
    return table


def _look_up_label_colors(labels: IntArray, colors: ByteArray | None) -> ByteArray:
    table = (
        make_part_colors(int(labels.max(initial=-1)) + 1) if colors is None else np.asarray(colors)
    )
    grey = np.full((1, table.shape[1]), 160, dtype=np.uint8)
    picked: ByteArray = np.concatenate([table, grey])[np.where(labels < 0, len(table), labels)]
    return picked


def _build_colored_scene(mesh: AssetMesh, face_colors: ByteArray) -> tuple[dict[str, Any], _Blob]:
    blob = _Blob()
    rgba = np.full((mesh.num_faces, 4), 255, dtype=np.uint8)
    rgba[:, : face_colors.shape[1]] = face_colors
    attributes = {
        "POSITION": _add_positions(blob, mesh.triangles.reshape(-1, 3)),
        "COLOR_0": blob.add_accessor(
            np.repeat(rgba, 3, axis=0), "VEC4", UNSIGNED_BYTE, normalized=True
        ),
    }
    material_index = {"pbrMetallicRoughness": {"metallicFactor": 0.0}, "doubleSided": True}
    header = {
        "materials": [material_index],
        "meshes": [{"name": "parts", "primitives": [{"attributes": attributes, "material": 0}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
    }
    return header, blob


def _build_plain_scene(mesh: AssetMesh) -> tuple[dict[str, Any], _Blob]:
    blob = _Blob()
    meshes = []
    for number, (start, stop) in enumerate(_find_runs(mesh)):
        primitive = _build_primitive(blob, mesh, slice(start, stop))
        geometry = 0 if mesh.face_geometry is None else int(mesh.face_geometry[start])
        names = mesh.geometry_names
        name = names[geometry] if geometry < len(names) else f"geometry_{number:06d}"
        meshes.append({"name": name, "primitives": [primitive]})
    materials = [_build_material(blob, material) for material in mesh.materials]
    header: dict[str, Any] = {
        "materials": materials,
        "meshes": meshes,
        "nodes": [{"mesh": number, "name": f"node_{number}"} for number in range(len(meshes))],
        # Readers take the last child first.
        "scenes": [{"nodes": list(range(len(meshes)))[::-1]}],
    }
    if blob.images:
        header["textures"] = [{"source": number} for number in range(len(blob.images))]
    return header, blob


def _find_runs(mesh: AssetMesh) -> list[tuple[int, int]]:
    """Stretches of faces with one geometry and one material."""
    geometry = np.zeros(mesh.num_faces) if mesh.face_geometry is None else mesh.face_geometry
    is_new = (np.diff(geometry) != 0) | (np.diff(mesh.face_material) != 0)
    edges = [0, *(np.flatnonzero(is_new) + 1).tolist(), mesh.num_faces]
    return list(itertools.pairwise(edges))


def _build_primitive(blob: _Blob, mesh: AssetMesh, rows: slice) -> dict[str, Any]:
    corners = mesh.faces[rows].reshape(-1)
    keys = corners[:, None]
    if mesh.corner_uv is not None:
        # A vertex with two texture coordinates becomes two.
        bits = np.ascontiguousarray(mesh.corner_uv[rows].reshape(-1, 2), dtype=np.float32)
        keys = np.column_stack([corners, bits.view(np.int32).astype(np.int64)])
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    used = corners[first]
    attributes = {"POSITION": _add_positions(blob, mesh.vertices[used])}
    if mesh.vertex_normals is not None:
        attributes["NORMAL"] = blob.add_accessor(
            mesh.vertex_normals[used].astype("<f4"), "VEC3", FLOAT
        )
    if mesh.corner_uv is not None:
        uv = mesh.corner_uv[rows].reshape(-1, 2)[first]
        attributes["TEXCOORD_0"] = blob.add_accessor(uv.astype("<f4"), "VEC2", FLOAT)
    if mesh.vertex_colors is not None:
        attributes["COLOR_0"] = blob.add_accessor(
            mesh.vertex_colors[used], "VEC4", UNSIGNED_BYTE, normalized=True
        )
    indices = blob.add_accessor(inverse.reshape(-1).astype("<u4"), "SCALAR", UNSIGNED_INT)
    material = int(mesh.face_material[rows.start])
    return {"attributes": attributes, "indices": indices, "material": material}


def _add_positions(blob: _Blob, vertices: FloatArray) -> int:
    values = vertices.astype("<f4")
    # The standard asks for bounds of positions.
    bounds = {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
    return blob.add_accessor(values, "VEC3", FLOAT, **bounds)


def _build_material(blob: _Blob, material: Material) -> dict[str, Any]:
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


def _pack_glb(header: dict[str, Any], blob: _Blob) -> bytes:
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
