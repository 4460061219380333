"""Material libraries of OBJ: the one parser of their lines, for loader and side-file finder alike.

Numbers that do not read are left at their default and counted; nothing here refuses a mesh. Which
material a face means by a name is decided by `MaterialTable`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from segvigen_model.mesh.formats.obj_text import (
    JOINT,
    decode_text,
    normalize_text,
    read_name,
    strip_comment,
)

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_TOKEN = re.compile(r'"[^"]*"|\S+')
_UNKNOWN_OPTION = re.compile(r"-[A-Za-z_]+")
_SWITCH = re.compile(r"on|off", re.IGNORECASE)
# Options of a texture line: what an argument looks like, and how many there are at most.
_OPTIONS: Mapping[str, tuple[re.Pattern[str], int]] = {
    "-o": (_NUMBER, 3), "-s": (_NUMBER, 3), "-t": (_NUMBER, 3), "-mm": (_NUMBER, 2),
    "-bm": (_NUMBER, 1), "-boost": (_NUMBER, 1), "-texres": (re.compile(r"\d+(?:x\d+)?"), 1),
    "-blendu": (_SWITCH, 1), "-blendv": (_SWITCH, 1), "-clamp": (_SWITCH, 1), "-cc": (_SWITCH, 1),
    "-imfchan": (re.compile(r"[rgbmlz]", re.IGNORECASE), 1),
    "-type": (re.compile(r"sphere|cube_\w+", re.IGNORECASE), 1),
    "-colorspace": (re.compile(r"\S+"), 1),
}  # fmt: skip
_UNKNOWN_ARGUMENTS = (re.compile(rf"{_NUMBER.pattern}|on|off", re.IGNORECASE), 3)
_QUOTED = re.compile(r'"([^"]*)"')
_LIBRARY_END = re.compile(r"(?<=\.mtl)\s+", re.IGNORECASE)
_TEXTURE_WORDS = re.compile(r"map_(?!aat\b)\w+|bump|disp|decal|norm|refl", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TextureReference:
    """A texture line.

    Attributes:
        name: of the file, as written, without options and quotes.
        offset, scale: of texture coordinates (u, v), v up: drawn at uv * scale + offset.
    """

    name: str
    offset: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)


@dataclass(slots=True)
class MtlMaterial:
    """One material of a library; None = the library does not say.

    Attributes:
        name: as written.
        alias: without what may be a comment behind it; often the same.
        values: first numbers behind Kd (3), d, Tr, Ns, Ke (3), Pr, Pm.
        textures: by the keyword in lower case, e.g. "map_kd".
        num_unread: lines of those whose numbers do not read.
    """

    name: str
    alias: str
    values: dict[str, tuple[float, ...]] = field(default_factory=dict)
    textures: dict[str, TextureReference] = field(default_factory=dict)
    num_unread: int = 0


_WIDTHS = {"Kd": 3, "Ke": 3, "d": 1, "Tr": 1, "Ns": 1, "Pr": 1, "Pm": 1}
_WORDS = {word.lower(): word for word in _WIDTHS}


def parse_mtl(data: bytes) -> list[MtlMaterial]:
    """Read a library; materials in its order. Lines before the first one belong to none."""
    materials: list[MtlMaterial] = []
    for word, rest in _split_lines(data):
        if word == "newmtl":
            text = " ".join(decode_text(rest).split())
            materials.append(MtlMaterial(text.strip('"'), read_name(rest)))
        elif not materials:
            continue
        elif word in _WORDS:
            _add_value(materials[-1], _WORDS[word], strip_comment(decode_text(rest)))
        elif _TEXTURE_WORDS.fullmatch(word):
            texture = parse_texture(decode_text(rest))
            if texture is not None:
                materials[-1].textures.setdefault(word, texture)
    return materials


def find_texture_names(data: bytes) -> Iterator[str]:
    """Names of all image files in a library, in its order."""
    for word, rest in _split_lines(data):
        texture = parse_texture(decode_text(rest)) if _TEXTURE_WORDS.fullmatch(word) else None
        if texture is not None:
            yield texture.name


def parse_texture(rest: str) -> TextureReference | None:
    """Read what stands behind a texture keyword: options, a name with or without spaces, options.

    Args:
        rest: of the line; a comment may stand behind it.

    Returns:
        None when no name is there.
    """
    text = strip_comment(rest)
    matches = list(_TOKEN.finditer(text))
    tokens = [match[0] for match in matches]
    options: dict[str, list[float]] = {}
    if _skip_options(tokens, 0, {}) == len(tokens):
        return None
    first = 0
    while (after := _skip_option(tokens, first, options, is_last=False)) > first:
        first = after
    last = _find_trailing_options(tokens, first, options)
    if first >= last:
        return None
    name = text[matches[first].start() : matches[last - 1].end()].strip('"').strip()
    if name in ("", "."):
        return None
    return TextureReference(name, _get_pair(options, "-o", 0.0), _get_pair(options, "-s", 1.0))


def parse_library_names(rest: bytes) -> list[str]:
    """Names behind `mtllib`: several when each ends in .mtl or is quoted, else one with spaces."""
    text = strip_comment(decode_text(rest))
    names: list[str] = []
    for number, part in enumerate(_QUOTED.split(text)):  # every second part was quoted
        names += [part] if number % 2 else _LIBRARY_END.split(part.strip())
    return [name.strip() for name in names if name.strip()]


class MaterialTable:
    """Materials of all libraries of a mesh by the names that faces call them. The first one counts.

    Args:
        materials: in the order of the libraries.
    """

    def __init__(self, materials: Iterable[MtlMaterial]) -> None:
        self._tables: tuple[dict[str, MtlMaterial], ...] = ({}, {}, {})
        for material in materials:
            keys = (material.name, material.alias, material.alias.casefold())
            for table, key in zip(self._tables, keys, strict=True):
                table.setdefault(_make_key(key), material)

    def find(self, rest: bytes) -> MtlMaterial | None:
        """Find what stands behind `usemtl`: spelled alike, else without comment, else any case."""
        by_name, by_alias, by_folded = self._tables
        whole = _make_key(" ".join(decode_text(rest).split()).strip('"'))
        plain = _make_key(read_name(rest))
        return (
            by_name.get(whole)
            or by_alias.get(plain)
            or by_name.get(plain)
            or by_folded.get(_make_key(plain.casefold()))
        )


def _make_key(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _split_lines(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Keyword in lower case and rest of every line that is no comment."""
    for line in normalize_text(data).replace(JOINT, b" ").split(b"\n"):
        words = line.split(None, 1)
        if words and not words[0].startswith(b"#"):
            yield decode_text(words[0]).lower(), words[1].strip() if len(words) > 1 else b""


