"""The data of a PLY file as columns: text or binary, lists of any and varying length.

Both encodings are the same to the code below: rows of fields, where a list is a count and that
many values. A file whose rows are all alike is read as one array. Otherwise the rows are walked
once to find where each begins, because nothing but its own counts says how long a row is.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.mesh.formats.ply_header import PlyElement, PlyHeader
from segvigen_model.mesh.formats.text_rows import (
    NumberRows,
    is_wrapped,
    make_truncated_error,
    normalize_newlines,
    parse_rows,
    take_integers,
)
from segvigen_model.types import IntArray

_STRUCT_CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I",
                 "i8": "q", "u8": "Q"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ListColumn:
    """A list for every row.

    Attributes:
        sizes: (N,) int64 length of each list.
        values: (sum of sizes,) all values, row by row.
    """

    sizes: IntArray
    values: NDArray[Any]


Column = NDArray[Any] | ListColumn


@dataclass(frozen=True, slots=True)
class PlyTable:
    """The rows of one element.

    Attributes:
        element: what the header announces.
        columns: by name.
    """

    element: PlyElement
    columns: Mapping[str, Column]


class ShortRow(Exception):
    """Rows do not have the length that their fields ask for."""


def read_tables(data: bytes, header: PlyHeader) -> tuple[list[PlyTable], bytes]:
    """Read all elements, and what stands behind them.

    Args:
        data: the whole file.
        header: of that file; its counts have been checked against the limits.

    Raises:
        AssetRejected: truncated or unreadable.
    """
    if header.order:
        return _read_binary(data, header)
    text = normalize_newlines(data[header.size :])
    announced = sum(each.count for each in header.elements if each.properties)
    rows = parse_rows(text, announced)
    try:
        return _read_lines(rows, header.elements), rows.rest
    except ShortRow as short:
        tables = _read_wrapped(text, header)
        if tables is not None:
            return tables, b""
        if rows.num_rows < announced:
            raise make_truncated_error("PLY rows", announced, rows.num_rows) from short
        raise make_unreadable_error(str(short)) from short


def read_binary_element(
    data: bytes, at: int, element: PlyElement, order: str
) -> tuple[PlyTable, int]:
    """Read the rows of one element from binary data.

    Args:
        data: the whole file.
        at: offset of the first row.
        element: what to read.
        order: "<" or ">".

    Returns:
        The rows, and the offset behind them.
    """
    if not element.has_lists or not element.count:
        return _read_alike(data, at, element, order, ())
    sizes, _ = _walk(data, at, element, order, 1)
    first = tuple(int(column[0]) for column in sizes)
    row_bytes = sum(
        np.dtype(each.kind).itemsize * (first_size or 0)
        + (np.dtype(each.count_kind).itemsize if each.count_kind else 0)
        for each, first_size in _pair_sizes(element, first)
    )
    if at + row_bytes * element.count <= len(data):
        table, end = _read_alike(data, at, element, order, first)
        if all(
            (column.sizes == size).all()
            for column, size in zip(_list_columns(table), first, strict=True)
        ):
            return table, end
    return _read_ragged(data, at, element, order)


def read_rest_row(rest: bytes, element: PlyElement, order: str) -> PlyTable | None:
    """Read what follows the data as one more row of an element; None if it is not like one."""
    one = replace(element, count=1)
    try:
        if order:
            return read_binary_element(rest, 0, one, order)[0]
        return _read_lines(parse_rows(rest, 1), [one])[0]
    except (AssetRejected, ShortRow):
        return None


def _read_binary(data: bytes, header: PlyHeader) -> tuple[list[PlyTable], bytes]:
    tables, at = [], header.size
    for element in header.elements:
        table, at = read_binary_element(data, at, element, header.order)
        tables.append(table)
    return tables, data[at:]


def _pair_sizes(element: PlyElement, sizes: tuple[int, ...]) -> list[tuple[Any, int | None]]:
    """Each property with the length of its list in a row, None for a single value."""
    left = iter(sizes)
    return [(each, next(left) if each.count_kind else 1) for each in element.properties]


def _list_columns(table: PlyTable) -> list[ListColumn]:
    return [column for column in table.columns.values() if isinstance(column, ListColumn)]


def _read_alike(
    data: bytes, at: int, element: PlyElement, order: str, sizes: tuple[int, ...]
) -> tuple[PlyTable, int]:
    """Read rows of one length as one array; `sizes` are the lengths of the lists in each."""
    fields: list[Any] = []
    for number, (each, size) in enumerate(_pair_sizes(element, sizes)):
        if each.count_kind:
            fields.append((f"n{number}", order + each.count_kind))
            fields.append((f"v{number}", order + each.kind, (size,)))
        else:
            fields.append((f"v{number}", order + each.kind))
    row = np.dtype(fields)
    end = at + row.itemsize * element.count
    if end > len(data):
        found = (len(data) - at) // row.itemsize
        raise make_truncated_error(f"rows of {element.name[:40]!r}", element.count, found)
    if row.itemsize == 0:
        return PlyTable(element, {}), at
    rows = np.frombuffer(data, row, element.count, at)
    columns: dict[str, Column] = {}
    for number, each in enumerate(element.properties):
        values = rows[f"v{number}"]
        if each.count_kind:
            sizes_here = rows[f"n{number}"].astype(np.int64)
            columns[each.name] = ListColumn(sizes_here, values.reshape(-1))
        else:
            columns[each.name] = values
    return PlyTable(element, columns), end


def _walk(
    data: bytes, at: int, element: PlyElement, order: str, count: int
) -> tuple[list[array[int]], list[array[int]]]:
    """Find the lengths and places of all lists in `count` rows.

    Returns:
        For each list property its lengths, and offsets of its first values; then once more the
        offsets of the ends of all rows, as the last of the second list.
    """
    steps, skip = [], 0
    for each in element.properties:
        if not each.count_kind:
            skip += np.dtype(each.kind).itemsize
            continue
        code = struct.Struct((order or "<") + _STRUCT_CODES[each.count_kind])
        item = np.dtype(each.kind).itemsize
        steps.append((skip, code.unpack_from, code.size, item, array("q"), array("q")))
        skip = 0
    ends, limit = array("q"), len(data)
    for row in range(count):
        for before, unpack, width, item, sizes, places in steps:
            at += before
            if at + width > limit:
                raise make_truncated_error(f"rows of {element.name[:40]!r}", element.count, row)
            (size,) = unpack(data, at)
            if not 0 <= size <= limit:
                raise make_unreadable_error(
                    f"row {row} of {element.name[:40]!r} has a list of length {size}"
                )
            at += width
            sizes.append(size)
            places.append(at)
            at += size * item
        at += skip
        if at > limit:
            raise make_truncated_error(f"rows of {element.name[:40]!r}", element.count, row)
        ends.append(at)
    return [step[4] for step in steps], [*(step[5] for step in steps), ends]


def _read_ragged(data: bytes, at: int, element: PlyElement, order: str) -> tuple[PlyTable, int]:
    """Read rows whose lists differ in length."""
    all_sizes, all_places = _walk(data, at, element, order, element.count)
    content = np.frombuffer(data, dtype=np.uint8)
    ends = np.frombuffer(all_places[-1], dtype=np.int64)
    anchor: IntArray = np.concatenate([[at], ends[:-1]])
    columns: dict[str, Column] = {}
    skip, number = 0, 0
    for each in element.properties:
        item = np.dtype(each.kind).itemsize
        if not each.count_kind:
            places = anchor + skip
            columns[each.name] = _gather(content, places, order + each.kind)
            skip += item
            continue
        sizes = np.frombuffer(all_sizes[number], dtype=np.int64)
        begins = np.frombuffer(all_places[number], dtype=np.int64)
        values = _gather(content, spread(begins, sizes, item), order + each.kind)
        columns[each.name] = ListColumn(sizes, values)
        anchor, skip, number = begins + sizes * item, 0, number + 1
    return PlyTable(element, columns), int(ends[-1])


def spread(begins: IntArray, sizes: IntArray, step: int = 1) -> IntArray:
    """Places of all values of runs.

    Args:
        begins: (N,) place of the first value of each run.
        sizes: (N,) how many values each run has.
        step: distance of neighbouring values.

    Returns:
        (sum of sizes,) int64, run by run.
    """
    before = np.cumsum(sizes) - sizes
    places: IntArray = np.repeat(begins - before * step, sizes)
    return places + np.arange(len(places), dtype=np.int64) * step


def _gather(content: NDArray[np.uint8], places: IntArray, kind: str) -> NDArray[Any]:
    """Values of one kind from places that need not be aligned."""
    width = np.dtype(kind).itemsize
    raw = np.zeros((len(places), width), dtype=np.uint8)
    for byte in range(width):
        raw[:, byte] = content[places + byte]
    return raw.reshape(-1).view(kind)


def _read_lines(rows: NumberRows, elements: Sequence[PlyElement]) -> list[PlyTable]:
    """Read text whose every row is a line of its own."""
    tables, first = [], 0
    for element in elements:
        if not element.properties:
            tables.append(PlyTable(element, {}))
            continue
        last = first + element.count
        if last > rows.num_rows:
            raise ShortRow(f"{element.name[:40]!r} has too few rows")
        tables.append(_read_line_element(rows, first, element))
        first = last
    return tables


def _read_line_element(rows: NumberRows, first: int, element: PlyElement) -> PlyTable:
    at = rows.starts[first : first + element.count]
    ends = rows.starts[first + 1 : first + element.count + 1]
    columns: dict[str, Column] = {}
    for each in element.properties:
        _check_inside(at + 1, ends, rows, first, element)
        values = rows.values[at]
        at = at + 1
        if each.count_kind:
            sizes = take_integers(values, f"a list of {element.name[:40]!r} has length")
            if (sizes < 0).any():
                raise make_unreadable_error(
                    f"a list of {element.name[:40]!r} has length {int(sizes.min())}"
                )
            _check_inside(at + sizes, ends, rows, first, element)
            columns[each.name] = ListColumn(sizes, rows.values[spread(at, sizes)])
            at = at + sizes
        else:
            columns[each.name] = values
    if (at != ends).any():
        _raise_short(at != ends, rows, first, element)
    return PlyTable(element, columns)


def _check_inside(
    at: IntArray, ends: IntArray, rows: NumberRows, first: int, element: PlyElement
) -> None:
    if (at > ends).any():
        _raise_short(at > ends, rows, first, element)


def _raise_short(
    is_wrong: NDArray[np.bool_], rows: NumberRows, first: int, element: PlyElement
) -> None:
    row = int(np.argmax(is_wrong))
    if first + row + 1 == rows.num_rows and not rows.rest.strip():
        raise AssetRejected(
            "truncated", f"the last row, {row} of {element.name[:40]!r}, is cut; fetch it again"
        )
    raise ShortRow(
        f"line {int(rows.lines[first + row]) + 1} of the data, row {row} of "
        f"{element.name[:40]!r}, has {int(rows.lengths[first + row])} numbers, not as many as "
        "its fields"
    )


def _read_wrapped(text: bytes, header: PlyHeader) -> list[PlyTable] | None:
    """Read text whose rows do not keep to lines; None unless every number finds its place."""
    rows = parse_rows(text, len(text))
    values = rows.values.tolist()
    starts, at = [0], 0
    for element in header.elements:
        lists = [bool(each.count_kind) for each in element.properties]
        for _ in range(element.count if lists else 0):
            for is_list in lists:
                if at >= len(values):
                    return None
                if is_list:
                    if not 0 <= values[at] <= len(values):
                        return None
                    at += int(values[at])
                at += 1
            starts.append(at)
    places = np.array(starts, dtype=np.int64)
    if at != len(values) or not is_wrapped(rows, places):
        return None
    lined = NumberRows(rows.values, places, np.arange(len(places) - 1))
    try:
        return _read_lines(lined, header.elements)
    except (ShortRow, AssetRejected):
        return None
