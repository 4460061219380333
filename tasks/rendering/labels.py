"""The labels of one task: parts, new parts and background, with colours and hotkeys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from segvigen_model.types import ClickKind
from tasks.labelling.part_colors import (
    NEW_PART_COLOR,
    NOT_OBJECT_COLOR,
    assign_part_colors,
    format_hex_color,
)

NEW_PART_LABELS = ("new part", "new part 2", "new part 3")


NOT_OBJECT_LABEL = "not an object"


NEW_PART_HOTKEYS = ("n", "m", "j")  # without one the editor would give any free key


# A part's digit is its hotkey; then letters that neither a verdict nor the editor itself uses.
PART_HOTKEYS = "0123456789qwertyopsdgklzc"


NOT_OBJECT_HOTKEY = "b"


@dataclass(frozen=True, slots=True)
class LabelMeaning:
    """What a keypoint label says; fields as in segvigen_model.types.Click."""

    kind: ClickKind
    part: int = -1
    group: int = 0


def format_part_label(part: int) -> str:
    """The label of a part id."""
    return f"part {part}"


def parse_label(label: str, num_parts: int) -> LabelMeaning | None:
    """Understand a label's text; None when it is none of this task's labels."""
    if label == NOT_OBJECT_LABEL:
        return LabelMeaning(ClickKind.NOT_OBJECT)
    if label in NEW_PART_LABELS:
        return LabelMeaning(ClickKind.NEW_PART, group=NEW_PART_LABELS.index(label))
    match = re.fullmatch(r"part (0|[1-9][0-9]{0,5})", label)
    if match is None or int(match[1]) >= num_parts:
        return None
    return LabelMeaning(ClickKind.BELONGS, part=int(match[1]))


def make_task_labels(num_parts: int, slots: Sequence[int] | None = None) -> list[dict[str, str]]:
    """Value of `$parts`: one label per part with colour and hotkey, then the special ones.

    Args:
        num_parts: parts shown.
        slots: place of each part's colour in the sequence; see `part_colors`.
    """
    labels = []
    for part, color in enumerate(assign_part_colors(num_parts, slots)):
        hotkey = PART_HOTKEYS[part] if part < len(PART_HOTKEYS) else ""
        labels.append(_make_label(format_part_label(part), format_hex_color(color), hotkey))
    for name, hotkey in zip(NEW_PART_LABELS, NEW_PART_HOTKEYS, strict=True):
        labels.append(_make_label(name, format_hex_color(NEW_PART_COLOR), hotkey))
    labels.append(
        _make_label(NOT_OBJECT_LABEL, format_hex_color(NOT_OBJECT_COLOR), NOT_OBJECT_HOTKEY)
    )
    return labels


def _make_label(value: str, color: str, hotkey: str) -> dict[str, str]:
    label = {"value": value, "background": color}
    return {**label, "hotkey": hotkey} if hotkey else label
