"""From the pieces that a file holds to one flat `AssetMesh`.

A piece is one primitive, already moved to its place in the scene. Pieces are joined in the order
given; nothing is welded, so a face keeps its place for ever. What a reader knows of each face's
origin, and what it had to leave out, comes along.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.mesh.strays import STRAY_REPAIR, find_stray_faces
from segvigen_model.types import (
    AssetMesh,
    BoolArray,
    ByteArray,
    FaceOrigin,
    FloatArray,
    IntArray,
    Material,
    NameColumn,
)

log = logging.getLogger(__name__)

_IDENTITY = np.eye(4)
MIN_AREA = 1e-12  # of the squared longest side; less is a line, whose normals are noise


@dataclass(frozen=True, slots=True)
class Piece:
    """One primitive of a file, or the whole file where its faces need no scene.

    Attributes:
        vertices: (V, 3) float64, scene frame.
        faces: (F, 3) int64, in the source's order.
        materials: at least one; one object per source material.
        name: the source's name, untrusted.
        face_material: (F,) int into materials; None = all faces have the first.
        uv: (V, 2) float32 per vertex, v down, or None.
        corner_uv: (F, 3, 2) float32 per corner, v down, where vertices do not have one each; or
            None. It is used when both are given.
        colors: (V, 4) uint8 or None.
        normals: (V, 3) float32 or None; rows of zeros are computed from the faces.
        geometries: name of each face's geometry; None = `name` for all.
        origin: polygon (counted from 0 in this piece), object, group and material name per face.
        num_polygons: polygons that the piece announces; None = as many as faces.
        repairs: (kind, how many) of what was left out or mended; see `AssetMesh`.
        announced: counts by the file's own words, compared with what was read.
    """

    vertices: FloatArray
    faces: IntArray
    materials: tuple[Material, ...]
    name: str = ""
    face_material: IntArray | None = None
    uv: FloatArray | None = None
    corner_uv: FloatArray | None = None
    colors: ByteArray | None = None
    normals: FloatArray | None = None
    geometries: NameColumn | None = None
    origin: FaceOrigin = field(default_factory=FaceOrigin)
    num_polygons: int | None = None
    repairs: tuple[tuple[str, int], ...] = ()
    announced: Mapping[str, int] = field(default_factory=dict)


def place_piece(piece: Piece, matrix: FloatArray) -> Piece:
    """Move a piece by a (4, 4) transform; a mirroring one turns the winding, as glTF asks."""
    linear = matrix[:3, :3]
    if np.array_equal(matrix, _IDENTITY):
        return piece
    turn = slice(None, None, -1 if _is_mirroring(linear) else 1)
    # Not `replace`: a scene may have a hundred thousand pieces.
    return Piece(
        piece.vertices @ linear.T + matrix[:3, 3],
        piece.faces[:, turn],
        piece.materials,
        piece.name,
        piece.face_material,
        piece.uv,
        None if piece.corner_uv is None else piece.corner_uv[:, turn],
        piece.colors,
        None if piece.normals is None else _rotate_normals(piece.normals, linear),
        piece.geometries,
        piece.origin,
        piece.num_polygons,
        piece.repairs,
        piece.announced,
    )


def _is_mirroring(linear: FloatArray) -> bool:
    (a, b, c), (d, e, f), (g, h, i) = linear.tolist()
    return bool(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) < 0)


def join_pieces(pieces: Sequence[Piece]) -> AssetMesh:
    """Join pieces into one mesh and refuse what no stage can use."""
    full = [piece for piece in pieces if len(piece.faces)]
    if not full:
        raise AssetRejected("no_faces", "the file holds no triangles; export it with surfaces")
    for piece in full:
        _check_piece(piece)
    materials, face_material = _number_materials(full)
    starts = np.cumsum([0] + [len(piece.vertices) for piece in full[:-1]])
    geometries = _stack_columns([_get_geometries(piece) for piece in full])
    mesh = AssetMesh(
        vertices=np.concatenate([piece.vertices for piece in full]).astype(np.float64),
        faces=np.concatenate([p.faces + start for p, start in zip(full, starts, strict=True)]),
        face_material=face_material,
        materials=materials,
        corner_uv=_join_uv(full),
        vertex_colors=_join_colors(full),
        vertex_normals=None,
        face_geometry=geometries.indices,
        geometry_names=geometries.names,
        origin=_join_origins(full),
        repairs=_sum_counts(pair for piece in pieces for pair in piece.repairs),
        announced=dict(_sum_counts(pair for p in pieces for pair in p.announced.items())),
    )
    _check_extent(mesh)
    num_strays = int(find_stray_faces(mesh.triangles).sum())
    return replace(
        mesh,
        vertex_normals=_join_normals(full, mesh),
        repairs=_sum_counts([*mesh.repairs, (STRAY_REPAIR, num_strays)]),
    )


def compute_vertex_normals(vertices: FloatArray, faces: IntArray) -> FloatArray:
    """Average the face normals round each vertex, weighted by the corner's angle.

    Args:
        vertices: (V, 3) float.
        faces: (F, 3) int.

    Returns:
        (V, 3) float32 unit normals; zero where no face of positive area touches.
    """
    corners = vertices[faces]
    normal = _normalize_vectors(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    )
    sides = _normalize_vectors(
        np.roll(corners, -1, axis=1) - corners
    )  # (F, 3, 3), side i leaves corner i
    angle = np.arccos(np.clip(-(sides * np.roll(sides, 1, axis=1)).sum(-1), -1.0, 1.0))
    total = np.zeros((len(vertices), 3))
    for axis in range(3):
        weights = (angle * normal[:, axis, None]).ravel()
        total[:, axis] = np.bincount(faces.ravel(), weights=weights, minlength=len(vertices))
    normals: FloatArray = _normalize_vectors(total).astype(np.float32)
    return normals


def _normalize_vectors(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: FloatArray = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit


def _rotate_normals(normals: FloatArray, linear: FloatArray) -> FloatArray:
    # The cofactor matrix is the inverse transpose times the determinant: right for normals up to
    # sign and length, and defined for flattening transforms as well.
    cofactor = np.stack([np.cross(linear[(i + 1) % 3], linear[(i + 2) % 3]) for i in range(3)])
    sign = -1.0 if _is_mirroring(linear) else 1.0
    return _normalize_vectors(normals.astype(np.float64) @ cofactor.T * sign).astype(np.float32)


def _join_normals(pieces: Sequence[Piece], mesh: AssetMesh) -> FloatArray:
    """The source's normals; those that it does not give are computed, all of them at once."""
    normals = np.zeros((len(mesh.vertices), 3), dtype=np.float32)
    start = 0
    for piece in pieces:
        stop = start + len(piece.vertices)
        if piece.normals is not None and np.isfinite(piece.normals).all():
            normals[start:stop] = piece.normals
        start = stop
    is_absent: BoolArray = np.logical_not(normals.any(axis=1))
    faces = mesh.faces[is_absent[mesh.faces].any(axis=1)]
    if len(faces):
        normals[is_absent] = compute_vertex_normals(mesh.vertices, faces)[is_absent]
    return normals


