"""Edit commands: one line each, typed by hand or written by the 3D viewer.

`merge A B [C ...]` (all become A) · `split A [into N]` · `name A words` · `category A id`, where A,
B are part numbers as shown. Case, commas, colons, `part`, `#` and `+` are tolerated. A line that
is unknown or impossible is reported as a problem, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tasks.labelling.taxonomy import MAX_NAME_CHARS, Taxonomy

MAX_COMMANDS = 200
MAX_LINE_CHARS = 400
MAX_PIECES = 32
_QUOTED_CHARS = 60
_WORD = re.compile(r"\s*([A-Za-z]+)\b(.*)", re.DOTALL)
_PART = re.compile(r"[\s,;:+=&#]*(?:parts?[\s#]*)?([0-9]{1,6})(?![0-9A-Za-z])[\s,:;=]*", re.I)
_AND = re.compile(r"and\b", re.I)
_GRAMMAR = "write merge A B, split A, split A into N, name A words, or category A id"


class EditCommandKind(StrEnum):
    """What a line requests."""

    MERGE = "merge"
    SPLIT = "split"
    NAME = "name"
    CATEGORY = "category"


@dataclass(frozen=True, slots=True)
class EditCommand:
    """One understood line.

    Attributes:
        kind: what is requested.
        parts: part ids as shown; MERGE: two or more, the first is what all become; else one.
        text: NAME: the words; CATEGORY: the taxonomy's id; else "".
        count: SPLIT: wanted number of pieces, or None when the model shall decide.
        number: position among all lines of the annotation, from 0.
        result_id: the result that held the line.
    """

    kind: EditCommandKind
    parts: tuple[int, ...]
    text: str = ""
    count: int | None = None
    number: int = 0
    result_id: str = ""

    @property
    def line(self) -> str:
        """The command in its plain form; parsing it gives the same command."""
        parts = " ".join(str(part) for part in self.parts)
        tail = f" into {self.count}" if self.count else f" {self.text}" if self.text else ""
        return f"{self.kind} {parts}{tail}"


def parse_commands(
    lines: Sequence[str],
    num_parts: int,
    taxonomy: Taxonomy | None = None,
    result_ids: Sequence[str] = (),
) -> tuple[tuple[EditCommand, ...], tuple[str, ...]]:
    """Understand command lines, in the order given.

    Args:
        lines: what reviewer or viewer wrote; an entry may hold several lines.
        num_parts: parts 0..num_parts-1 were shown.
        taxonomy: categories that exist, or None.
        result_ids: the result that held each entry of `lines`, if known.

    Returns:
        Commands that can be carried out, and problems for people. Empty lines are neither.
    """
    commands: list[EditCommand] = []
    problems: list[str] = []
    number = 0
    for index, entry in enumerate(lines):
        result_id = result_ids[index] if index < len(result_ids) else ""
        for line in filter(str.strip, entry.splitlines()):
            if number >= MAX_COMMANDS:
                return tuple(commands), (
                    *problems,
                    f"verbs after the {MAX_COMMANDS}th cut; send fewer",
                )
            found = _parse_line(line, num_parts, taxonomy)
            if isinstance(found, EditCommand):
                made = EditCommand(
                    found.kind, found.parts, found.text, found.count, number, result_id
                )
                found = _find_conflict(made, commands) or made
            if isinstance(found, EditCommand):
                commands.append(found)
            else:
                problems.append(f"verb {line.strip()[:_QUOTED_CHARS]!r} dropped: {found}")
            number += 1
    return tuple(commands), tuple(problems)


def _parse_line(line: str, num_parts: int, taxonomy: Taxonomy | None) -> EditCommand | str:
    """The command of one line, or the reason why it is none."""
    if len(line) > MAX_LINE_CHARS:
        return f"{len(line)} characters > {MAX_LINE_CHARS}; write less"
    match = _WORD.fullmatch(line)
    word = match[1].lower() if match else ""
    if match is None or word not in set(EditCommandKind):
        return f"{line.split()[0][:20]!r} is no verb; {_GRAMMAR}"
    kind, rest = EditCommandKind(word), match[2]
    if kind is EditCommandKind.MERGE:
        return _parse_merge(rest, num_parts)
    found = _PART.match(rest)
    if found is None:
        return f"no part number after {word}; {_GRAMMAR}"
    part, tail = int(found[1]), " ".join(rest[found.end() :].split())
    if part >= num_parts:
        return _explain_absent_part(part, num_parts)
    if kind is EditCommandKind.SPLIT:
        return _parse_split(part, tail)
    return (
        _parse_name(part, tail)
        if kind is EditCommandKind.NAME
        else _parse_category(part, tail, taxonomy)
    )


def _parse_merge(rest: str, num_parts: int) -> EditCommand | str:
    parts, end = [], 0
    while found := _PART.match(rest, end):
        parts.append(int(found[1]))
        end = found.end()
        merged_parts = _AND.match(rest, end)
        end = merged_parts.end() if merged_parts else end
    if rest[end:].strip(" ,.;+"):
        return f"{rest[end:].strip()[:20]!r} is no part number; {_GRAMMAR}"
    absent = [part for part in parts if part >= num_parts]
    if absent:
        return _explain_absent_part(absent[0], num_parts)
    unique = tuple(dict.fromkeys(parts))
    if len(unique) < 2:
        return f"it names {len(unique)} different part(s); merge needs two or more"
    return EditCommand(EditCommandKind.MERGE, unique)


def _parse_split(part: int, tail: str) -> EditCommand | str:
    if not tail:
        return EditCommand(EditCommandKind.SPLIT, (part,))
    found = re.fullmatch(r"(?:in|into)\s+([0-9]{1,6})(?:\s+(?:parts?|pieces?))?[.]?", tail, re.I)
    if found is None:
        return f"{tail[:20]!r} after the part is not understood; {_GRAMMAR}"
    count = int(found[1])
    if not 2 <= count <= MAX_PIECES:
        return f"{count} pieces are not possible; ask for 2 to {MAX_PIECES}"
    return EditCommand(EditCommandKind.SPLIT, (part,), count=count)


def _parse_name(part: int, tail: str) -> EditCommand | str:
    if not tail or not tail.isprintable():
        return f"no readable name for part {part}; {_GRAMMAR}"
    if len(tail) > MAX_NAME_CHARS:
        return f"the name has {len(tail)} characters > {MAX_NAME_CHARS}; shorten it"
    return EditCommand(EditCommandKind.NAME, (part,), tail)


def _parse_category(part: int, tail: str, taxonomy: Taxonomy | None) -> EditCommand | str:
    if taxonomy is None:
        return "there is no taxonomy; set SEGVIGEN_REVIEW_TAXONOMY, or use name"
    category = taxonomy.find(tail)
    if category is None:
        return f"category {tail[:40]!r} is not in the taxonomy; choose one of its ids"
    return EditCommand(EditCommandKind.CATEGORY, (part,), category.id)


def _find_conflict(command: EditCommand, earlier: Sequence[EditCommand]) -> str | None:
    """Why a command conflicts with those before it, or None."""
    same = [each for each in earlier if each.kind is command.kind and each.parts == command.parts]
    if command.kind is EditCommandKind.SPLIT and same:
        return f"part {command.parts[0]} is split twice; say it once"
    return None


def _explain_absent_part(part: int, num_parts: int) -> str:
    return f"part {part} was not shown; choose 0 to {num_parts - 1}"
