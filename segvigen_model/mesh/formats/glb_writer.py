"""Meshes to GLB: as they came, with their materials, or coloured by part for a viewer.

Faces come back in the same order from `mesh_from_bytes` and from trimesh. Vertices that no face
uses are left out.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from segvigen_model.mesh.formats.glb_blob import (
    FLOAT,
    UNSIGNED_BYTE,
    UNSIGNED_INT,
    GlbBlob,
    add_positions,
    build_material,
    choose_origin,
    describe_node,
    pack_glb,
)
from segvigen_model.types import AssetMesh, ByteArray, FloatArray, IntArray

GOLDEN_SHARE = 0.618033988749895  # steps of this share of the circle keep hues apart


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
        return pack_glb(*_build_plain_scene(mesh))
    per_face = (
        colors if face_labels is None else _look_up_label_colors(np.asarray(face_labels), colors)
    )
    assert per_face is not None
    if len(per_face) != mesh.num_faces:
        raise ValueError(f"{len(per_face)} face colours for {mesh.num_faces} faces")
    return pack_glb(*_build_colored_scene(mesh, np.asarray(per_face, dtype=np.uint8)))


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


def _build_colored_scene(mesh: AssetMesh, face_colors: ByteArray) -> tuple[dict[str, Any], GlbBlob]:
    blob, origin = GlbBlob(), choose_origin(mesh.used_vertices)
    rgba = np.full((mesh.num_faces, 4), 255, dtype=np.uint8)
    rgba[:, : face_colors.shape[1]] = face_colors
    attributes = {
        "POSITION": add_positions(blob, mesh.triangles.reshape(-1, 3) - origin),
        "COLOR_0": blob.add_accessor(
            np.repeat(rgba, 3, axis=0), "VEC4", UNSIGNED_BYTE, normalized=True
        ),
    }
    material_index = {"pbrMetallicRoughness": {"metallicFactor": 0.0}, "doubleSided": True}
    header = {
        "materials": [material_index],
        "meshes": [{"name": "parts", "primitives": [{"attributes": attributes, "material": 0}]}],
        "nodes": [describe_node("parts", 0, origin)],
        "scenes": [{"nodes": [0]}],
    }
    return header, blob


def _build_plain_scene(mesh: AssetMesh) -> tuple[dict[str, Any], GlbBlob]:
    blob, origin = GlbBlob(), choose_origin(mesh.used_vertices)
    meshes = []
    for number, (start, stop) in enumerate(_find_runs(mesh)):
        primitive = build_primitive(blob, mesh, np.arange(start, stop), origin)
        geometry = 0 if mesh.face_geometry is None else int(mesh.face_geometry[start])
        names = mesh.geometry_names
        name = names[geometry] if geometry < len(names) else f"geometry_{number:06d}"
        meshes.append({"name": name, "primitives": [primitive]})
    materials = [build_material(blob, material) for material in mesh.materials]
    header: dict[str, Any] = {
        "materials": materials,
        "meshes": meshes,
        "nodes": [describe_node(f"node_{n}", n, origin) for n in range(len(meshes))],
        # Readers take the last child first.
        "scenes": [{"nodes": list(range(len(meshes)))[::-1]}],
    }
    return header, blob


def _find_runs(mesh: AssetMesh) -> list[tuple[int, int]]:
    """Stretches of faces with one geometry and one material."""
    geometry = np.zeros(mesh.num_faces) if mesh.face_geometry is None else mesh.face_geometry
    is_new = (np.diff(geometry) != 0) | (np.diff(mesh.face_material) != 0)
    edges = [0, *(np.flatnonzero(is_new) + 1).tolist(), mesh.num_faces]
    return list(itertools.pairwise(edges))


def build_primitive(
    blob: GlbBlob, mesh: AssetMesh, rows: IntArray, origin: FloatArray
) -> dict[str, Any]:
    """Append some faces of one material, with everything that their vertices have.

    Args:
        blob: the GLB under construction.
        mesh: the asset.
        rows: (R,) int faces, R >= 1, all of one material.
        origin: (3,) what positions are written relative to.
    """
    corners = mesh.faces[rows].reshape(-1)
    keys = corners[:, None]
    if mesh.corner_uv is not None:
        # A vertex with two texture coordinates becomes two.
        bits = np.ascontiguousarray(mesh.corner_uv[rows].reshape(-1, 2), dtype=np.float32)
        keys = np.column_stack([corners, bits.view(np.int32).astype(np.int64)])
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    used = corners[first]
    attributes = {"POSITION": add_positions(blob, mesh.vertices[used] - origin)}
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
    material = int(mesh.face_material[rows[0]])
    return {"attributes": attributes, "indices": indices, "material": material}
