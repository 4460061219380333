"""One line of the parity table: what was compared, how far off it is, how far off it may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParityRow:
    """The verdict on one golden quantity.

    Attributes:
        name: "<folder>/<quantity>".
        worst: worst absolute (or, where the name says so, relative) error; inf for wrong shapes.
        tolerance: largest error that still counts as equal; 0 means exact.
        ok: whether the quantity passed.
    """

    name: str
    worst: float
    tolerance: float
    ok: bool


def row(name: str, worst: float, tolerance: float) -> ParityRow:
    """Make a row that passes when `worst` is within `tolerance`; NaN never passes."""
    return ParityRow(name, float(worst), float(tolerance), bool(worst <= tolerance))
