"""One line of the parity table: what was compared, how far off it is, how far off it may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParityRow:
    """The verdict on one golden quantity.

    Attributes:
        name: "<folder>/<quantity>".
        worst: worst absolute (or, where the name says so, relative) error; inf for wrong shapes.
        tolerance: largest error that still counts as equal; 0 means exact.
        ok: whether the quantity passed.
        note: why nothing was compared; such a line neither passes nor fails.
    """

    name: str
    worst: float
    tolerance: float
    ok: bool
    note: str = ""


Rows = list[ParityRow]


def make_row(name: str, worst: float, tolerance: float) -> ParityRow:
    """Make a row that passes when `worst` is within `tolerance`; NaN never passes."""
    return ParityRow(name, float(worst), float(tolerance), bool(worst <= tolerance))


def make_left_out_row(name: str, note: str) -> ParityRow:
    """Make a row for what was not compared."""
    return ParityRow(name, float("nan"), float("nan"), True, note)


def make_broken_row(name: str, err: Exception) -> ParityRow:
    """Make a failed row of an error, so that everything else is still compared."""
    text = str(err) or "no reason given"
    line = f"{name}: {type(err).__name__}: {text}".splitlines()[0]
    return ParityRow(line, float("inf"), 0.0, False)


def compare_each(name: str, parts: Iterable[tuple[str, Callable[[], Iterable[ParityRow]]]]) -> Rows:
    """Compare the parts of a set; one that breaks is a failed row and stops no other.

    Args:
        name: of the set.
        parts: name of each part and what compares it.
    """
    rows: Rows = []
    for part, compare in parts:
        try:
            rows.extend(compare())
        except Exception as err:
            rows.append(make_broken_row(f"{name}/{part}", err))
    return rows
