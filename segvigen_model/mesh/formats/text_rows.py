"""Lines of numbers in untrusted text, as arrays: what PLY, OFF and their kin are made of.

A line keeps its identity, because a line with one number too few is the sign of a cut or shifted
file. Every token has to be a number; nothing is skipped. Text is read in blocks, so that the
memory taken beside the numbers themselves does not grow with the file.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.types import BoolArray, FloatArray, IntArray

BLOCK_BYTES = 1 << 24
NUMBER = re.compile(rb"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)", re.IGNORECASE)
# Not-a-number as Microsoft's C library prints it: "1.#QNAN0", "-1.#IND".
FOREIGN_NAN = re.compile(rb"[-+]?(?:1\.#(?:QNAN|SNAN|IND|INF)0*|nan\([a-z]*\))", re.IGNORECASE)
BOM = b"\xef\xbb\xbf"
SPACES = b" \t\r\n\v\f"
_IS_SPACE = np.isin(np.arange(256), list(SPACES))


@dataclass(frozen=True, slots=True)
class NumberRows:
    """Lines that hold numbers; empty ones are left out.

    Attributes:
        values: (N,) float64, all numbers in the order of the text.
        starts: (R + 1,) int64, where the numbers of each line begin, and the end.
        lines: (R,) int64, number of each line in the text, from 0.
        rest: the text after the last line that was asked for.
    """

    values: FloatArray
    starts: IntArray
    lines: IntArray
    rest: bytes = b""

    @property
    def num_rows(self) -> int:
        """Number of lines with numbers."""
        return len(self.lines)

    @property
    def lengths(self) -> IntArray:
        """(R,) int64, how many numbers each line holds."""
        lengths: IntArray = np.diff(self.starts)
        return lengths


def is_wrapped(rows: NumberRows, starts: IntArray) -> bool:
    """Whether rows of a table may begin at `starts`: each in a line of its own, or all in one.

    Where a line holds the end of one row and the begin of the next, a number was lost or added,
    and what follows is shifted.
    """
    return rows.num_rows <= 1 or bool(np.isin(starts, rows.starts).all())


def normalize_newlines(text: bytes) -> bytes:
    """Give text without a byte order mark whose lines end in a line feed."""
    text = text.removeprefix(BOM)
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def parse_rows(text: bytes, most: int) -> NumberRows:
    """Read lines of numbers.

    Args:
        text: lines that end in a line feed; the last one may lack it.
        most: read no more lines than this; what follows is `rest`.

    Raises:
        AssetRejected: unreadable, for a token that is no number.
    """
    values: list[FloatArray] = []
    lengths: list[IntArray] = []
    numbers: list[IntArray] = []
    at, num_lines, left = 0, 0, most
    while at < len(text) and left > 0:
        end = _find_block_end(text, at)
        block = text[at:end]
        begins, counts = _count_tokens(block)
        rows = np.flatnonzero(counts)
        if len(rows) > left:
            end = at + int(begins[rows[left]])
            block, rows = text[at:end], rows[:left]
        values.append(parse_numbers(block, num_lines))
        lengths.append(counts[rows].astype(np.int64))
        numbers.append(rows + num_lines)
        at, num_lines, left = end, num_lines + len(counts), left - len(rows)
    starts = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
    lines = np.concatenate([np.zeros(0, np.int64), *numbers])
    return NumberRows(np.concatenate([np.zeros(0), *values]), starts, lines, text[at:])


def parse_numbers(text: bytes, first_line: int = 0) -> FloatArray:
    """Read text that holds numbers and white space only.

    Args:
        text: the numbers.
        first_line: number of its first line, for the message.

    Returns:
        (N,) float64. NaN and infinity are numbers here; whoever uses them decides.
    """
    try:
        with warnings.catch_warnings():
            # numpy stops at the first thing that is no number; it used to warn, and will raise.
            warnings.simplefilter("error", DeprecationWarning)
            values: FloatArray = np.fromstring(text, dtype=np.float64, sep=" ")
    except (DeprecationWarning, ValueError):
        return _parse_odd_numbers(text, first_line)
    return values if text.strip() else values[:0]


def find_tokens(text: bytes) -> tuple[BoolArray, BoolArray]:
    """(N,) whether each byte is white space, and whether it begins a token."""
    is_space: BoolArray = _IS_SPACE[np.frombuffer(text, dtype=np.uint8)]
    is_start = ~is_space
    is_start[1:] &= is_space[:-1]
    return is_space, is_start


def take_integers(values: FloatArray, what: str) -> IntArray:
    """Give (N,) int64 of floats that stand for whole numbers; others are unreadable."""
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    is_wrong = (whole != values) | (np.abs(values) > 2.0**53)
    if is_wrong.any():
        raise make_unreadable_error(f"{what} {values[np.argmax(is_wrong)]:g} is no whole number")
    return whole


def make_truncated_error(what: str, announced: int, found: int) -> AssetRejected:
    """Make the error for a file that ends before everything it announces."""
    return AssetRejected(
        "truncated", f"{announced} {what} are announced and {found} are there; fetch it again"
    )


def _find_block_end(text: bytes, at: int) -> int:
    if len(text) - at <= BLOCK_BYTES:
        return len(text)
    end = text.find(b"\n", at + BLOCK_BYTES)
    return len(text) if end < 0 else end + 1


def _count_tokens(block: bytes) -> tuple[IntArray, IntArray]:
    """(L,) where each line of a block begins, and how many tokens it holds."""
    content = np.frombuffer(block, dtype=np.uint8)
    _, is_start = find_tokens(block)
    begins = np.flatnonzero(content == 10) + 1
    begins = np.concatenate([np.zeros(1, np.int64), begins[begins < len(content)]])
    return begins, np.add.reduceat(is_start.view(np.uint8), begins, dtype=np.int64)


def _parse_odd_numbers(text: bytes, first_line: int) -> FloatArray:
    """Read numbers that C's library does not know, or name the token that is none."""
    for number, line in enumerate(text.split(b"\n"), first_line + 1):
        for token in line.split():
            if not NUMBER.fullmatch(token) and not FOREIGN_NAN.fullmatch(token):
                raise make_unreadable_error(
                    f"line {number} of the data: {token[:40]!r} is no number"
                )
    words = (b"nan" if FOREIGN_NAN.fullmatch(word) else word for word in text.split())
    return np.array([float(word) for word in words], dtype=np.float64)