def _check_piece(piece: Piece) -> None:
    if not np.isfinite(piece.vertices).all():
        count = int((~np.isfinite(piece.vertices)).any(axis=1).sum())
        raise AssetRejected(
            "nan_vertices",
            f"{count} vertices of {piece.name[:80]!r} are NaN or infinite; repair the mesh",
        )
    for values in (piece.uv, piece.colors, piece.normals):
        if values is not None and len(values) != len(piece.vertices):
            raise make_unreadable_error(
                f"{piece.name[:80]!r} has {len(values)} attribute rows for "
                f"{len(piece.vertices)} vertices"
            )
    for per_face in (piece.corner_uv, piece.face_material, piece.origin.polygons):
        assert per_face is None or len(per_face) == len(piece.faces)  # our readers' own arrays
    low, high = int(piece.faces.min()), int(piece.faces.max())
    if low < 0 or high >= len(piece.vertices):
        raise make_unreadable_error(
            f"a face of {piece.name[:80]!r} names vertex {low if low < 0 else high} of "
            f"{len(piece.vertices)}"
        )


def _check_extent(mesh: AssetMesh) -> None:
    used = mesh.vertices[np.unique(mesh.faces)]
    extent = np.ptp(used, axis=0)
    if not np.isfinite(extent).all() or float(extent.max()) <= 0:
        raise AssetRejected(
            "degenerate",
            f"the surface measures {extent.tolist()}; it needs a finite size above zero",
        )
    corners = (mesh.triangles - used.min(axis=0)) / float(extent.max())
    sides = corners[:, 1:] - corners[:, :1]
    area = 0.5 * float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum())
    if not area > MIN_AREA:
        raise AssetRejected(
            "degenerate",
            f"the {mesh.num_faces} faces have an area of {area:.3g} of the squared size, none to "
            "speak of; export the mesh with surfaces",
        )


