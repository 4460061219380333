"""Numbers of OBJ lines, read for many lines at once and without leniency.

Input is the bytes of all lines of one kind with their keywords blanked. What does not read exactly
is reported by its place; nothing is skipped or guessed.
"""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np

from segvigen_model.types import BoolArray, ByteArray, FloatArray, IntArray

SPACES = b" \t\n\v\f"
NOT_FINITE = re.compile(rb"[-+]?(?:\d\.#\w+|(?:nan|inf(?:inity)?)(?:\(\w*\))?)", re.IGNORECASE)
_NO_CORNER = "is no corner of a face"
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


_IS_WORD = ~_mark(SPACES)
_IS_DIGIT = _mark(b"0123456789")
_IS_SIGN = _mark(b"+-")
_IS_IN_NUMBER = _mark(b"0123456789+-.eE" + SPACES)
_IS_IN_CORNER = _mark(b"0123456789+-/" + SPACES)


def find_words(text: ByteArray) -> tuple[IntArray, IntArray]:
    """First bytes and ends of all words of a text that ends with white space."""
    return _find_runs(_IS_WORD[text])


def _find_runs(is_in: BoolArray) -> tuple[IntArray, IntArray]:
    """First places and ends of all stretches of True; the last place is False."""
    edges = np.flatnonzero(is_in[1:] != is_in[:-1]) + 1
    if len(is_in) and is_in[0]:
        edges = np.concatenate([[0], edges])
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
        with suppress(ValueError):  # which word it was is found below
            return np.fromiter(map(float, words), dtype=np.float64, count=len(words))
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
    if not len(starts):
        return np.zeros((0, 3), dtype=np.int64)
    first, last = _find_runs((_IS_DIGIT | _IS_SIGN)[signs])
    owner = np.searchsorted(starts, first, side="right") - 1
    is_slash = signs == ord("/")
    slashes = np.cumsum(is_slash, dtype=np.int32)
    before = slashes[starts] - is_slash[starts]
    slot = slashes[first] - before[owner]
    _check_corners(signs, (starts, ends), (first, last, owner), slot)
    for number in np.flatnonzero(slashes[ends - 1] - before > 2)[:1].tolist():
        raise _make_error(signs, starts, ends, number, _NO_CORNER)
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
    is_inner_sign = _IS_SIGN[signs[1:]] & (_IS_DIGIT | _IS_SIGN)[signs[:-1]]
    is_whole = _IS_DIGIT[signs[last - 1]] & (last - first <= _MOST_DIGITS) & (slot <= 2)
    is_first = slot == 0  # at most one number of a word
    if (
        _IS_IN_CORNER[signs].all()
        and not is_inner_sign.any()
        and is_whole.all()
        and np.count_nonzero(is_first) == len(starts)
    ):
        return
    is_bad: BoolArray = np.ones(len(starts), dtype=np.bool_)
    is_bad[owner[is_first]] = False
    is_bad[owner[~is_whole]] = True
    for places in (np.flatnonzero(~_IS_IN_CORNER[signs]), np.flatnonzero(is_inner_sign) + 1):
        is_bad[np.searchsorted(starts, places, side="right") - 1] = True
    raise _make_error(signs, starts, ends, int(np.flatnonzero(is_bad)[0]), _NO_CORNER)


def _make_error(
    signs: ByteArray, starts: IntArray, ends: IntArray, number: int, what: str
) -> BadToken:
    start = int(starts[number])
    return BadToken(start, signs[start : int(ends[number])].tobytes(), what)
