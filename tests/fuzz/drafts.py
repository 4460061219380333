"""Files in pieces with a role each, so that changes of known meaning can be made to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

Piece = tuple[str, bytes]


@dataclass(frozen=True)
class Draft:
    """A file before it is joined.

    Attributes:
        suffix: its kind.
        pieces: (role, bytes); "vertex" and "face" are rows, "counts" announces them.
        is_text: whether pieces are lines.
        keeps: what the format keeps of the known mesh.
        is_announced: whether the file says how many rows it has.
        scale: of the read coordinates.
        comment: how a line of comment begins, "" = there are none.
    """

    suffix: str
    pieces: tuple[Piece, ...]
    is_text: bool
    keeps: frozenset[str]
    is_announced: bool = True
    scale: float = 1.0
    comment: str = ""
    side_files: dict[str, bytes] = field(default_factory=dict)

    def join(self) -> bytes:
        return b"".join(data for _, data in self.pieces)

    def find(self, *roles: str) -> list[int]:
        return [number for number, (role, _) in enumerate(self.pieces) if role in roles]


Change = Callable[[Draft, np.random.Generator], Draft | None]


def edit(draft: Draft, number: int, *pieces: Piece) -> Draft:
    """Put other pieces in the place of one."""
    return replace(draft, pieces=(*draft.pieces[:number], *pieces, *draft.pieces[number + 1 :]))


def map_lines(draft: Draft, change: Callable[[str, bytes], bytes]) -> Draft:
    return replace(draft, pieces=tuple((role, change(role, data)) for role, data in draft.pieces))


# Changes that keep the meaning. None = not for this draft.


def end_lines_otherwise(draft, rng):
    end = bytes(rng.choice([b"\r\n", b"\r"])) if rng.random() < 0.8 else b"\n\n"
    if not draft.is_text or (end == b"\n\n" and has_continued_lines(draft)):
        return None
    return map_lines(draft, lambda _, data: data.replace(b"\n", end))


def space_otherwise(draft, rng):
    if not draft.is_text:
        return None
    gap = [b"\t", b"  ", b" \t "][rng.integers(3)]
    return map_lines(
        draft, lambda role, data: data.replace(b" ", gap) if role in ("vertex", "face") else data
    )


def indent(draft, rng):
    if not draft.is_text:
        return None
    return map_lines(draft, lambda role, data: b"  " + data if role in ("vertex", "face") else data)


def has_continued_lines(draft):
    return any(b"\\" in data for _, data in draft.pieces)


def add_trailing_space(draft, rng):
    if not draft.is_text or has_continued_lines(draft):
        return None
    return map_lines(draft, lambda _, data: data.replace(b"\n", b" \t\n"))


def add_mark(draft, rng):
    return (
        replace(draft, pieces=(("mark", b"\xef\xbb\xbf"), *draft.pieces)) if draft.is_text else None
    )


def add_comments(draft, rng):
    if not draft.comment:
        return None
    roles = ("head",) if draft.suffix == "ply" else ("head", "vertex", "face", "counts")
    places = draft.find(*roles)[1 if draft.suffix == "ply" else 0 :]
    if not places:
        return None
    at = int(rng.choice(places))
    line = (draft.comment + " 3 0 1 2 end_header \xfc\n").encode("latin-1")
    return edit(draft, at, ("comment", line), draft.pieces[at])


def end_without_newline(draft, rng):
    role, data = draft.pieces[-1]
    return edit(draft, len(draft.pieces) - 1, (role, data.rstrip())) if draft.is_text else None


def add_tail(draft, rng):
    if draft.suffix not in ("ply", "off", "stl") or (draft.suffix == "stl" and draft.is_text):
        return None
    return replace(draft, pieces=(*draft.pieces, ("tail", b"\n" if draft.is_text else bytes(7))))


SAME: tuple[Change, ...] = (
    end_lines_otherwise, space_otherwise, indent, add_trailing_space, add_mark, add_comments,
    end_without_newline, add_tail,
)  # fmt: skip

# Changes that lose something: the file has to be refused.


def drop_row(draft, rng):
    rows = draft.find("vertex", "face") if draft.is_announced else []
    return edit(draft, int(rng.choice(rows))) if rows else None


def repeat_face(draft, rng):
    rows = draft.find("face")
    if not draft.is_announced or not rows:
        return None
    role, data = draft.pieces[rows[-1]]
    line = data.rstrip() + b"\n" if draft.is_text else data
    return edit(draft, rows[-1], (role, line), (role, line))


def cut_tail(draft, rng):
    rows = draft.find("vertex", "face")
    if not draft.is_announced or not rows:
        return None
    return replace(draft, pieces=draft.pieces[: int(rng.choice(rows))])


def cut_row(draft, rng):
    """Take numbers, or bytes, from the end of a row."""
    rows = draft.find("vertex", "face")
    if not rows:
        return None
    at = int(rng.choice(rows))
    role, data = draft.pieces[at]
    if draft.is_text:
        words = data.split()
        if draft.suffix == "obj" and (role == "vertex" or len(words) != 4):
            return None  # a position without colour, a polygon with a corner less: both are whole
        if draft.suffix == "off" and role == "face" and len(words) > 1 + int(words[0]):
            return None  # a colour without alpha
        return edit(draft, at, (role, b" ".join(words[:-1]) + b"\n"))
    if draft.find("tail"):
        return None  # other bytes would take the place of those that go
    return edit(draft, at, (role, data[: -int(rng.integers(1, min(len(data), 9)))]))


def lie_about_counts(draft, rng):
    places = draft.find("counts")
    if not places:
        return None
    at = int(rng.choice(places))
    role, data = draft.pieces[at]
    step = int(rng.choice([-1, 1, 2, 1000]))
    if draft.is_text or draft.suffix == "ply":
        words = data.split(b" ")
        numbers = [number for number, word in enumerate(words) if word.strip().isdigit()][:2]
        pick = int(rng.choice(numbers))
        words[pick] = words[pick].replace(words[pick].strip(), b"%d" % (int(words[pick]) + step))
        return edit(draft, at, (role, b" ".join(words)))
    value = int.from_bytes(data, "little") + step
    return edit(draft, at, (role, max(value, 0).to_bytes(4, "little")))


LOSING: tuple[Change, ...] = (drop_row, repeat_face, cut_tail, cut_row, lie_about_counts)
