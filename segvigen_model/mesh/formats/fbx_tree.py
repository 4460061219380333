"""The tree of an FBX file: named nodes with values, from its binary and its text form.

Every length is checked against the bytes that are there. Arrays are unpacked when they are asked
for, to the size that they announce and not a byte further, so animation costs nothing.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import make_unreadable_error

MAGIC = b"Kaydara FBX Binary  \x00"
HEADER_BYTES = 27
FIRST_WIDE = 7500  # from this version on lengths have 64 bits
OLDEST = 7000
MAX_DEPTH = 64
MAX_DIGITS = 20  # of a whole number of 64 bits
MAX_WHOLE = 2**53
SCALARS = {b"Y": "<h", b"C": "<?", b"I": "<i", b"F": "<f", b"D": "<d", b"L": "<q", b"B": "<?"}
ARRAYS = {b"f": "<f4", b"d": "<f8", b"l": "<i8", b"i": "<i4", b"b": "u1", b"c": "u1"}
TOKEN = re.compile(
    rb"[ \t\r\n]+|;[^\n]*|(?P<name>[A-Za-z_|][\w|]*)[ \t]*:|(?P<open>\{)|(?P<close>\})"
    rb'|(?P<text>"[^"]*")|(?P<comma>,)|\*(?P<count>\d+)'
    rb"|(?P<number>[-+]?(?:\d[\d.eE+-]*|\.\d[\deE+-]*))|(?P<word>[\w#.+-]+)"
)


@dataclass(frozen=True, slots=True)
class PackedArray:
    """An array of a binary file, not unpacked yet."""

    dtype: str
    count: int
    is_packed: bool
    data: memoryview

    def unpack(self) -> NDArray[Any]:
        """The values.

        Raises:
            AssetRejected: truncated or unreadable.
        """
        size = self.count * np.dtype(self.dtype).itemsize
        content: bytes | memoryview = self.data
        if self.is_packed:
            try:
                content = zlib.decompressobj().decompress(self.data, size + 1)
            except zlib.error as err:
                raise make_unreadable_error(f"an FBX array is damaged: {err}") from err
        if len(content) != size:
            raise AssetRejected(
                "truncated",
                f"an FBX array announces {size} bytes and has {len(content)}; fetch the file again",
            )
        return np.frombuffer(content, dtype=self.dtype)


@dataclass(frozen=True, slots=True)
class FbxNode:
    """One node.

    Attributes:
        values: numbers, text and bytes as `bytes`, `PackedArray` or, of text files, arrays.
    """

    name: str
    values: list[Any] = field(default_factory=list)
    children: list[FbxNode] = field(default_factory=list)

    def list_all(self, name: str) -> Iterator[FbxNode]:
        """Children of a name."""
        return (child for child in self.children if child.name == name)

    def find(self, name: str) -> FbxNode | None:
        """The first child of a name."""
        return next(self.list_all(name), None)

    def read_text(self, at: int = 0) -> str:
        """A value as text, "" where it is absent."""
        if at >= len(self.values):
            return ""
        value = self.values[at]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def read_array(self, dtype: type[Any]) -> NDArray[Any]:
        """The node's values as an array, also where the file lists them one by one."""
        found: NDArray[Any]
        if len(self.values) == 1 and isinstance(self.values[0], PackedArray):
            found = self.values[0].unpack()
        elif len(self.values) == 1 and isinstance(self.values[0], np.ndarray):
            found = self.values[0]
        else:
            try:
                found = np.array(self.values, dtype=np.float64)
            except (TypeError, ValueError, OverflowError) as err:
                raise make_unreadable_error(f"FBX {self.name} is no list of numbers") from err
        is_fraction = found.dtype.kind == "f" and issubclass(dtype, np.integer)
        if is_fraction and not (np.abs(found) <= MAX_WHOLE).all():
            raise make_unreadable_error(f"FBX {self.name} is no list of whole numbers")
        if is_fraction and (found != np.rint(found)).any():
            raise make_unreadable_error(f"FBX {self.name} is no list of whole numbers")
        return found.astype(dtype)


def parse_fbx(data: bytes) -> FbxNode:
    """Parse a file to a root without name.

    Raises:
        AssetRejected: truncated, unreadable, or unsupported_version.
    """
    if data.startswith(MAGIC):
        return _parse_binary(data)
    if data.startswith(MAGIC.rstrip(b" \x00")):
        raise make_unreadable_error(
            "the binary FBX was changed as if it were text", "fetch it again"
        )
    root = _parse_text(data)
    header = root.find("FBXHeaderExtension")
    version = None if header is None else header.find("FBXVersion")
    number = 0
    if version is not None and version.values and isinstance(version.values[0], int | float):
        number = int(version.values[0])
    _check_version(number)
    return root


def _check_version(version: int) -> None:
    if version < OLDEST:
        raise AssetRejected(
            "unsupported_version",
            f"FBX version {version} is older than {OLDEST}; save it again as FBX 2011 or later, "
            "e.g. with Blender",
        )