def _number_materials(pieces: Sequence[Piece]) -> tuple[tuple[Material, ...], IntArray]:
    """The different materials, and (F,) int32 each face's number among them."""
    # By identity: materials hold arrays, and readers give one object per source material.
    numbers: dict[int, int] = {}
    materials: list[Material] = []
    columns = []
    for piece in pieces:
        for material in piece.materials:
            if id(material) not in numbers:
                numbers[id(material)] = len(materials)
                materials.append(material)
        table = np.array([numbers[id(material)] for material in piece.materials], dtype=np.int32)
        own = piece.face_material
        columns.append(table[np.zeros(len(piece.faces), np.int64) if own is None else own])
    return tuple(materials), np.concatenate(columns)


def _get_geometries(piece: Piece) -> NameColumn:
    if piece.geometries is not None:
        return piece.geometries
    return NameColumn(np.zeros(len(piece.faces), dtype=np.int32), (piece.name,))


def _stack_columns(columns: Sequence[NameColumn]) -> NameColumn:
    """One column after the other; equal names of two columns stay two."""
    starts = np.cumsum([0] + [len(column.names) for column in columns[:-1]])
    rows = np.concatenate([column.indices for column in columns])
    shifts = np.repeat(starts, [len(column.indices) for column in columns])
    names = tuple(name for column in columns for name in column.names)
    return NameColumn(np.where(rows < 0, -1, rows + shifts).astype(np.int32), names)


def _join_origins(pieces: Sequence[Piece]) -> FaceOrigin:
    origins = [piece.origin for piece in pieces]
    sizes = [len(piece.faces) for piece in pieces]
    return FaceOrigin(
        _join_polygons(pieces),
        _join_names([origin.objects for origin in origins], sizes),
        _join_names([origin.groups for origin in origins], sizes),
        _join_names([origin.materials for origin in origins], sizes),
    )


def _join_polygons(pieces: Sequence[Piece]) -> IntArray | None:
    if all(piece.origin.polygons is None for piece in pieces):
        return None
    start, rows = 0, []
    for piece in pieces:
        own = piece.origin.polygons
        rows.append((np.arange(len(piece.faces)) if own is None else own) + start)
        start += len(piece.faces) if piece.num_polygons is None else piece.num_polygons
    return np.concatenate(rows).astype(np.int32)


def _join_names(columns: Sequence[NameColumn | None], sizes: Sequence[int]) -> NameColumn | None:
    if all(column is None for column in columns):
        return None
    given = [
        NameColumn(np.full(size, -1, dtype=np.int32), ()) if column is None else column
        for column, size in zip(columns, sizes, strict=True)
    ]
    stacked = _stack_columns(given)
    names = tuple(dict.fromkeys(stacked.names))  # one place for a name that pieces share
    numbers = {name: number for number, name in enumerate(names)}
    table = np.array([*(numbers[name] for name in stacked.names), -1], dtype=np.int32)
    return NameColumn(table[stacked.indices], names)


def _sum_counts(pairs: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    total: dict[str, int] = {}
    for kind, count in pairs:
        total[kind] = total.get(kind, 0) + count
    return tuple((kind, count) for kind, count in total.items() if count)


def _join_uv(pieces: Sequence[Piece]) -> FloatArray | None:
    if all(piece.uv is None and piece.corner_uv is None for piece in pieces):
        return None
    return np.concatenate([_get_corner_uv(piece) for piece in pieces])


def _get_corner_uv(piece: Piece) -> FloatArray:
    """(F, 3, 2) float32; zeros where there are none."""
    given = piece.uv if piece.corner_uv is None else piece.corner_uv
    if given is None:
        return np.zeros((len(piece.faces), 3, 2), dtype=np.float32)
    if not np.isfinite(given).all():
        log.warning("texture coordinates not finite, read as 0 geometry=%r", piece.name[:80])
    uv: FloatArray = np.nan_to_num(given.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return uv if piece.corner_uv is not None else uv[piece.faces]


def _join_colors(pieces: Sequence[Piece]) -> ByteArray | None:
    if all(piece.colors is None for piece in pieces):
        return None
    white = [np.full((len(piece.vertices), 4), 255, dtype=np.uint8) for piece in pieces]
    given = [p.colors if p.colors is not None else w for p, w in zip(pieces, white, strict=True)]
    return np.concatenate(given).astype(np.uint8)
