"""PLY: what its elements mean.

A strict reader of our own. Every row that the header announces is read or the file is refused;
polygons keep their order, and lists may differ in length. Vertices have positions, and perhaps
normals, colours and texture coordinates; faces have corners, and perhaps colours, coordinates of
their own and the number of a texture. Triangle strips are unrolled. Elements and properties that
are not known are read over.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.colors import scale_colors
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.pieces import Piece
from segvigen_model.mesh.formats.ply_header import PlyHeader, parse_ply_header
from segvigen_model.mesh.formats.ply_tables import (
    ListColumn,
    PlyTable,
    read_rest_row,
    read_tables,
)
from segvigen_model.mesh.formats.ply_textures import apply_textures
from segvigen_model.mesh.formats.polygons import (
    PolygonTable,
    build_piece,
    check_polygons,
    flip_v,
    settle_colors,
)
from segvigen_model.mesh.formats.text_rows import BOM, make_truncated_error, take_integers
from segvigen_model.types import ByteArray, FloatArray, IntArray

log = logging.getLogger(__name__)

CORNERS = ("vertex_indices", "vertex_index", "vertex_indexes")
UV_NAMES = (
    ("u", "v"), ("s", "t"), ("texture_u", "texture_v"), ("texture_s", "texture_t"), ("tu", "tv"),
    ("texcoord_u", "texcoord_v"),
)  # fmt: skip
COLOR_NAMES = (
    ("red", "green", "blue", "alpha"), ("r", "g", "b", "a"),
    ("diffuse_red", "diffuse_green", "diffuse_blue", "diffuse_alpha"),
    ("ambient_red", "ambient_green", "ambient_blue", "ambient_alpha"),
)  # fmt: skip
NORMAL_NAMES = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))


def read_ply(data: bytes, side_files: Mapping[str, bytes], limits: MeshLimits) -> Piece:
    """Read a PLY file.

    Args:
        data: the whole file.
        side_files: textures, by the names written in it.
        limits: checked on what the header announces, before the data is touched.

    Raises:
        AssetRejected: the file cannot be used.
    """
    data = data.removeprefix(BOM)
    header = parse_ply_header(data)
    _check_elements(header, len(data) - header.size, limits)
    tables, rest = read_tables(data, header)
    by_name = {table.element.name: table for table in tables}
    vertex, face = by_name.get("vertex"), by_name.get("face")
    assert vertex is not None  # _check_elements has seen it
    corners, sizes = _read_corners(face, by_name.get("tristrips"))
    num_vertices = vertex.element.count
    _check_rest(rest, header, num_vertices)
    repairs = {"trailing_bytes": len(rest) if header.order or rest.strip() else 0}
    table = PolygonTable(
        vertices=_stack(vertex, ("x", "y", "z")),
        corners=corners,
        sizes=sizes,
        vertex_colors=_read_colors(vertex),
        vertex_normals=_find_columns(vertex, NORMAL_NAMES),
        vertex_uv=_read_vertex_uv(vertex),
        corner_uv=None if face is None else _read_corner_uv(face, sizes),
        polygon_colors=None if face is None else _pad(_read_colors(face), len(sizes)),
        repairs=repairs,
    )
    check_polygons(table, limits)
    numbers = _read_texture_numbers(face, len(sizes))
    table = apply_textures(settle_colors(table), header.textures, numbers, side_files, limits)
    return build_piece(table, limits)


def _check_elements(header: PlyHeader, num_bytes: int, limits: MeshLimits) -> None:
    """Refuse a file without a surface, or with more of it than it can hold or the limits allow."""
    names = [each.name for each in header.elements]
    announced = sum(each.count for each in header.elements if each.properties)
    if announced > num_bytes:  # each row has a byte at least
        raise make_truncated_error("PLY rows", announced, num_bytes)
    check_counts(header.count("face") + header.count("tristrips"), header.count("vertex"), limits)
    if "range_grid" in names and not header.count("face"):
        raise AssetRejected(
            "range_grid",
            f"the PLY holds a scanner's range_grid of {header.count('range_grid')} samples and no "
            "faces; mesh it first (e.g. with MeshLab) and export element face",
        )
    if not header.count("face") and not header.count("tristrips"):
        listed = ", ".join(f"{each.name[:40]} {each.count}" for each in header.elements[:20])
        raise AssetRejected(
            "no_faces", f"the PLY announces {listed or 'no elements'}; export it with surfaces"
        )
    if "vertex" not in names:
        raise make_unreadable_error("the PLY has faces and no element vertex")
    for each in header.elements:
        columns = {column.name for column in each.properties}
        if each.name not in ("face", "tristrips") and columns & set(CORNERS):
            log.warning("PLY element not read name=%r rows=%d", each.name[:40], each.count)


def _read_corners(face: PlyTable | None, strips: PlyTable | None) -> tuple[IntArray, IntArray]:
    """(C,) corners and (P,) sizes: faces first, then the triangles of strips."""
    corners: list[IntArray] = [np.zeros(0, np.int64)]
    sizes: list[IntArray] = [np.zeros(0, np.int64)]
    if face is not None and face.element.count:
        column = _get_corner_column(face)
        corners.append(_to_indices(column.values))
        sizes.append(column.sizes)
    if strips is not None and strips.element.count:
        triangles = _unroll_strips(_get_corner_column(strips))
        corners.append(triangles.reshape(-1))
        sizes.append(np.full(len(triangles), 3, dtype=np.int64))
    return np.concatenate(corners), np.concatenate(sizes)


def _get_corner_column(table: PlyTable) -> ListColumn:
    for name in CORNERS:
        column = table.columns.get(name)
        if isinstance(column, ListColumn):
            return column
    raise make_unreadable_error(
        f"element {table.element.name!r} has no list vertex_indices among "
        f"{[name[:40] for name in table.columns][:20]}"
    )


def _to_indices(values: NDArray[Any]) -> IntArray:
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    return take_integers(values.astype(np.float64), "a face names vertex")


def _unroll_strips(column: ListColumn) -> IntArray:
    """(T, 3) triangles of strips; -1 ends a strip, as does the end of a list."""
    values = _to_indices(column.values)
    ends = np.cumsum(column.sizes)
    flat = np.insert(values, ends, -1)
    stops = np.concatenate([[-1], np.flatnonzero(flat == -1)])
    lengths = np.diff(stops) - 1
    if ((lengths == 1) | (lengths == 2)).any():
        raise make_unreadable_error("a strip of tristrips has fewer than three vertices")
    begin = np.repeat(stops[:-1] + 1, lengths + 1)  # where the strip of each place begins
    place = np.arange(len(flat) - 2)
    windows = np.stack([flat[:-2], flat[1:-1], flat[2:]], axis=1)
    is_whole = (windows != -1).all(axis=1)
    is_odd = (place - begin[: len(place)]) % 2 == 1
    windows[is_odd] = windows[is_odd][:, [1, 0, 2]]  # every other triangle of a strip is turned
    triangles: IntArray = windows[is_whole]
    return triangles


def _stack(table: PlyTable, names: Sequence[str]) -> FloatArray:
    """(N, len(names)) float64."""
    columns = [table.columns.get(name) for name in names]
    if any(column is None or isinstance(column, ListColumn) for column in columns):
        raise make_unreadable_error(
            f"element {table.element.name!r} lacks one of the properties {', '.join(names)}"
        )
    with np.errstate(invalid="ignore"):  # NaN of any kind: whoever uses it decides
        return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _find_columns(table: PlyTable, choices: Sequence[tuple[str, ...]]) -> FloatArray | None:
    """The first set of columns that is there as a whole, (N, K) float64."""
    for names in choices:
        if all(isinstance(table.columns.get(name), np.ndarray) for name in names):
            return _stack(table, names)
    return None


def _read_colors(table: PlyTable) -> ByteArray | None:
    kinds = {each.name: each.kind for each in table.element.properties}
    for *names, alpha in COLOR_NAMES:
        colors = _find_columns(table, [(*names, alpha), tuple(names)])
        if colors is not None:
            return scale_colors(colors, all(kinds[name][0] in "iu" for name in names))
    return None


def _pad(colors: ByteArray | None, count: int) -> ByteArray | None:
    """Give the triangles of strips, which follow the faces, white."""
    if colors is None:
        return None
    white = np.full((count - len(colors), 4), 255, dtype=np.uint8)
    return np.concatenate([colors, white])


def _read_vertex_uv(vertex: PlyTable) -> FloatArray | None:
    uv = _find_columns(vertex, UV_NAMES)
    return None if uv is None else flip_v(uv)


def _read_corner_uv(face: PlyTable, sizes: IntArray) -> FloatArray | None:
    """(C, 2) coordinates of `texcoord` lists; zeros for a face whose list is empty."""
    column = face.columns.get("texcoord")
    if not isinstance(column, ListColumn) or not len(column.values):
        return None
    own = sizes[: len(column.sizes)]
    is_wrong = (column.sizes != 2 * own) & (column.sizes > 0)
    if is_wrong.any():
        row = int(np.argmax(is_wrong))
        raise make_unreadable_error(
            f"face {row} has {int(own[row])} corners and {int(column.sizes[row])} numbers in "
            "texcoord, not two for each corner"
        )
    uv = np.zeros((int(sizes.sum()), 2), dtype=np.float32)
    is_given = np.repeat(column.sizes > 0, own)
    uv[: len(is_given)][is_given] = flip_v(column.values.reshape(-1, 2))
    return uv


def _read_texture_numbers(face: PlyTable | None, count: int) -> IntArray | None:
    """(P,) `texnumber` of each polygon; the triangles of strips have none."""
    column = None if face is None else face.columns.get("texnumber")
    if column is None or isinstance(column, ListColumn):
        return None
    numbers = np.full(count, -1, dtype=np.int64)
    numbers[: len(column)] = take_integers(column.astype(np.float64), "texnumber")
    return numbers


def _check_rest(rest: bytes, header: PlyHeader, num_vertices: int) -> None:
    """Refuse what follows the data if it is one more face: then the header's count is wrong."""
    last = header.elements[-1]
    if last.name != "face" or not rest.strip(b"\x00 \t\r\n"):
        return
    row = read_rest_row(rest, last, header.order)
    if row is None:
        return
    column = _get_corner_column(row)
    if column.sizes[0] >= 3 and ((column.values >= 0) & (column.values < num_vertices)).all():
        raise make_unreadable_error(
            f"the PLY announces {last.count} faces, and after them stands another"
        )
