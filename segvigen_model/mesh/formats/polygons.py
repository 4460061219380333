"""From a table of polygons to a piece of triangles: the last step of the readers of PLY and OFF.

Every index and length is checked before anything is built. No polygon is left out: one with fewer
than three corners makes the file unreadable, because nobody can say what was lost there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.pieces import Piece
from segvigen_model.mesh.formats.triangulate import triangulate_polygons
from segvigen_model.types import ByteArray, FaceOrigin, FloatArray, IntArray, Material

# One material for all surfaces that name none: white, rough, not metallic.
PLAIN = Material(name="plain", metallic_factor=0.0)


@dataclass(frozen=True, slots=True)
class PolygonTable:
    """The surface of a file as it stands there.

    Attributes:
        vertices: (V, 3) float64, mesh frame.
        corners: (C,) int64 into vertices, polygon by polygon.
        sizes: (P,) int64, corners of each polygon.
        vertex_colors: (V, 4) uint8 or None.
        vertex_normals: (V, 3) float32 or None.
        vertex_uv: (V, 2) float32, v down, or None.
        corner_uv: (C, 2) float32, v down, or None; used when both are given.
        polygon_colors: (P, 4) uint8 or None; used when both are given.
        polygon_material: (P,) int into materials; None = all have the first.
        materials: at least one.
        repairs: (kind, how many) of what was left out or guessed.
    """

    vertices: FloatArray
    corners: IntArray
    sizes: IntArray
    vertex_colors: ByteArray | None = None
    vertex_normals: FloatArray | None = None
    vertex_uv: FloatArray | None = None
    corner_uv: FloatArray | None = None
    polygon_colors: ByteArray | None = None
    polygon_material: IntArray | None = None
    materials: tuple[Material, ...] = (PLAIN,)
    repairs: Mapping[str, int] = field(default_factory=dict)


def build_piece(table: PolygonTable, limits: MeshLimits) -> Piece:
    """Triangulate polygons; triangles stand in the order of their polygons.

    Args:
        table: what was read.
        limits: checked on the number of triangles and of vertices before either is made.

    Raises:
        AssetRejected: no_faces, unreadable, too_many_faces or too_many_vertices.
    """
    check_polygons(table, limits)
    triangles = triangulate_polygons(table.vertices, table.corners, table.sizes)
    corners, polygons = triangles.corners, triangles.polygons
    faces = table.corners[corners]
    vertices, colors = table.vertices, table.vertex_colors
    normals, uv = table.vertex_normals, table.vertex_uv
    if table.polygon_colors is not None:
        faces, sources, colors = _split_by_color(faces, table.polygon_colors[polygons])
        check_counts(len(faces), len(sources), limits)
        vertices = vertices[sources]
        normals = None if normals is None else normals[sources]
        uv = None if uv is None else uv[sources]
    own = table.polygon_material
    return Piece(
        vertices=vertices,
        faces=faces,
        materials=table.materials,
        name="geometry_0",
        face_material=None if own is None else own[polygons],
        uv=uv,
        corner_uv=None if table.corner_uv is None else table.corner_uv[corners],
        colors=colors,
        normals=normals,
        origin=FaceOrigin(polygons=polygons),
        num_polygons=len(table.sizes),
        repairs=(*table.repairs.items(), ("crossed_polygons", triangles.num_crossed)),
        announced={"faces": len(table.sizes), "vertices": len(table.vertices)},
    )


def check_polygons(table: PolygonTable, limits: MeshLimits) -> None:
    """Refuse polygons that are none, or that name vertices which are not there."""
    if not len(table.sizes):
        raise AssetRejected(
            "no_faces",
            f"the file has {len(table.vertices)} vertices and no faces; export it with surfaces",
        )
    if int(table.sizes.min()) < 3:
        row = int(np.argmax(table.sizes < 3))
        raise make_unreadable_error(
            f"face {row} has {int(table.sizes[row])} corners, not 3 or more"
        )
    if not np.isfinite(table.vertices).all():
        count = int((~np.isfinite(table.vertices)).any(axis=1).sum())
        raise AssetRejected(
            "nan_vertices", f"{count} vertices are NaN or infinite; repair the mesh"
        )
    low, high = int(table.corners.min()), int(table.corners.max())
    if low < 0 or high >= len(table.vertices):
        corner = int(np.argmax((table.corners < 0) | (table.corners >= len(table.vertices))))
        row = int(np.searchsorted(np.cumsum(table.sizes), corner, side="right"))
        raise make_unreadable_error(
            f"face {row} names vertex {int(table.corners[corner])} of {len(table.vertices)}"
        )
    check_counts(int((table.sizes - 2).sum()), len(table.vertices), limits)


def settle_colors(table: PolygonTable) -> PolygonTable:
    """Keep the colours of vertices where faces have some, too, unless vertices are all alike."""
    if table.vertex_colors is None or table.polygon_colors is None:
        return table
    if (table.vertex_colors == table.vertex_colors[:1]).all():
        repairs = {**table.repairs, "vertex_colors_left_out": len(table.vertices)}
        return replace(table, vertex_colors=None, repairs=repairs)
    repairs = {**table.repairs, "face_colors_left_out": len(table.sizes)}
    return replace(table, polygon_colors=None, repairs=repairs)


def flip_v(uv: FloatArray) -> FloatArray:
    """Turn texture coordinates with v up into glTF's, with v down: (N, 2) float32."""
    flipped = np.array(uv, dtype=np.float64)
    flipped[:, 1] = 1.0 - flipped[:, 1]
    return flipped.astype(np.float32)


def _split_by_color(
    faces: IntArray, face_colors: ByteArray
) -> tuple[IntArray, IntArray, ByteArray]:
    """Give vertices a copy for every colour that the faces round them have.

    Returns:
        (F, 3) int64 faces on the copies, (W,) int64 which vertex each copies, (W, 4) uint8.
    """
    packed = np.ascontiguousarray(face_colors).view("<u4").ravel()
    colors, numbers = np.unique(packed, return_inverse=True)
    keys = faces * len(colors) + numbers[:, None]
    kept, copies = np.unique(keys.ravel(), return_inverse=True)
    shades = np.ascontiguousarray(colors[kept % len(colors)]).view(np.uint8).reshape(-1, 4)
    return copies.reshape(-1, 3), kept // len(colors), shades
