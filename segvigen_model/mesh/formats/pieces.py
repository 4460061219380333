"""From the pieces that a file holds to one flat `AssetMesh`.

A piece is one primitive with one material, already moved to its place in the scene. Pieces are
joined in the order given; nothing is welded, so a face keeps its place for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.types import AssetMesh, ByteArray, FloatArray, IntArray, Material

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """One primitive of a file.

    Attributes:
        vertices: (V, 3) float64, scene frame.
        faces: (F, 3) int64.
        material: how it crops.
        name: the source's name, untrusted.
        uv: (V, 2) float32, v down, or None.
        colors: (V, 4) uint8 or None.
        normals: (V, 3) float32 or None.
    """

    vertices: FloatArray
    faces: IntArray
    material: Material
    name: str = ""
    uv: FloatArray | None = None
    colors: ByteArray | None = None
    normals: FloatArray | None = None


def place_piece(piece: Piece, matrix: FloatArray) -> Piece:
    """Move a piece by a (4, 4) transform; a mirroring one turns the winding, as glTF asks."""
    linear = matrix[:3, :3]
    if np.array_equal(matrix, np.eye(4)):
        return piece
    is_mirrored = np.linalg.det(linear) < 0
    return Piece(
        vertices=piece.vertices @ linear.T + matrix[:3, 3],
        faces=piece.faces[:, ::-1] if is_mirrored else piece.faces,
        material=piece.material,
        name=piece.name,
        uv=piece.uv,
        colors=piece.colors,
        normals=None if piece.normals is None else _rotate_normals(piece.normals, linear),
    )


def join_pieces(pieces: Sequence[Piece]) -> AssetMesh:
    """Join pieces into one mesh and refuse what no stage can use."""
    full = [piece for piece in pieces if len(piece.faces)]
    if not full:
        raise AssetRejected("no_faces", "the file holds no triangles; export it with surfaces")
    for piece in full:
        _check_piece(piece)
    materials, face_material = _number_materials(full)
    sizes = [len(piece.faces) for piece in full]
    starts = np.cumsum([0] + [len(piece.vertices) for piece in full[:-1]])
    mesh = AssetMesh(
        vertices=np.concatenate([piece.vertices for piece in full]).astype(np.float64),
        faces=np.concatenate([p.faces + start for p, start in zip(full, starts, strict=True)]),
        face_material=np.repeat(np.array(face_material, dtype=np.int32), sizes),
        materials=materials,
        corner_uv=_join_uv(full),
        vertex_colors=_join_colors(full),
        vertex_normals=np.concatenate([_get_normals(piece) for piece in full]),
        face_geometry=np.repeat(np.arange(len(full), dtype=np.int32), sizes),
        geometry_names=tuple(piece.name for piece in full),
    )
    _check_extent(mesh)
    return mesh


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
    sign = -1.0 if np.linalg.det(linear) < 0 else 1.0
    return _normalize_vectors(normals.astype(np.float64) @ cofactor.T * sign).astype(np.float32)


def _get_normals(piece: Piece) -> FloatArray:
    if piece.normals is not None and np.isfinite(piece.normals).all():
        return piece.normals.astype(np.float32)
    return compute_vertex_normals(piece.vertices, piece.faces)


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


def _number_materials(pieces: Sequence[Piece]) -> tuple[tuple[Material, ...], list[int]]:
    # By identity: materials hold arrays, and readers give one object per source material.
    numbers: dict[int, int] = {}
    materials: list[Material] = []
    indices = []
    for piece in pieces:
        if id(piece.material) not in numbers:
            numbers[id(piece.material)] = len(materials)
            materials.append(piece.material)
        indices.append(numbers[id(piece.material)])
    return tuple(materials), indices


def _join_uv(pieces: Sequence[Piece]) -> FloatArray | None:
    if all(piece.uv is None for piece in pieces):
        return None
    rows: list[FloatArray] = []
    for piece in pieces:
        if piece.uv is None:
            rows.append(np.zeros((len(piece.faces), 3, 2), dtype=np.float32))
            continue
        if not np.isfinite(piece.uv).all():
            log.warning("texture coordinates not finite, read as 0 geometry=%r", piece.name[:80])
        uv = np.nan_to_num(piece.uv.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        rows.append(uv[piece.faces])
    return np.concatenate(rows)


def _join_colors(pieces: Sequence[Piece]) -> ByteArray | None:
    if all(piece.colors is None for piece in pieces):
        return None
    white = [np.full((len(piece.vertices), 4), 255, dtype=np.uint8) for piece in pieces]
    given = [p.colors if p.colors is not None else w for p, w in zip(pieces, white, strict=True)]
    return np.concatenate(given).astype(np.uint8)
