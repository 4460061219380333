"""STL as text: any case, any white space, any line ends, several solids.

What a solid is called is free text up to the end of its line, whatever words are in it. Between
those lines only whole facets may stand. Text announces no number of facets: `endsolid` alone says
that a solid is whole. Without it a solid is taken only if its surface is closed, because a file
that was cut off has a hole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.text_rows import (
    BOM,
    SPACES,
    find_tokens,
    normalize_newlines,
    parse_numbers,
)
from segvigen_model.types import BoolArray, ByteArray, FloatArray, IntArray

BLOCK_BYTES = 1 << 23
# The words of a facet; a number stands where there is None.
_GRAMMAR: tuple[bytes | None, ...] = (
    b"facet", b"normal", None, None, None, b"outer", b"loop",
    b"vertex", None, None, None, b"vertex", None, None, None, b"vertex", None, None, None,
    b"endloop", b"endfacet",
)  # fmt: skip
_NORMAL = slice(2, 5)


@dataclass(frozen=True, slots=True)
class Solid:
    """One solid of the file.

    Attributes:
        name: as written, untrusted.
        corners: (F, 3, 3) float64.
        is_closed: whether `endsolid` was there.
    """

    name: str
    corners: FloatArray
    is_closed: bool


@dataclass(frozen=True, slots=True)
class SolidLine:
    """A line that opens or closes a solid: where it begins, its name begins, and it ends."""

    start: int
    name_start: int
    end: int
    is_end: bool


def is_stl_text(data: bytes) -> bool:
    """Whether a file begins as text does; a binary header may, but has zero bytes behind."""
    head = data[:1024].removeprefix(BOM).lstrip(SPACES).lower()
    if not head.startswith(b"solid"):
        return False
    text, zero, rest = head.partition(b"\x00")
    # Some pad the end of a text with zero bytes.
    return not zero or (b"normal" in text and not rest.strip(b"\x00"))


def read_stl_text(data: bytes, limits: MeshLimits) -> list[Solid]:
    """Read all solids of a text, in its order.

    Raises:
        AssetRejected: no_faces, truncated, unreadable or too_many_faces.
    """
    text = normalize_newlines(data.rstrip(b"\x00"))
    lower = text.lower()
    num_facets = lower.count(b"normal")
    check_counts(num_facets, 3 * num_facets, limits)
    lines = _find_solid_lines(lower, limits)
    if not lines or lower[: lines[0].start].strip(SPACES):
        raise make_unreadable_error("the STL does not begin with a line of a solid")
    solids: list[Solid] = []
    for number, line in enumerate(lines):
        after = lines[number + 1] if number + 1 < len(lines) else None
        body = lower[line.end : after.start if after else len(lower)]
        if line.is_end:
            if body.strip(SPACES):
                raise make_unreadable_error("text stands between the solids of the STL")
            continue
        corners = _read_facets(body, is_cut=after is None)
        if after is None and not _is_watertight(corners):
            raise AssetRejected(
                "truncated",
                f"the last solid of the STL has {len(corners)} facets, a hole and no endsolid; "
                "fetch it again",
            )
        name = text[line.name_start : line.end].strip().decode("utf-8", "replace")
        solids.append(Solid(name, corners, after is not None and after.is_end))
    return solids


def _find_solid_lines(lower: bytes, limits: MeshLimits) -> list[SolidLine]:
    """Lines that begin with `solid`, `endsolid` or `end solid`, in lower case."""
    lines: list[SolidLine] = []
    at = lower.find(b"solid")
    while at >= 0:
        start = lower.rfind(b"\n", 0, at) + 1
        end = lower.find(b"\n", at)
        end = len(lower) if end < 0 else end
        before = lower[start:at].strip(SPACES)
        if before in (b"", b"end"):
            lines.append(SolidLine(start, at + len(b"solid"), end, is_end=before == b"end"))
            if len(lines) > 2 * limits.max_nodes:
                raise AssetRejected(
                    "too_many_nodes", f"more than {limits.max_nodes} solids; join them"
                )
        at = lower.find(b"solid", end)
    return lines


def _read_facets(body: bytes, is_cut: bool) -> FloatArray:
    """(F, 3, 3) corners of the facets of one solid.

    Args:
        body: all between the line of the solid and the next.
        is_cut: whether the file ends here without `endsolid`.
    """
    for word in (b"loop", b"facet"):  # some write two words
        body = body.replace(b"end " + word, b"end" + word)
    parts: list[FloatArray] = [np.zeros((0, 3, 3))]
    at = 0
    while at < len(body):
        end = len(body)
        if end - at > BLOCK_BYTES:
            last = body.find(b"endfacet", at + BLOCK_BYTES)
            end = end if last < 0 else last + len(b"endfacet")
        parts.append(_read_block(body[at:end], is_cut and end == len(body)))
        at = end
    return np.concatenate(parts)


def _read_block(block: bytes, is_cut: bool) -> FloatArray:
    content = np.frombuffer(bytearray(block), dtype=np.uint8)
    is_space, is_first = find_tokens(block)
    starts = np.flatnonzero(is_first)
    period = len(_GRAMMAR)
    count = len(starts) // period
    words = starts[: count * period].reshape(-1, period)
    is_right = _match_words(block, content, is_space, words)
    row = int(np.argmin(is_right)) if len(words) else 0
    is_half = bool(is_right.all()) and len(starts) % period > 0
    if is_cut and (is_half or (row + 1 == count and not is_right.all())):
        raise AssetRejected("truncated", "the STL ends in the middle of a facet; fetch it again")
    if not is_right.all():
        raise _make_facet_error(block, words, row)
    if len(starts) % period:
        raise _make_facet_error(block, starts[count * period :][None], 0)
    numbers = parse_numbers(content.tobytes())
    return numbers.reshape(-1, 3, 3)


def _match_words(
    block: bytes, content: ByteArray, is_space: BoolArray, words: IntArray
) -> BoolArray:
    """(F,) whether each facet has the right words; all but its corners become spaces."""
    is_right: BoolArray = np.ones(len(words), dtype=np.bool_)
    lower = np.frombuffer(block, dtype=np.uint8)
    padded = np.concatenate([is_space, [True]])
    for column, word in enumerate(_GRAMMAR):
        if word is None:
            continue
        starts = words[:, column]
        is_long = starts + len(word) <= len(lower)
        is_right &= is_long
        starts = starts[is_long]
        is_same = padded[starts + len(word)]
        for offset, letter in enumerate(word):
            is_same &= lower[starts + offset] == letter
            content[starts + offset] = 32
        is_right[is_long] &= is_same
    _blank_normals(content, words)
    return is_right


def _blank_normals(content: ByteArray, words: IntArray) -> None:
    """Normals are computed; what is written, often "-nan(ind)", does not matter."""
    change = np.zeros(len(content) + 1, dtype=np.int8)
    change[words[:, _NORMAL.start]] = 1
    change[words[:, _NORMAL.stop]] = -1
    content[np.cumsum(change[:-1], dtype=np.int8) > 0] = 32


def _make_facet_error(block: bytes, words: IntArray, row: int) -> AssetRejected:
    start = int(words[row, 0])
    return make_unreadable_error(
        f"a facet of the STL is not of the usual form: {block[start : start + 60]!r}"
    )


def _is_watertight(corners: FloatArray) -> bool:
    """Whether every edge of a surface is there as often in one direction as in the other."""
    if not len(corners):
        return False
    _, points = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    faces = points.reshape(-1, 3)
    begin, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    total = int(faces.max()) + 1
    keys = np.minimum(begin, end) * total + np.maximum(begin, end)
    _, edges = np.unique(keys, return_inverse=True)
    balance = np.bincount(edges, weights=np.sign(end - begin))
    return not balance.any()