def _parse_binary(data: bytes) -> FbxNode:
    if len(data) < HEADER_BYTES:
        raise _make_truncated_error(len(data))
    version = struct.unpack_from("<I", data, 23)[0]
    _check_version(version)
    root = FbxNode("")
    offset = HEADER_BYTES
    while True:
        node, offset = _read_node(memoryview(data), offset, len(data), version >= FIRST_WIDE, 0)
        if node is None:
            return root
        root.children.append(node)


def _make_truncated_error(at: int) -> AssetRejected:
    return AssetRejected("truncated", f"the FBX ends at {at}, within a node; fetch it again")


def _read_node(
    data: memoryview, offset: int, limit: int, is_wide: bool, depth: int
) -> tuple[FbxNode | None, int]:
    """A node and where the next begins; None for the record that ends a list."""
    layout = struct.Struct("<QQQB" if is_wide else "<IIIB")
    if offset + layout.size > limit:
        raise _make_truncated_error(limit)
    end, num_values, _, name_size = layout.unpack_from(data, offset)
    offset += layout.size
    if end == 0:
        return None, offset
    if end > limit or offset + name_size > end:
        raise _make_truncated_error(limit)
    if depth > MAX_DEPTH:
        raise make_unreadable_error(f"the FBX is nested deeper than {MAX_DEPTH}")
    node = FbxNode(bytes(data[offset : offset + name_size]).decode("utf-8", "replace"))
    offset += name_size
    if num_values > end - offset:
        raise make_unreadable_error(f"FBX {node.name[:40]} announces {num_values} values")
    for _ in range(num_values):
        value, offset = _read_value(data, offset, end)
        node.values.append(value)
    while offset < end:
        child, offset = _read_node(data, offset, end, is_wide, depth + 1)
        if child is None:
            break
        node.children.append(child)
    return node, end


def _read_value(data: memoryview, offset: int, end: int) -> tuple[Any, int]:
    kind = bytes(data[offset : offset + 1])
    offset += 1
    if kind in SCALARS:
        layout = struct.Struct(SCALARS[kind])
        if offset + layout.size > end:
            raise _make_truncated_error(end)
        return layout.unpack_from(data, offset)[0], offset + layout.size
    if kind in (b"S", b"R"):
        if offset + 4 > end:
            raise _make_truncated_error(end)
        size = struct.unpack_from("<I", data, offset)[0]
        stop = offset + 4 + size
        if stop > end:
            raise _make_truncated_error(end)
        return bytes(data[offset + 4 : stop]), stop
    if kind in ARRAYS:
        if offset + 12 > end:
            raise _make_truncated_error(end)
        count, encoding, size = struct.unpack_from("<III", data, offset)
        if encoding == 0:
            size = count * np.dtype(ARRAYS[kind]).itemsize
        stop = offset + 12 + size
        if stop > end:
            raise _make_truncated_error(end)
        packed = PackedArray(ARRAYS[kind], count, encoding == 1, data[offset + 12 : stop])
        return packed, stop
    raise make_unreadable_error(f"FBX has a value of unknown kind {kind!r}")


def _parse_text(data: bytes) -> FbxNode:
    root = FbxNode("")
    stack, current = [root], root
    at, announced = 0, 0
    while at < len(data):
        match = TOKEN.match(data, at)
        if match is None:
            raise make_unreadable_error(f"FBX text has {data[at : at + 20]!r} at {at}")
        at, kind = match.end(), match.lastgroup
        if kind == "name":
            current = FbxNode(match["name"].decode("utf-8", "replace"))
            stack[-1].children.append(current)
            if current.name == "a" and announced:
                at = _read_numbers(data, at, current, announced)
                stack[-1].values[:] = current.values
                announced = 0
        elif kind == "open":
            stack.append(current)
            if len(stack) > MAX_DEPTH:
                raise make_unreadable_error(f"the FBX is nested deeper than {MAX_DEPTH}")
        elif kind == "close":
            if len(stack) == 1:
                raise make_unreadable_error(f"FBX text closes a bracket too many at {at}")
            stack.pop()
        elif kind == "count":
            announced = int(match["count"])
        elif kind is not None and kind != "comma":
            current.values.append(_convert_token(kind, match[kind]))
    if len(stack) > 1:
        raise _make_truncated_error(len(data))
    return root


def _convert_token(kind: str, text: bytes) -> Any:
    if kind == "text":
        return text[1:-1].replace(b"&quot;", b'"')
    if kind == "number":
        try:
            is_whole = text.lstrip(b"+-").isdigit() and len(text) < MAX_DIGITS
            return int(text) if is_whole else float(text)
        except ValueError:
            return text
    return text


def _read_numbers(data: bytes, start: int, node: FbxNode, announced: int) -> int:
    """The long list behind `a:`, up to its closing bracket."""
    stop = data.find(b"}", start)
    if stop < 0:
        raise _make_truncated_error(len(data))
    words = data[start:stop].split(b",")
    try:
        values = np.array([float(word) for word in words if word.strip()], dtype=np.float64)
    except ValueError as err:
        raise make_unreadable_error(f"an FBX list does not parse: {err}") from err
    if len(values) != announced:
        raise AssetRejected(
            "truncated",
            f"an FBX list announces {announced} numbers and has {len(values)}; fetch it again",
        )
    node.values.append(values)
    return stop
