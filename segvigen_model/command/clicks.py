"""Clicks of `segvigen segment`: points on the command line, or a JSON file.

Points alone select one part. Clicks that name a part or a kind correct the proposal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from trimesh.triangles import closest_point

from segvigen_model.errors import SegvigenError
from segvigen_model.types import AssetMesh, Click, ClickKind

MAX_GAP = 0.02  # of the longest side, between a point and the surface
CLICK_FORMS = (
    'Points "x,y,z;x,y,z", or a JSON file: a list of objects with xyz, and part or kind, group, '
    "is_positive where needed."
)


class BadClicks(SegvigenError):
    """Clicks that cannot be read, or do not fit the mesh or the proposal."""


@dataclass(frozen=True, slots=True)
class PointClick:
    """A click that is not on a face yet; fields as in `Click`.

    Attributes:
        xyz: mesh frame.
        kind: None where neither kind nor part is given: a point of the part to find.
        part: -1 = none.
    """

    xyz: tuple[float, float, float]
    kind: ClickKind | None = None
    part: int = -1
    group: int = 0
    is_positive: bool = True


def parse_clicks(text: str) -> list[PointClick]:
    """Read clicks from points, or from the JSON file of that name.

    Raises:
        BadClicks: what is wrong, and with which click.
    """
    if text.strip().lower().endswith(".json"):
        return _read_file(Path(text.strip()))
    return [
        PointClick(_point([*point.split(",")], number))
        for number, point in enumerate(text.strip().strip(";").split(";"), 1)
    ]


def are_corrections(clicks: Sequence[PointClick]) -> bool:
    """Return whether clicks correct a proposal, or select one part.

    Raises:
        BadClicks: some do and some do not, or none shows the part.
    """
    kinds = {click.kind is not None for click in clicks}
    if len(kinds) > 1:
        raise BadClicks("some clicks name a part or a kind and some do not; name it in all or none")
    if kinds == {False} and not any(click.is_positive for click in clicks):
        raise BadClicks("every click is negative; give at least one point in the part")
    return kinds == {True}


def place_clicks(
    clicks: Sequence[PointClick], mesh: AssetMesh, num_parts: int | None = None
) -> list[Click]:
    """Put clicks on the nearest faces.

    Args:
        clicks: as read.
        mesh: the asset.
        num_parts: of the proposal that they correct.

    Raises:
        BadClicks: a point is not on the surface, a part is not in the proposal, or two clicks of
            one part contradict each other.
    """
    located = [_place(click, number, mesh) for number, click in enumerate(clicks, 1)]
    shown = {click.face: click.is_positive for click in located}
    for number, click in enumerate(located, 1):
        if num_parts is not None and click.part >= num_parts:
            raise BadClicks(
                f"click {number} names part {click.part}; the proposal has 0 to {num_parts - 1}"
            )
        if num_parts is None and shown[click.face] != click.is_positive:
            raise BadClicks(f"click {number} and another one contradict each other on one face")
    return located


def _place(click: PointClick, number: int, mesh: AssetMesh) -> Click:
    points = np.broadcast_to(np.asarray(click.xyz), (mesh.num_faces, 3))
    nearest = np.asarray(closest_point(mesh.triangles, points))  # type: ignore[no-untyped-call]
    gaps = np.nan_to_num(np.linalg.norm(nearest - points, axis=1), nan=np.inf)
    face = int(gaps.argmin())
    limit = MAX_GAP * float(np.ptp(mesh.used_vertices, axis=0).max())
    if gaps[face] > limit:
        raise BadClicks(
            f"click {number} at {click.xyz} is {gaps[face]:.3g} away from the surface, more than "
            f"{limit:.3g}; give a point on it, in the coordinates of the file"
        )
    kind = click.kind or ClickKind.BELONGS
    return Click(face, nearest[face], kind, click.part, click.group, click.is_positive)


def _read_file(file: Path) -> list[PointClick]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise BadClicks(f"cannot read {file}: {err}") from err
    if not isinstance(entries, list) or not entries:
        raise BadClicks(f"{file} is no list of clicks. {CLICK_FORMS}")
    return [_parse_entry(entry, number) for number, entry in enumerate(entries, 1)]


def _parse_entry(entry: Any, number: int) -> PointClick:
    types = {"xyz": list, "kind": str, "part": int, "group": int, "is_positive": bool}
    if not isinstance(entry, dict) or "xyz" not in entry:
        raise BadClicks(f"click {number} has no xyz. {CLICK_FORMS}")
    for name, value in entry.items():
        if name not in types:
            raise BadClicks(f"click {number} has unknown {name!r}; known: {', '.join(types)}")
        if type(value) is not types[name]:
            raise BadClicks(f"click {number}: {name} is {value!r}, not {types[name].__name__}")
    kind = entry.get("kind", ClickKind.BELONGS if "part" in entry else None)
    if kind is not None and kind not in tuple(ClickKind):
        raise BadClicks(f"click {number}: kind {kind!r} is none of {', '.join(ClickKind)}")
    if kind == ClickKind.BELONGS and entry.get("part", -1) < 0:
        raise BadClicks(f"click {number} belongs to a part; give its number as part, from 0")
    return PointClick(
        xyz=_point(entry["xyz"], number),
        kind=None if kind is None else ClickKind(kind),
        part=entry.get("part", -1) if kind == ClickKind.BELONGS else -1,
        group=entry.get("group", 0),
        is_positive=entry.get("is_positive", True),
    )


def _point(values: Sequence[Any], number: int) -> tuple[float, float, float]:
    try:
        x, y, z = map(float, values)
    except (TypeError, ValueError) as err:
        raise BadClicks(f"click {number} is {values!r}, not x, y, z. {CLICK_FORMS}") from err
    if not np.isfinite((x, y, z)).all():
        raise BadClicks(f"click {number} is {values!r}; a point is finite")
    return x, y, z
