"""The OFF family: OFF, COFF, NOFF, STOFF, 4OFF, nOFF of three dimensions, and all together.

A strict reader of our own. Rows are lines; a file that wraps them is read only if every number
finds its place. The word in front may be glued to the counts, in any case, or absent. Comments
may stand anywhere. Four coordinates are homogeneous and are divided by the last one. What stands
behind the corners of a face is its colour; an index into a colour map, which no file holds, is
counted and left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.colors import scale_colors
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.off_header import (
    OffHeader,
    parse_off_header,
    read_counts,
    strip_comments,
)
from segvigen_model.mesh.formats.pieces import Piece
from segvigen_model.mesh.formats.ply_header import PlyElement, PlyProperty
from segvigen_model.mesh.formats.ply_tables import ListColumn, read_binary_element, spread
from segvigen_model.mesh.formats.polygons import (
    PolygonTable,
    build_piece,
    flip_v,
    settle_colors,
)
from segvigen_model.mesh.formats.text_rows import (
    NumberRows,
    is_wrapped,
    make_truncated_error,
    normalize_newlines,
    parse_rows,
    take_integers,
)
from segvigen_model.types import BoolArray, ByteArray, FloatArray, IntArray

COUNT_ROWS = 8  # more lines than the counts can take
UNIT_TOLERANCE = 0.02  # of a normal's length, written with few digits


@dataclass(frozen=True, slots=True)
class OffRows:
    """The numbers of a file.

    Attributes:
        vertices: (V, K) float64, a row of each vertex.
        sizes: (P,) int64, corners of each face.
        corners: (sum of sizes,) int64.
        extra_sizes: (P,) int64, how many numbers follow the corners of each face.
        extras: (sum of extra_sizes,) float64.
        num_trailing: bytes behind the last row.
    """

    vertices: FloatArray
    sizes: IntArray
    corners: IntArray
    extra_sizes: IntArray
    extras: FloatArray
    num_trailing: int = 0


class ShortRow(Exception):
    """Rows do not keep to lines."""


def read_off(data: bytes, limits: MeshLimits) -> Piece:
    """Read a file of the OFF family.

    Args:
        data: the whole file.
        limits: checked on the announced counts, before the rows are read.

    Raises:
        AssetRejected: the file cannot be used.
    """
    header = parse_off_header(data)
    if header.is_binary:
        rows = _read_binary(data, header, limits)
    else:
        rows = _read_text(strip_comments(normalize_newlines(data[header.size :])), header, limits)
    table = _name_columns(rows, header)
    return build_piece(settle_colors(table), limits)


def _read_text(text: bytes, header: OffHeader, limits: MeshLimits) -> OffRows:
    num_vertices, num_faces, used = read_counts(parse_rows(text, COUNT_ROWS), header)
    if num_vertices + num_faces > len(text):  # each row has a byte at least
        raise make_truncated_error("OFF rows", num_vertices + num_faces, len(text))
    check_counts(num_faces, num_vertices, limits)
    rows = parse_rows(text, used + num_vertices + num_faces)
    try:
        return _split_rows(rows, used, num_vertices, num_faces)
    except ShortRow as short:
        wrapped = _read_wrapped(text, header, num_vertices, num_faces)
        if wrapped is not None:
            return wrapped
        found = rows.num_rows - used
        if found < num_vertices + num_faces:
            raise make_truncated_error("OFF rows", num_vertices + num_faces, found) from short
        raise make_unreadable_error(str(short)) from short


def _split_rows(rows: NumberRows, used: int, num_vertices: int, num_faces: int) -> OffRows:
    """Read rows that are lines; every vertex has as many numbers as the first."""
    first = used + num_vertices
    if rows.num_rows < first + num_faces:
        raise ShortRow("the OFF has too few rows")
    lengths = rows.lengths[used:first]
    if len(lengths) and (lengths != lengths[0]).any():
        row = int(np.argmax(lengths != lengths[0]))
        raise ShortRow(f"vertex {row} has {lengths[row]} numbers, vertex 0 has {lengths[0]}")
    width = int(lengths[0]) if len(lengths) else 0
    vertices = rows.values[rows.starts[used] : rows.starts[first]].reshape(-1, max(width, 1))
    begins, ends = rows.starts[first : first + num_faces], rows.starts[first + 1 :]
    num_trailing = len(rows.rest) if rows.rest.strip() else 0
    faces = _split_faces(rows.values, begins, ends, is_end=not num_trailing)
    _check_rest(rows.rest, num_vertices, num_faces)
    return OffRows(vertices, *faces, num_trailing)


def _split_faces(
    values: FloatArray, begins: IntArray, ends: IntArray, is_end: bool
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    sizes = take_integers(values[begins], "the number of corners of a face")
    if (sizes < 0).any():
        raise make_unreadable_error(f"a face has {int(sizes.min())} corners")
    extra_sizes = ends - begins - 1 - sizes
    if (extra_sizes < 0).any():
        row = int(np.argmax(extra_sizes < 0))
        if is_end and row + 1 == len(sizes):
            raise AssetRejected("truncated", "the last face of the OFF is cut; fetch it again")
        raise ShortRow(
            f"face {row} says that it has {int(sizes[row])} corners, its line has "
            f"{int(ends[row] - begins[row]) - 1} numbers"
        )
    corners = take_integers(values[spread(begins + 1, sizes)], "a face names vertex")
    return sizes, corners, extra_sizes, values[spread(begins + 1 + sizes, extra_sizes)]


def _read_wrapped(
    text: bytes, header: OffHeader, num_vertices: int, num_faces: int
) -> OffRows | None:
    """Read rows that do not keep to lines, faces without colours; None unless all numbers fit."""
    rows = parse_rows(text, len(text))
    values = rows.values
    for num_counts in (3, 2):  # with and without the number of edges
        first = num_counts + header.has_dimension
        for width in _list_widths(header):
            starts = [first + width * number for number in range(num_vertices + 1)]
            while starts[-1] < len(values) and len(starts) <= num_vertices + num_faces:
                size = values[starts[-1]]
                starts.append(starts[-1] + 1 + (int(size) if 3 <= size <= len(values) else 0))
            places = np.array(starts, dtype=np.int64)
            is_whole = len(places) == num_vertices + num_faces + 1 and places[-1] == len(values)
            if not is_whole or not is_wrapped(rows, places):
                continue
            begins = places[num_vertices:]
            try:
                faces = _split_faces(values, begins[:-1], begins[1:], is_end=False)
            except (ShortRow, AssetRejected):
                continue
            return OffRows(values[first : begins[0]].reshape(-1, width), *faces)
    return None


def _list_widths(header: OffHeader) -> list[int]:
    """How many numbers a vertex may have by the word in front."""
    width = header.num_coordinates + 3 * header.has_normals + 2 * header.has_uv
    return [width + 4, width + 3] if header.has_colors else [width]


def _check_rest(rest: bytes, num_vertices: int, num_faces: int) -> None:
    """Refuse what follows the faces if it is one more face: then the count is wrong."""
    if not rest.strip():
        return
    try:
        row = parse_rows(rest, 1)
        sizes, corners, _, _ = _split_faces(row.values, row.starts[:1], row.starts[1:], False)
    except (AssetRejected, ShortRow):
        return
    if sizes[0] >= 3 and ((corners >= 0) & (corners < num_vertices)).all():
        raise make_unreadable_error(
            f"the OFF announces {num_faces} faces, and after them stands another"
        )


def _read_binary(data: bytes, header: OffHeader, limits: MeshLimits) -> OffRows:
    """Read big-endian numbers: counts, positions and what goes with them, faces with colours."""
    counts = PlyElement("counts", 1, tuple(PlyProperty(name, "i4") for name in "vfe"))
    at = header.size
    if header.has_dimension:
        raise AssetRejected("unsupported_format", "a binary nOFF is not read; export it as text")
    table, at = read_binary_element(data, at, counts, ">")
    num_vertices, num_faces = (int(np.asarray(table.columns[name])[0]) for name in "vf")
    if num_vertices < 0 or num_faces < 0:
        raise make_unreadable_error(f"the OFF has the counts {num_vertices} {num_faces}")
    if num_vertices + num_faces > len(data):
        raise make_truncated_error("OFF rows", num_vertices + num_faces, len(data))
    check_counts(num_faces, num_vertices, limits)
    width = _list_widths(header)[0]
    names = [f"c{number}" for number in range(width)]
    vertex = PlyElement("vertex", num_vertices, tuple(PlyProperty(name, "f4") for name in names))
    face = PlyElement(
        "face", num_faces, (PlyProperty("corners", "i4", "i4"), PlyProperty("colors", "f4", "i4"))
    )
    table, at = read_binary_element(data, at, vertex, ">")
    with np.errstate(invalid="ignore"):  # NaN of any kind is refused later
        columns = [np.asarray(table.columns[name], dtype=np.float64) for name in names]
    vertices = np.stack(columns, axis=1)
    if not num_faces:
        empty = np.zeros(0, dtype=np.int64)
        return OffRows(vertices, empty, empty, empty, np.zeros(0))
    table, at = read_binary_element(data, at, face, ">")
    corners, colors = table.columns["corners"], table.columns["colors"]
    assert isinstance(corners, ListColumn) and isinstance(colors, ListColumn)
    return OffRows(
        vertices,
        corners.sizes,
        corners.values.astype(np.int64),
        colors.sizes,
        colors.values.astype(np.float64),
        len(data) - at,
    )


def _name_columns(rows: OffRows, header: OffHeader) -> PolygonTable:
    """Say what the numbers of vertices and faces mean."""
    num_coordinates = header.num_coordinates
    num_fixed = num_coordinates + 3 * header.has_normals + 2 * header.has_uv
    width = rows.vertices.shape[1] if len(rows.vertices) else num_fixed + 4 * header.has_colors
    spare = width - num_fixed
    if spare < 0 or (header.has_colors and spare not in (3, 4)):
        raise make_unreadable_error(
            f"vertices of the OFF have {width} numbers, not as its word says"
        )
    after = rows.vertices[:, num_coordinates:]
    repairs = {"trailing_bytes": rows.num_trailing}
    normals = colors = None
    if header.has_normals:
        after, normals = _take_normals(after, spare, header.is_meshlab)
    if header.has_colors or (spare == 4 and _is_color(after[:, :4])):
        colors = scale_colors(after[:, :spare], is_integer=False)
    elif spare:
        repairs["vertex_columns_left_out"] = spare
    uv = after[:, spare : spare + 2] if header.has_uv else None
    polygon_colors, num_indices = _read_face_colors(rows)
    repairs["color_indices_left_out"] = num_indices
    return PolygonTable(
        vertices=_divide(rows.vertices[:, :num_coordinates]),
        corners=rows.corners,
        sizes=rows.sizes,
        vertex_colors=colors,
        vertex_normals=normals,
        vertex_uv=None if uv is None else flip_v(uv),
        polygon_colors=polygon_colors,
        repairs=repairs,
    )


def _take_normals(after: FloatArray, spare: int, is_meshlab: bool) -> tuple[FloatArray, FloatArray]:
    """Everything but the normals, and the normals; MeshLab writes them behind the colours."""
    lengths = np.linalg.norm(after[:, :3], axis=1)
    if is_meshlab and spare and (np.abs(lengths - 1) > UNIT_TOLERANCE).any():
        return np.delete(after, slice(spare, spare + 3), axis=1), after[:, spare : spare + 3]
    return after[:, 3:], after[:, :3]


def _is_color(values: FloatArray) -> bool:
    """Whether all values may be colours: whole numbers up to 255, or fractions."""
    is_fraction = (values >= 0) & (values <= 1)
    is_byte = (values >= 0) & (values <= 255) & (values % 1 == 0)
    return bool(is_fraction.all() or is_byte.all())


def _divide(positions: FloatArray) -> FloatArray:
    """(V, 3) positions, of homogeneous ones where there are four numbers."""
    if positions.shape[1] == 3:
        return positions
    divisors = positions[:, 3:]
    if not divisors.all():
        raise make_unreadable_error(
            f"vertex {int(np.argmin(divisors[:, 0] != 0))} of the 4OFF lies at infinity"
        )
    return positions[:, :3] / divisors


def _read_face_colors(rows: OffRows) -> tuple[ByteArray | None, int]:
    """(P, 4) colours of faces or None, and how many have an index into a colour map instead."""
    is_known: BoolArray = np.isin(rows.extra_sizes, (0, 1, 3, 4))
    if not is_known.all():
        row = int(np.argmin(is_known))
        raise make_unreadable_error(
            f"face {row} has {int(rows.extra_sizes[row])} numbers behind its corners; a colour has "
            "1, 3 or 4"
        )
    begins = np.cumsum(rows.extra_sizes) - rows.extra_sizes
    given = rows.extra_sizes >= 3
    num_indices = int((rows.extra_sizes == 1).sum())
    if not given.any():
        return None, num_indices
    values = np.full((int(given.sum()), 4), np.nan)  # NaN is read as opaque
    values[:, :3] = rows.extras[begins[given][:, None] + np.arange(3)]
    has_alpha = rows.extra_sizes[given] == 4
    values[has_alpha, 3] = rows.extras[begins[given][has_alpha] + 3]
    colors: ByteArray = np.full((len(given), 4), 255, dtype=np.uint8)
    colors[given] = scale_colors(values, is_integer=False)
    return colors, num_indices
