"""Lines of an OBJ file to arrays: vertices, corners of polygons, and the names in force at each.

The text is read in blocks of whole lines; in a block all lines of one kind are read at once.
Relative indices count from their own line. A line that does not read refuses the file, with its
number. Lines that hold no surface (lines, points, curves, unknown keywords) are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.mtl import parse_library_names
from segvigen_model.mesh.formats.obj_lines import (
    COMMENT,
    FACE,
    LINE,
    NORMAL,
    OTHER,
    POINT,
    TEXTURE,
    VERTEX,
    Block,
    split_block,
    spread_rows,
)
from segvigen_model.mesh.formats.obj_numbers import BadToken, read_corners, read_floats
from segvigen_model.mesh.formats.obj_text import count_line, decode_text
from segvigen_model.types import FloatArray, IntArray

BLOCK_BYTES = 4 * 1024**2
WORDS = {VERTEX: "v", TEXTURE: "vt", NORMAL: "vn", FACE: "f"}
# Where the numbers of a line go, by how many there are: x y z w r g b a, u v, x y z.
COLUMNS: Mapping[int, dict[int, tuple[int, ...]]] = {
    VERTEX: {
        3: (0, 1, 2),
        4: (0, 1, 2, 3),
        6: (0, 1, 2, 4, 5, 6),
        7: (0, 1, 2, 4, 5, 6, 7),
        8: (0, 1, 2, 3, 4, 5, 6, 7),
    },
    TEXTURE: {1: (0,), 2: (0, 1), 3: (0, 1, -1), 4: (0, 1, -1, -1)},
    NORMAL: {3: (0, 1, 2), 4: (0, 1, 2, -1)},
}
NUM_COLUMNS = {VERTEX: 8, TEXTURE: 2, NORMAL: 3}
# Drawing hints, which have no geometry, and curves, which have no surface.
_HINTS = frozenset([
    "mg", "bevel", "c_interp", "d_interp", "lod", "usemap", "maplib", "shadow_obj", "trace_obj",
    "ctech", "stech",
])  # fmt: skip
_CURVES = frozenset([
    "vp", "deg", "bmat", "step", "cstype", "curv", "curv2", "parm", "trim", "hole", "scrv", "sp",
    "end", "con", "cdc", "cdp", "res",
])  # fmt: skip
_SURFACES = frozenset(("surf", "bsp", "bzp", "call"))
_KNOWN = ("v", "vt", "vn", "f", "usemtl", "mtllib", *_HINTS, *_CURVES, *_SURFACES)
_WORD = re.compile(rb"[A-Za-z_]+")
# What is left of a number or corner where a file is cut off.
_OPEN_WORD = re.compile(rb"[-+]?\d*\.?\d*(?:[eE][-+]?)?|-?\d*(?:/-?\d*){0,2}")
_PAINT = b"#MRGB"


@dataclass(slots=True)
class Names:
    """The names that one keyword sets: from which polygon on, and what stands behind it."""

    starts: list[int] = field(default_factory=list)
    rests: list[bytes] = field(default_factory=list)

    def add(self, polygon: int, rest: bytes) -> None:
        """Set a name from a polygon on."""
        if self.starts and self.starts[-1] == polygon:
            self.rests[-1] = rest  # the one before named nothing
        else:
            self.starts.append(polygon)
            self.rests.append(rest)


@dataclass(frozen=True, slots=True)
class ObjRecords:
    """An OBJ file as arrays.

    Attributes:
        vertices: (V, 8) float64 x y z, w, r g b a; NaN where the line gives none.
        textures: (T, 2) float64 u v, v up.
        normals: (N, 3) float64.
        corners: (C, 3) int64 vertex, texture coordinate and normal of each corner, from 0; -1 =
            absent. Relative ones are resolved; the range is not checked.
        sizes: (P,) int64 corners of each polygon.
        lines: (P,) int64 its line in the file.
        names: names in force by keyword: "o", "g", "usemtl".
        libraries: names of material libraries.
        paint: ZBrush's colours of vertices in comments, as hexadecimal text.
        counts: lines that were left out, by kind.
    """

    vertices: FloatArray
    textures: FloatArray
    normals: FloatArray
    corners: IntArray
    sizes: IntArray
    lines: IntArray
    names: Mapping[str, Names]
    libraries: Sequence[str]
    paint: bytes
    counts: Mapping[str, int]


def read_records(text: bytes, limits: MeshLimits) -> ObjRecords:
    """Read all lines.

    Args:
        text: of `normalize_text`.
        limits: on triangles and vertices; checked while reading.

    Raises:
        AssetRejected: unreadable, truncated, nan_vertices, unsupported_feature, or too many.
    """
    _check_zero_bytes(text)
    reader = _Reader(text, limits)
    start = 0
    while start < len(text):
        stop = text.find(b"\n", min(start + BLOCK_BYTES, len(text)) - 1) + 1 or len(text)
        reader.read_block(start, stop)
        start = stop
    return reader.collect()


def _check_zero_bytes(text: bytes) -> None:
    place = text.find(b"\x00")
    if place < 0:
        return
    where = f"line {count_line(text, place)}"
    if not text[place:].strip(b"\x00 \n"):
        raise AssetRejected("truncated", f"only zeros from {where} on; fetch the file again")
    raise make_unreadable_error(f"{where} holds a zero byte")


class _Reader:
    """Collects records block by block."""

    def __init__(self, text: bytes, limits: MeshLimits) -> None:
        self.text, self.limits = text, limits
        self.values: dict[int, list[FloatArray]] = {
            kind: [np.zeros((0, width))] for kind, width in NUM_COLUMNS.items()
        }
        self.totals = dict.fromkeys(NUM_COLUMNS, 0)
        self.corners: list[IntArray] = [np.zeros((0, 3), dtype=np.int64)]
        self.sizes: list[IntArray] = [np.zeros(0, dtype=np.int64)]
        self.lines: list[IntArray] = [np.zeros(0, dtype=np.int64)]
        self.num_polygons = self.num_triangles = self.num_lines = 0
        self.names = {"o": Names(), "g": Names(), "usemtl": Names()}
        self.libraries: list[str] = []
        self.paint: list[bytes] = []
        self.counts: Counter[str] = Counter()

    def read_block(self, start: int, stop: int) -> None:
        """Read the lines of a stretch of the text."""
        block = split_block(self.text[start:stop], start)
        before = dict(self.totals)
        for kind in NUM_COLUMNS:
            self._read_values(block, kind)
        self._read_others(block)
        self._read_faces(block, before)
        self.num_lines += self.text.count(b"\n", start, stop) + self.text.count(b"\v", start, stop)
        check_counts(self.num_triangles, self.totals[VERTEX], self.limits)

    def _read_values(self, block: Block, kind: int) -> None:
        rows = block.find_rows(kind)
        if not len(rows):
            return
        counts, columns = block.counts[rows], COLUMNS[kind]
        for row in rows[~np.isin(counts, list(columns))][:1].tolist():
            what = f"{WORDS[kind]} has {int(block.counts[row])} numbers, not {_list_words(columns)}"
            self._refuse(block, row, what, is_short=True)
        try:
            flat = read_floats(block.cut_words(rows))
        except BadToken as err:
            self._refuse_word(block, rows, err)
        table = spread_rows(flat, counts, columns)
        if kind == VERTEX:
            for row in rows[~np.isfinite(table[:, :3]).all(axis=1)][:1].tolist():
                where = f"the vertex of line {self._count_line(block, row)}"
                raise AssetRejected("nan_vertices", f"{where} is NaN or infinite; repair the mesh")
        if kind == TEXTURE:
            table[counts == 1, 1] = 0.0
        self.values[kind].append(table)
        self.totals[kind] += len(rows)

    def _read_faces(self, block: Block, before: Mapping[int, int]) -> None:
        rows = block.find_rows(FACE)
        if not len(rows):
            return
        sizes = block.counts[rows].astype(np.int64)
        try:
            indices = read_corners(block.cut_words(rows))
        except BadToken as err:
            self._refuse_word(block, rows, err)
        self._check_last_face(block, rows, indices)
        row_of_corner = np.repeat(rows, sizes)
        for column, kind in enumerate(NUM_COLUMNS):
            given = indices[:, column]
            so_far = before[kind] + block.count_before(kind)[row_of_corner]
            resolved = np.where(given > 0, given - 1, given + so_far)
            for corner in np.flatnonzero((given < 0) & (resolved < 0))[:1].tolist():
                what = f"{so_far[corner]} {WORDS[kind]} stand before f with index {given[corner]}"
                self._refuse(block, int(row_of_corner[corner]), f"only {what}")
            indices[:, column] = np.where(given == 0, -1, resolved)
        self.corners.append(indices)
        self.sizes.append(sizes)
        self.lines.append(block.count_lines(rows) + self.num_lines + 1)
        self.num_polygons += len(rows)
        self.num_triangles += int(np.maximum(sizes - 2, 0).sum())

    def _check_last_face(self, block: Block, rows: IntArray, indices: IntArray) -> None:
        """Refuse a face that the end of the file has cut off."""
        row = int(rows[-1])
        size = int(block.counts[row])
        if not self._is_open(block, row):
            return
        if size < 3:
            self._refuse(block, row, f"f has {size} corners", is_short=True)
        is_given = indices[-size:] != 0
        is_cut_off = self.text.endswith(b"/") and not self.text.rsplit(None, 2)[-2].endswith(b"/")
        if (is_given[:-1].all(axis=0) & ~is_given[-1]).any() or is_cut_off:
            self._refuse(block, row, "the last corner of f lacks an index", is_short=True)

    def _read_others(self, block: Block) -> None:
        self.counts["lines_left_out"] += len(block.find_rows(LINE))
        self.counts["points_left_out"] += len(block.find_rows(POINT))
        polygons = self.num_polygons + block.count_before(FACE)
        is_paint = (block.kinds == COMMENT) & (block.last - block.first == len(_PAINT))
        for row in np.flatnonzero((block.kinds == OTHER) | is_paint).tolist():
            first, last = int(block.first[row]), int(block.last[row])
            word = block.data[first:last].tobytes()
            rest = block.data[last : int(block.ends[row])].tobytes().strip()
            if block.kinds[row] == OTHER:
                self._read_other(block, row, (word, rest), int(polygons[row]))
            elif word == _PAINT:
                self.paint.append(rest)

    def _read_other(self, block: Block, row: int, line: tuple[bytes, bytes], polygon: int) -> None:
        raw, rest = line
        word = raw.decode("latin-1").lower()
        if word in self.names:
            self.names[word].add(polygon, rest)
        elif word == "mtllib":
            self.libraries += parse_library_names(rest)
        elif word in _SURFACES:
            raise AssetRejected(
                "unsupported_feature",
                f"line {self._count_line(block, row)} has {word!r}: free-form surfaces and files "
                "in files are not read; export polygons",
            )
        elif word in _CURVES:
            self.counts["curve_lines_left_out"] += 1
        elif word not in _HINTS:
            # A keyword of someone's own is left out; what is no word may be half of a record.
            is_cut = self._is_open(block, row) and any(each.startswith(word) for each in _KNOWN)
            if is_cut or not _WORD.fullmatch(raw):
                self._refuse(block, row, f"{_quote(raw)} is no keyword", is_short=is_cut)
            self.counts["unknown_lines_left_out"] += 1

    def _refuse_word(self, block: Block, rows: IntArray, err: BadToken) -> NoReturn:
        row = block.find_row(rows, err.place)
        is_last = row == len(block.starts) - 1 and self.text.endswith(err.word)
        is_short = is_last and _OPEN_WORD.fullmatch(err.word) is not None
        what = f"{WORDS[int(block.kinds[row])]} has {_quote(err.word)}, which {err.what}"
        self._refuse(block, row, what, is_short=is_short)

    def _refuse(self, block: Block, row: int, what: str, *, is_short: bool = False) -> NoReturn:
        where = f"line {self._count_line(block, row)}: {what}"
        if is_short and self._is_open(block, row):
            raise AssetRejected("truncated", f"the file ends in {where}; fetch it again")
        raise make_unreadable_error(where)

    def _is_open(self, block: Block, row: int) -> bool:
        """Whether the line is the last of the file and has no end."""
        return block.place + int(block.ends[row]) == len(self.text)

    def _count_line(self, block: Block, row: int) -> int:
        return count_line(self.text, block.place + int(block.first[row]))

    def collect(self) -> ObjRecords:
        """Everything that was read."""
        arrays = {kind: np.concatenate(tables) for kind, tables in self.values.items()}
        return ObjRecords(
            vertices=arrays[VERTEX],
            textures=arrays[TEXTURE],
            normals=arrays[NORMAL],
            corners=np.concatenate(self.corners),
            sizes=np.concatenate(self.sizes),
            lines=np.concatenate(self.lines),
            names=self.names,
            libraries=tuple(dict.fromkeys(self.libraries)),
            paint=b"".join(self.paint),
            counts=dict(self.counts),
        )


def _list_words(numbers: Mapping[int, object]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}"


def _quote(word: bytes) -> str:
    return repr(decode_text(word[:40]))
