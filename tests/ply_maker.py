"""PLY files for tests, in all encodings: elements with any properties, rows of any length."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

CODES = {
    "char": "b", "int8": "b", "uchar": "B", "uint8": "B", "short": "h", "int16": "h",
    "ushort": "H", "uint16": "H", "int": "i", "int32": "i", "uint": "I", "uint32": "I",
    "float": "f", "float32": "f", "double": "d", "float64": "d",
}  # fmt: skip
FORMATS = ("ascii", "binary_little_endian", "binary_big_endian")


@dataclass
class Element:
    """A table: name, declarations such as "float x" or "list uchar int vertex_indices", rows."""

    name: str
    properties: list[str]
    rows: list[list[Any]]


def vertex(rows, *more: str, kind: str = "float") -> Element:
    return Element("vertex", [f"{kind} {axis}" for axis in "xyz"] + list(more), rows)


def face(rows, *more: str, counts: str = "uchar", kind: str = "int") -> Element:
    """Rows are lists of corners, or lists whose first entry is the corners."""
    full = [row if isinstance(row[0], (list, tuple)) else [row] for row in rows]
    return Element("face", [f"list {counts} {kind} vertex_indices", *more], full)


def make_ply(
    *elements: Element, encoding: str = "ascii", comments: tuple[str, ...] = (), end: str = "\n"
) -> bytes:
    lines = ["ply", f"format {encoding} 1.0", *comments]
    for each in elements:
        lines.append(f"element {each.name} {len(each.rows)}")
        lines += [f"property {declared}" for declared in each.properties]
    head = (end.join([*lines, "end_header"]) + end).encode("latin-1")
    if encoding == "ascii":
        rows = [_write_text(row, each) for each in elements for row in each.rows]
        return head + "".join(row + end for row in rows).encode()
    order = "<" if encoding == "binary_little_endian" else ">"
    return head + b"".join(_write_bytes(row, each, order) for each in elements for row in each.rows)


def _write_text(row, element):
    words = []
    for value, declared in zip(row, element.properties, strict=True):
        words += [len(value), *value] if declared.startswith("list") else [value]
    return " ".join(repr(word) if isinstance(word, float) else str(word) for word in words)


def _write_bytes(row, element, order):
    parts = []
    for value, declared in zip(row, element.properties, strict=True):
        words = declared.split()
        if words[0] == "list":
            parts.append(struct.pack(order + CODES[words[1]], len(value)))
            parts.append(struct.pack(f"{order}{len(value)}{CODES[words[2]]}", *value))
        else:
            parts.append(struct.pack(order + CODES[words[0]], value))
    return b"".join(parts)
