"""The first words of an OFF file: what each vertex holds, and how many rows follow."""

from __future__ import annotations

import re
from dataclasses import dataclass

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.mesh.formats.text_rows import BOM, NumberRows, take_integers

MAX_COUNT = 10**15
# Letters in any order: MeshLab writes "NCOFF", the format's description has "CNOFF".
_WORD = re.compile(rb"((?:ST|C|N|4|n){0,5})OFF")
_ANY_CASE = re.compile(rb"((?:ST|C|N|4){0,5})OFF", re.IGNORECASE)
_BINARY = re.compile(rb"[ \t]*BINARY[ \t]*\r?\n?")
_COMMENT = re.compile(rb"#[^\n\r]*")


@dataclass(frozen=True, slots=True)
class OffHeader:
    """What the first word says.

    Attributes:
        num_coordinates: numbers of a position: 3, or 4 with a divisor.
        has_dimension: whether the number of dimensions stands before the counts.
        has_normals, has_colors, has_uv: what follows each position.
        is_meshlab: whether N stands before C, as MeshLab writes it; its colours stand before
            the normals then.
        is_binary: whether numbers are bytes, not text.
        size: bytes up to what follows the word.
    """

    num_coordinates: int = 3
    has_dimension: bool = False
    has_normals: bool = False
    has_colors: bool = False
    has_uv: bool = False
    is_meshlab: bool = False
    is_binary: bool = False
    size: int = 0


def parse_off_header(data: bytes) -> OffHeader:
    """Read the word in front; a file that begins with numbers is a plain OFF."""
    start = _skip_blank(data)
    word = _WORD.match(data, start) or _ANY_CASE.match(data, start)
    if word is None:
        return OffHeader(size=start)
    letters = word[1] if b"n" in word[1] and word[0].endswith(b"OFF") else word[1].upper()
    binary = _BINARY.match(data, word.end())
    return OffHeader(
        num_coordinates=4 if b"4" in letters else 3,
        has_dimension=b"n" in letters,
        has_normals=b"N" in letters,
        has_colors=b"C" in letters,
        has_uv=b"ST" in letters,
        is_meshlab=b"NC" in letters,
        is_binary=binary is not None,
        size=binary.end() if binary else word.end(),
    )


def is_off(data: bytes) -> bool:
    """Whether a file begins like one of the family, or with the counts alone."""
    head = data[:65536]
    start = _skip_blank(head)
    if _WORD.match(head, start) or _ANY_CASE.match(head, start):
        return True
    return bool(re.compile(rb"\d+[ \t]+\d+(?:[ \t]+\d+)?[ \t]*(?:[\r\n#]|\Z)").match(head, start))


def strip_comments(text: bytes) -> bytes:
    """Text without what stands behind a number sign."""
    return _COMMENT.sub(b"", text) if b"#" in text else text


def read_counts(rows: NumberRows, header: OffHeader) -> tuple[int, int, int]:
    """Vertices, faces, and how many rows hold the counts.

    The number of edges, which nobody counts, may be absent or stand in a row of its own.
    """
    needed = 3 if header.has_dimension else 2
    used = 0
    while used < rows.num_rows and rows.starts[used] < needed:
        used += 1
    if rows.starts[used] < needed:
        raise AssetRejected("truncated", "the OFF ends before its counts; fetch it again")
    numbers = take_integers(rows.values[:needed], "a count of the OFF")
    if rows.starts[used] == needed and used < rows.num_rows and rows.lengths[used] == 1:
        used += 1  # the number of edges
    if int(numbers.min()) < 0 or int(numbers.max()) > MAX_COUNT:
        raise make_unreadable_error(f"the OFF has the counts {numbers.tolist()}")
    if header.has_dimension and int(numbers[0]) != 3:
        raise AssetRejected(
            "unsupported_format",
            f"the nOFF has {int(numbers[0])} dimensions, not 3; project it before the export",
        )
    return int(numbers[-2]), int(numbers[-1]), used


def _skip_blank(data: bytes) -> int:
    """Where the first line with content begins."""
    at = len(BOM) if data.startswith(BOM) else 0
    while at < len(data):
        if data[at : at + 1].isspace():
            at += 1
        elif data[at : at + 1] == b"#":
            ends = [end for end in (data.find(b"\n", at), data.find(b"\r", at)) if end >= 0]
            at = min(ends, default=len(data))
        else:
            break
    return at
