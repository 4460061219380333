"""Numbers of OBJ lines, read for many lines at once and without leniency.

Input is the bytes of all lines of one kind with their keywords blanked. What does not read exactly
is reported by its place; nothing is skipped or guessed.
"""

from __future__ import annotations

import re

import numpy as np

from segvigen_model.types import BoolArray, ByteArray, FloatArray, IntArray

SPACES = b" \t\n\v\f"
NOT_FINITE = re.compile(rb"[-+]?(?:\d\.#\w+|(?:nan|inf(?:inity)?)(?:\(\w*\))?)", re.IGNORECASE)
_MOST_DIGITS = 18  # of an index; more do not fit into 64 bits


class BadToken(Exception):
    """A word that is no number or corner.

    Attributes:
        place: offset of the word in the bytes given.
        word: the word.
        what: what is wrong with it.
    """

    def __init__(self, place: int, word: bytes, what: str) -> None:
        super().__init__(place, word, what)
        self.place, self.word, self.what = place, word, what


def _mark(signs: bytes) -> BoolArray:
    table: BoolArray = np.zeros(256, dtype=np.bool_)
    table[list(signs)] = True
    return table


IS_SPACE = _mark(SPACES)
_IS_DIGIT = _mark(b"0123456789")
_IS_SIGN = _mark(b"+-")
_IS_IN_NUMBER = _mark(b"0123456789+-.eE" + SPACES)
_IS_IN_CORNER = _mark(b"0123456789+-/" + SPACES)


def find_words(text: ByteArray) -> tuple[IntArray, IntArray]:
    """First bytes and ends of all words of a text that ends with white space."""
    is_word = ~IS_SPACE[text]
    edges = np.flatnonzero(np.diff(is_word.view(np.int8), prepend=0))
    return edges[::2], edges[1::2]


def read_floats(text: bytes) -> FloatArray:
    """Read all numbers of a text.

    Args:
        text: numbers between white space.

    Returns:
        (N,) float64. Words for NaN and infinity, and what is too large for a double, are not
        finite.

    Raises:
        BadToken: the first word that is no number.
    """
    words = text.split()
    if _IS_IN_NUMBER[np.frombuffer(text, dtype=np.uint8)].all():
        try:
            return np.fromiter(map(float, words), dtype=np.float64, count=len(words))
        except ValueError:
            pass  # found below
    return np.array([_read_float(text, number, word) for number, word in enumerate(words)])


def _read_float(text: bytes, number: int, word: bytes) -> float:
    if NOT_FINITE.fullmatch(word):
        return float("nan")
    try:
        if not _IS_IN_NUMBER[np.frombuffer(word, dtype=np.uint8)].all():
            raise ValueError
        return float(word)
    except ValueError:
        place = _find_place(text, number)
        raise BadToken(place, word, "is no number") from None


def _find_place(text: bytes, number: int) -> int:
    """Offset of the n-th word."""
    starts, _ = find_words(np.frombuffer(text + b"\n", dtype=np.uint8))
    return int(starts[number])


def read_corners(text: bytes) -> IntArray:
    """Read all corners of a text: `v`, `v/vt`, `v//vn` or `v/vt/vn` between white space.

    Returns:
        (C, 3) int64 vertex, texture coordinate and normal as written; 0 = absent.

    Raises:
        BadToken: the first word that is no corner, or that holds a 0: indices begin at 1.
    """
    signs = np.frombuffer(text, dtype=np.uint8)
    starts, ends = find_words(signs)
    is_number = (_IS_DIGIT | _IS_SIGN)[signs]
    edges = np.flatnonzero(np.diff(is_number.view(np.int8), prepend=0, append=0))
    first, last = edges[::2], edges[1::2]
    owner = np.searchsorted(starts, first, side="right") - 1
    is_slash = signs == ord("/")
    slashes = np.cumsum(is_slash, dtype=np.int32)
    slot = slashes[first] - slashes[starts[owner]] + is_slash[starts[owner]]
    _check_corners(signs, (starts, ends), (first, last, owner), slot)
    values = np.fromstring(text.replace(b"/", b" "), dtype=np.int64, sep=" ")
    assert len(values) == len(first)  # what could differ was refused
    for number in np.flatnonzero(values == 0)[:1].tolist():
        raise _make_error(signs, starts, ends, int(owner[number]), "has index 0; the first is 1")
    indices: IntArray = np.zeros((len(starts), 3), dtype=np.int64)
    indices[owner, slot] = values
    return indices


def _check_corners(
    signs: ByteArray,
    words: tuple[IntArray, IntArray],
    numbers: tuple[IntArray, IntArray, IntArray],
    slot: IntArray,
) -> None:
    """Refuse the first word that is no corner.

    Args:
        signs: the text.
        words: first bytes and ends of the words.
        numbers: first bytes and ends of the numbers, and the word that each is in.
        slot: slashes before each number in its word.
    """
    starts, ends = words
    first, last, owner = numbers
    is_bad: BoolArray = np.zeros(len(starts), dtype=np.bool_)
    strange = np.flatnonzero(~_IS_IN_CORNER[signs])
    inner_signs = np.flatnonzero(_IS_SIGN[signs[1:]] & (_IS_DIGIT | _IS_SIGN)[signs[:-1]]) + 1
    for places in (strange, inner_signs):
        is_bad[np.searchsorted(starts, places, side="right") - 1] = True
    has_digit = _IS_DIGIT[signs[last - 1]] & (last - first <= _MOST_DIGITS)
    is_bad[owner[~has_digit | (slot > 2)]] = True
    has_vertex: BoolArray = np.zeros(len(starts), dtype=np.bool_)
    has_vertex[owner[slot == 0]] = True
    is_bad |= ~has_vertex
    num_slashes = np.add.reduceat(signs == ord("/"), starts) if len(starts) else np.zeros(0)
    is_bad |= num_slashes > 2
    for number in np.flatnonzero(is_bad)[:1].tolist():
        raise _make_error(signs, starts, ends, number, "is no corner of a face")


def _make_error(
    signs: ByteArray, starts: IntArray, ends: IntArray, number: int, what: str
) -> BadToken:
    start = int(starts[number])
    return BadToken(start, signs[start : int(ends[number])].tobytes(), what)