def _add_value(material: MtlMaterial, word: str, text: str) -> None:
    tokens = text.split()
    if word == "d" and tokens and tokens[0].lower() == "-halo":
        tokens = tokens[1:]
    numbers = tokens[: _WIDTHS[word]]
    if not numbers or not all(_NUMBER.fullmatch(number) for number in numbers):
        material.num_unread += 1
        return
    values = tuple(float(number) for number in numbers)
    if not all(map(math.isfinite, values)):
        material.num_unread += 1
        return
    if len(values) < _WIDTHS[word]:
        values = values[:1] * _WIDTHS[word]  # one number stands for all channels
    material.values.setdefault(word, values)


def _skip_option(
    tokens: Sequence[str], at: int, options: dict[str, list[float]], *, is_last: bool
) -> int:
    """The place behind an option and its arguments; `at` itself when none is there.

    Args:
        tokens: of the line.
        at: where the option is expected.
        options: gets its numbers.
        is_last: nothing has to follow; else a name has to.
    """
    least = 0 if is_last else 1
    word = tokens[at].lower() if at < len(tokens) - least else ""
    if word not in _OPTIONS and (is_last or not _UNKNOWN_OPTION.fullmatch(word)):
        return at
    pattern, most = _OPTIONS.get(word, _UNKNOWN_ARGUMENTS)
    numbers = options.setdefault(word, [])
    stop = at + 1
    while stop - at <= most and stop < len(tokens) - least and pattern.fullmatch(tokens[stop]):
        if pattern is _NUMBER:
            numbers.append(float(tokens[stop]))
        stop += 1
    return stop


def _skip_options(tokens: Sequence[str], at: int, options: dict[str, list[float]]) -> int:
    """The place behind options one after the other that no name follows."""
    while (after := _skip_option(tokens, at, options, is_last=True)) > at:
        at = after
    return at


def _find_trailing_options(
    tokens: Sequence[str], first: int, options: dict[str, list[float]]
) -> int:
    """Where the options behind the name begin; the number of tokens when there are none."""
    count = len(tokens)
    is_tail = [False] * count + [True]  # whether only options stand from here on
    for start in range(count - 1, first, -1):
        if tokens[start].startswith("-"):
            is_tail[start] = is_tail[_skip_option(tokens, start, {}, is_last=True)]
    last = is_tail.index(True, first)
    _skip_options(tokens, last, options)
    return last


def _get_pair(options: Mapping[str, list[float]], word: str, default: float) -> tuple[float, float]:
    u, v = (*options.get(word, []), default, default)[:2]
    return (u, v) if math.isfinite(u) and math.isfinite(v) else (default, default)
