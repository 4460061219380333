"""Attributes of an OBJ's vertices and corners: normals, texture coordinates, colours."""

from __future__ import annotations

from collections import Counter

import numpy as np

from segvigen_model.mesh.formats.mtl import TextureReference
from segvigen_model.mesh.formats.obj_materials import ObjMaterials
from segvigen_model.mesh.formats.obj_records import ObjRecords
from segvigen_model.mesh.formats.triangulate import Triangles
from segvigen_model.types import ByteArray, FloatArray, IntArray

UNIT_TOLERANCE = 1.001  # colours of 0..1 with rounding errors
BYTE_MAX, WORD_MAX = 255.0, 65535.0


def count_weights(records: ObjRecords) -> int:
    """Vertices with a fourth number that says something: it weighs curves and moves no polygon."""
    weights = records.vertices[:, 3]
    return int((~np.isnan(weights) & (weights != 1)).sum())


def index_vertices(
    records: ObjRecords, triangles: Triangles, counts: Counter[str]
) -> tuple[IntArray, IntArray]:
    """(U, 2) vertex and normal of each vertex that is used, -1 = none; (F, 3) faces of them."""
    vertex = records.corners[triangles.corners, 0]
    normal = _merge_normals(records)[records.corners[triangles.corners, 2]]
    base = len(records.normals) + 1
    keys, faces = np.unique(vertex * base + normal + 1, return_inverse=True)
    rows: IntArray = np.stack([keys // base, keys % base - 1], axis=1)
    counts["unused_vertices_left_out"] += len(records.vertices) - len(np.unique(rows[:, 0]))
    return rows, faces.reshape(-1, 3)


def _merge_normals(records: ObjRecords) -> IntArray:
    """(N + 1,) the first equal normal of each; the last place, of -1, is -1."""
    if not len(records.normals):
        return np.array([-1])
    _, first, inverse = np.unique(
        records.normals.astype(np.float32), axis=0, return_index=True, return_inverse=True
    )
    return np.append(first[inverse.ravel()], -1)


def build_normals(records: ObjRecords, rows: IntArray) -> FloatArray | None:
    """(U, 3) unit normals; zero where the file gives none or one without length."""
    if not (rows >= 0).any():
        return None
    given = np.append(records.normals, np.zeros((1, 3)), axis=0)[rows]
    length = np.linalg.norm(given, axis=1, keepdims=True)
    is_usable = np.isfinite(length) & (length > 0)
    safe = np.where(is_usable, given, 0.0)
    normals: FloatArray = (safe / np.where(is_usable, length, 1.0)).astype(np.float32)
    return normals


def build_uv(
    records: ObjRecords,
    triangles: Triangles,
    materials: tuple[ObjMaterials, IntArray],
    counts: Counter[str],
) -> FloatArray | None:
    """(F, 3, 2) float32 texture coordinates, v down, or None when no face has them."""
    number = records.corners[triangles.corners, 1]
    has_uv = (number >= 0).all(axis=1)
    if not has_uv.any():
        return None
    counts["faces_without_uv"] += int((~has_uv).sum())
    is_finite = np.isfinite(records.textures)
    counts["texture_coordinates_not_finite"] += int((~is_finite.all(axis=1)).sum())
    table = np.where(is_finite, records.textures, 0.0)
    uv: FloatArray = table[np.maximum(number, 0)]
    made, face_material = materials
    for material, line in made.placements.items():
        uv[face_material == material] = _place_uv(uv[face_material == material], line)
    uv[..., 1] = 1.0 - uv[..., 1]
    uv[~has_uv] = 0.0
    return uv.astype(np.float32)


def _place_uv(uv: FloatArray, line: TextureReference) -> FloatArray:
    placed: FloatArray = uv * np.array(line.scale) + np.array(line.offset)
    return placed


def build_colors(records: ObjRecords, rows: IntArray, counts: Counter[str]) -> ByteArray | None:
    """(U, 4) uint8 colours of vertices, or None when no vertex has one."""
    given: FloatArray | None = records.vertices[:, 4:]
    assert given is not None
    is_whole = np.isfinite(given[:, :3]).all(axis=1, keepdims=True)
    given = np.where(is_whole & np.isfinite(given), given, np.nan)
    if (given[:, :3] < 0).any():  # normals, or something else that is no colour
        counts["vertex_values_not_colors"] += int((~np.isnan(given[:, 0])).sum())
        given = np.full_like(given, np.nan)
    if np.isnan(given[:, 0]).all():
        given = _read_paint(records, counts)
    if given is None:
        return None
    is_given = ~np.isnan(given)
    largest = float(np.max(given, where=is_given, initial=0.0))
    scale = 1.0 if largest <= UNIT_TOLERANCE else BYTE_MAX if largest <= BYTE_MAX else WORD_MAX
    counts["vertices_without_color"] += int((~is_given[rows, 0]).sum())
    unit = np.where(is_given, given / scale, 1.0)[rows]
    return np.rint(np.clip(unit, 0.0, 1.0) * BYTE_MAX).astype(np.uint8)


def _read_paint(records: ObjRecords, counts: Counter[str]) -> FloatArray | None:
    """(V, 4) ZBrush's colours 0..255: eight hexadecimal digits a vertex, mask red green blue."""
    if not records.paint:
        return None
    try:
        raw = np.frombuffer(bytes.fromhex(records.paint.decode("ascii")), dtype=np.uint8)
    except ValueError:
        raw = np.zeros(0, dtype=np.uint8)
    if len(raw) != 4 * len(records.vertices):
        counts["vertex_paint_unread"] += 1
        return None
    paint: FloatArray = np.full((len(records.vertices), 4), BYTE_MAX)
    paint[:, :3] = raw.reshape(-1, 4)[:, 1:]
    return paint
