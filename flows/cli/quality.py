"""What `segvigen report` and `segvigen gold` do: tables of quality control, known labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows import console
from segvigen_model.errors import SegvigenError

if TYPE_CHECKING:
    from tasks.catalogue import Catalogue, LabelSetRow
    from tasks.settings import Settings


class NoSuchLabels(SegvigenError):
    """An asset that cannot be marked as known."""


def read_quality(settings: Settings) -> dict[str, Any]:
    """Everything that `segvigen report` tells, JSON-able."""
    from tasks.quality.statistics import quality_state
    from tasks.workspace import open_catalogue

    return quality_state(open_catalogue(settings), settings.gate, settings.quality)


def show_quality(state: Mapping[str, Any]) -> None:
    """Print `read_quality` for people."""
    from tasks.quality.statistics import COLUMNS, reviewer_cells

    people = console.table("Reviewers", "reviewer", *COLUMNS)
    for row in state["reviewers"]:
        people.add_row(console.plain(row["reviewer"]), *reviewer_cells(row))
    console.out.print(people)
    checks = console.table("Checks", "what", "state")
    for what, told in _sentences(state):
        checks.add_row(what, told)
    console.out.print(checks)


def mark_gold(catalogue: Catalogue, asset: str) -> LabelSetRow:
    """Take an asset's label set as known to be right.

    Args:
        catalogue: gets the mark.
        asset: the beginning of its id.

    Raises:
        NoSuchLabels: no asset, several, or one without labels.
    """
    found = [row for row in catalogue.assets() if row.asset_id.startswith(asset)]
    if len(found) != 1:
        raise NoSuchLabels(f"{len(found)} assets begin with {asset[:64]!r}; give more of the id")
    if catalogue.quality.copy(found[0].asset_id) is not None:
        raise NoSuchLabels(f"{asset[:64]!r} is a copy for quality control; choose another asset")
    row = catalogue.labels.latest(found[0].asset_id)
    if row is None:
        raise NoSuchLabels(f"{asset[:64]!r} has no accepted labels; label it first")
    catalogue.quality.add_gold(row)
    return row


def _sentences(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    queue, audits = state["queue"], state["audits"]
    looks, known = state["second_looks"], state["known_tasks"]
    desk = f"{queue['on_the_desk']} of at most {queue['max_open_tasks']} on the desk"
    misses = f"{audits['misses']} of the last {audits['last']} contradict the gate"
    asked = f"it asks for confidence {audits['required_confidence']:.3g}"
    compared = f"{looks['compared']} of {looks['planned']} compared"
    return [
        ("queue", f"{queue['waiting']} waiting, {desk}"),
        ("reviews", f"{state['reviews']['measured']} measured, {_gain(state)}"),
        ("audits", f"{misses}; {asked}"),
        ("second looks", f"{compared}, {looks['disputed']} disputed{_mean(looks)}"),
        ("known tasks", f"{known['answered']} of {known['planted']} answered{_mean(known)}"),
    ]


def _gain(state: Mapping[str, Any]) -> str:
    gain = state["reviews"]["mean_gain"]
    return "no gain known yet" if gain is None else f"mean gain {gain:.2f} IoU"


def _mean(part: Mapping[str, Any]) -> str:
    return "" if part["mean_iou"] is None else f", mean IoU {part['mean_iou']:.2f}"
