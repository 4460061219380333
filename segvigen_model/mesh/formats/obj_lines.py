"""A block of an OBJ file cut into lines, each with its kind; all lines of a kind as one text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segvigen_model.mesh.formats.obj_numbers import find_words
from segvigen_model.mesh.formats.obj_text import JOINT
from segvigen_model.types import BoolArray, ByteArray, FloatArray, IntArray

# Kinds of lines. Those before COMMENT are read together, OTHER one by one.
BLANK, VERTEX, TEXTURE, NORMAL, FACE, SMOOTHING, LINE, POINT, COMMENT, OTHER = range(10)
KEYWORDS = {
    "v": VERTEX, "vt": TEXTURE, "vn": NORMAL, "f": FACE, "fo": FACE, "s": SMOOTHING, "l": LINE,
    "p": POINT,
}  # fmt: skip
SPACE, HASH, DOT = ord(" "), ord("#"), ord(".")


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file.

    Attributes:
        data: (B,) bytes; the last one ends a line. Comments behind records are blanked.
        place: of the block in the text.
        starts, ends: (L,) first byte and line feed of each line.
        kinds: (L,) int8.
        first, last: (L,) first byte and end of its keyword.
        counts: (L,) words behind it.
    """

    data: ByteArray
    place: int
    starts: IntArray
    ends: IntArray
    kinds: IntArray
    first: IntArray
    last: IntArray
    counts: IntArray

    def find_rows(self, kind: int) -> IntArray:
        """Lines of a kind."""
        return np.flatnonzero(self.kinds == kind)

    def count_before(self, kind: int) -> IntArray:
        """(L,) how many lines of a kind stand before each line, or are it."""
        return np.cumsum(self.kinds == kind)

    def cut_words(self, rows: IntArray) -> bytes:
        """Text of some lines of one kind without their keywords."""
        data = self.data.copy()
        first, last = self.first[rows], self.last[rows]
        data[first] = SPACE
        data[first[last - first > 1] + 1] = SPACE
        is_row: BoolArray = np.zeros(len(self.starts), dtype=np.bool_)
        is_row[rows] = True
        return data[np.repeat(is_row, self.ends - self.starts + 1)].tobytes()

    def find_row(self, rows: IntArray, place: int) -> int:
        """The line that a place in `cut_words(rows)` comes from."""
        lengths = np.cumsum(self.ends[rows] - self.starts[rows] + 1)
        return int(rows[np.searchsorted(lengths, place, side="right")])

    def count_lines(self, rows: IntArray) -> IntArray:
        """(R,) lines of the file that stand before some lines in this block."""
        joints = np.flatnonzero(self.data == JOINT[0])
        return rows + np.searchsorted(joints, self.first[rows])


def split_block(text: bytes, place: int) -> Block:
    """Cut text into lines and say what they are.

    Args:
        text: whole lines; the last one may lack its end.
        place: of the text in the file, kept for errors.
    """
    data = np.frombuffer(text if text.endswith(b"\n") else text + b"\n", dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    words, stops = find_words(data)
    number = np.searchsorted(words, starts)
    is_blank = number == np.searchsorted(words, ends)
    # A blank line has no keyword; any place will do.
    first = np.append(words, 0)[number]
    last = np.append(stops, 1)[number]
    kinds = np.where(is_blank, BLANK, _classify(data, first, last)).astype(np.int8)
    clean = _blank_comments(data, ends, kinds)
    if clean is not data:
        words, _ = find_words(clean)
    counts = np.searchsorted(words, ends) - np.searchsorted(words, starts) - 1
    return Block(clean, place, starts, ends, kinds, first, last, counts)


def spread_rows(
    flat: FloatArray, counts: IntArray, columns: dict[int, tuple[int, ...]]
) -> FloatArray:
    """Put numbers of lines into a table.

    Args:
        flat: (N,) numbers of all lines.
        counts: (R,) how many each line has.
        columns: where the numbers of a line go, by how many there are; -1 = nowhere.

    Returns:
        (R, W) float64, W = 1 + the last column that anything goes to; NaN where nothing is.
    """
    width = 1 + max(max(places) for places in columns.values())
    table: FloatArray = np.full((len(counts), width + 1), np.nan)
    starts = np.cumsum(counts) - counts
    for count in np.unique(counts).tolist():
        rows = np.flatnonzero(counts == count)
        picked = flat[starts[rows, None] + np.arange(count)]
        table[rows[:, None], columns[count]] = picked  # -1 is the spare column
    return table[:, :width]


def _classify(data: ByteArray, first: IntArray, last: IntArray) -> IntArray:
    """(L,) kinds by keywords of one or two letters, of any case."""
    lower = np.arange(256)
    lower[ord("A") : ord("Z") + 1] += 32
    length = last - first
    code = lower[data[first]]
    second = lower[data[np.minimum(first + 1, len(data) - 1)]]
    code = np.where(length == 2, code + 256 * second, np.where(length == 1, code, 0))
    kinds: IntArray = np.full(len(first), OTHER)
    for word, kind in KEYWORDS.items():
        kinds[code == sum(ord(letter) << 8 * k for k, letter in enumerate(word))] = kind
    kinds[data[first] == HASH] = COMMENT
    return kinds


def _blank_comments(data: ByteArray, ends: IntArray, kinds: IntArray) -> ByteArray:
    """Blank what stands behind a "#" in records; ".#" is part of a number that is none (1.#INF)."""
    places = np.flatnonzero(data == HASH)
    places = places[data[places - 1] != DOT]
    line = np.searchsorted(ends, places)
    is_record = (kinds[line] < COMMENT) & (kinds[line] != BLANK)
    line, index = np.unique(line[is_record], return_index=True)
    if not len(line):
        return data
    change: IntArray = np.zeros(len(data) + 1, dtype=np.int8)
    change[places[is_record][index]] = 1
    change[ends[line]] = -1
    return np.where(np.cumsum(change[:-1], dtype=np.int8), SPACE, data).astype(np.uint8)
