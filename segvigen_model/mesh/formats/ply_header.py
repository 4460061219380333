"""The header of a PLY file: elements, their properties, and the comments that carry meaning.

Comments may stand anywhere and in any encoding. Lines may end as on any system. A word that the
format does not know makes the file unreadable: what follows the header could not be found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.mesh.formats.text_rows import BOM

MAX_HEADER_BYTES = 1 << 20
MAX_PROPERTIES = 4096
SCALARS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "long": "i8", "int64": "i8", "ulong": "u8", "uint64": "u8",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
ENCODINGS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_END = re.compile(rb"(?:\A|[\r\n])[ \t]*end_header[ \t]*(\r\n|\n|\r|\Z)", re.IGNORECASE)
_LINE_BREAK = re.compile(rb"\r\n|\n|\r")
_TEXTURE = re.compile(r"comment\s+texturefile\s+(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PlyProperty:
    """One column of an element.

    Attributes:
        name: lower case.
        kind: numpy's code of the values, without byte order, e.g. "f4".
        count_kind: numpy's code of the count before a list, or "" for a single value.
    """

    name: str
    kind: str
    count_kind: str = ""


@dataclass(frozen=True, slots=True)
class PlyElement:
    """One table of the file: how many rows it announces, and its columns in order."""

    name: str
    count: int
    properties: tuple[PlyProperty, ...]

    @property
    def has_lists(self) -> bool:
        """Whether rows differ in length."""
        return any(each.count_kind for each in self.properties)


@dataclass(frozen=True, slots=True)
class PlyHeader:
    """What a header says.

    Attributes:
        order: "" for text, "<" or ">" for binary.
        elements: in the order of the file.
        textures: names of texture files, in the order of `texnumber`.
        size: bytes of the header; the data begins there.
    """

    order: str
    elements: tuple[PlyElement, ...]
    textures: tuple[str, ...]
    size: int

    def count(self, name: str) -> int:
        """Rows that the elements of one name announce."""
        return sum(each.count for each in self.elements if each.name == name)


def parse_ply_header(data: bytes) -> PlyHeader:
    """Read the header of a PLY file.

    Raises:
        AssetRejected: truncated or unreadable.
    """
    end = _END.search(data, 0, MAX_HEADER_BYTES)
    if end is None:
        if len(data) > MAX_HEADER_BYTES:
            raise make_unreadable_error(f"the PLY header is longer than {MAX_HEADER_BYTES} bytes")
        raise AssetRejected("truncated", "the PLY header has no end; fetch it again")
    order: str | None = None
    elements: list[tuple[str, int, list[PlyProperty]]] = []
    for raw in _LINE_BREAK.split(data[: end.start()])[1:]:
        line = _decode(raw)
        words = line.lower().split()
        match words:
            case [] | ["comment" | "obj_info", *_] | ["created", "by", "open", "asset", *_]:
                continue  # assimp's exporters wrote their signature without the word comment
            case ["format", encoding, *_] if encoding in ENCODINGS and order is None:
                order = ENCODINGS[encoding]
            case ["element", name, count] if count.isdecimal() and len(count) <= 18:
                elements.append((name, int(count), []))
            case ["property", *rest] if elements and len(elements[-1][2]) < MAX_PROPERTIES:
                elements[-1][2].append(_parse_property(rest, line))
            case _:
                raise make_unreadable_error(f"the PLY header has the line {line[:80]!r}")
    if order is None:
        raise make_unreadable_error("the PLY header has no format")
    tables = tuple(PlyElement(name, count, tuple(columns)) for name, count, columns in elements)
    _check_names([each.name for each in tables], "element")
    for table in tables:
        _check_names([each.name for each in table.properties], f"property of {table.name[:40]!r}")
    size = end.end()
    if data[3:4] == b"\r" and data[4:5] != b"\n" and end[1] == b"\r\n":
        size -= 1  # lines end in a carriage return alone: the line feed belongs to the data
    return PlyHeader(order, tables, tuple(find_texture_names(data)), size)


def find_texture_names(data: bytes) -> list[str]:
    """Names of the texture files of a PLY, also of one whose header cannot be read."""
    data = data.removeprefix(BOM)
    end = _END.search(data, 0, MAX_HEADER_BYTES)
    lines = _LINE_BREAK.split(data[: end.start() if end else 0])
    names = (_TEXTURE.fullmatch(_decode(line)) for line in lines)
    return [name[1].strip() for name in names if name]


def _check_names(names: list[str], what: str) -> None:
    twice = (
        next((name for name in names if names.count(name) > 1), None)
        if (len(set(names)) < len(names))
        else None
    )
    if twice is not None:
        raise make_unreadable_error(f"the PLY header has the {what} {twice[:40]!r} twice")


def _parse_property(words: list[str], line: str) -> PlyProperty:
    match words:
        case ["list", count_kind, kind, name] if SCALARS.get(count_kind, "f")[0] in "iu":
            if kind in SCALARS:
                return PlyProperty(name, SCALARS[kind], SCALARS[count_kind])
        case [kind, name] if kind in SCALARS:
            return PlyProperty(name, SCALARS[kind])
    raise make_unreadable_error(f"the PLY header has the property {line[:80]!r}")


def _decode(raw: bytes) -> str:
    """Text of a header line; Latin-1 where it is not UTF-8, so that every name is a name."""
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return raw.decode("latin-1").strip()
