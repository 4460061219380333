"""From a raw annotation to its meaning: verdict, note, commands, and clicks as faces and points.

Everything in an annotation is untrusted: numbers may be missing, huge or not numbers, labels may
belong to another task. What cannot be parsed is dropped and listed in `problems`, never guessed.
The preview is a picture for the reviewer and has no meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segvigen_model.types import FloatArray
from tasks.labelling.edit_commands import EditCommand, parse_commands
from tasks.labelling.taxonomy import Taxonomy
from tasks.rendering.labels import LabelMeaning, parse_label
from tasks.rendering.pixel_buffers import Buffers
from tasks.review.label_config import CLICK, COMMANDS, NOTE, VERDICT

VERDICTS = ("accept", "refine", "reject")
SKIP = "skip"
MAX_NOTE_CHARS = 2000
MAX_PROBLEMS = 20
POINT_TOLERANCE = 0.02  # unit lengths: a point from the viewer this far off its face is a lie


Triangles = Callable[[], FloatArray]


@dataclass(frozen=True, slots=True)
class PointedClick:
    """One click, found on the surface.

    Attributes:
        number: position among the annotation's results.
        result_id: Label Studio's id of the result.
        source: "sheet" or "viewer".
        pixel_x, pixel_y: sheet pixels, top-left origin, as clicked (before snapping).
        view: the tile's name.
        label: as chosen.
        meaning: what the label says.
        is_positive: False for "does not belong".
        face: index into AssetMesh.faces.
        xyz: (3,) float64, mesh frame.
    """

    number: int
    result_id: str
    source: str
    pixel_x: float
    pixel_y: float
    view: str
    label: str
    meaning: LabelMeaning
    is_positive: bool
    face: int
    xyz: FloatArray


@dataclass(frozen=True, slots=True)
class ParsedAnnotation:
    """What a reviewer said.

    Attributes:
        verdict: one of VERDICTS, SKIP, or None when none was given.
        note: free text, cut.
        clicks: usable ones, in the order made.
        problems: what was dropped, for people.
        commands: edits of whole parts, in the order written.
    """

    verdict: str | None
    note: str
    clicks: tuple[PointedClick, ...]
    problems: tuple[str, ...]
    commands: tuple[EditCommand, ...] = ()


def parse_annotation(
    annotation: Mapping[str, Any],
    buffers: Buffers,
    triangles: Triangles,
    *,
    max_clicks: int = 100,
    taxonomy: Taxonomy | None = None,
) -> ParsedAnnotation:
    """Understand one annotation.

    Args:
        annotation: as Label Studio gives it.
        buffers: of the sheet that was shown.
        triangles: gives (F, 3, 3) float64 corners, mesh frame; called only to check points from
            the 3D viewer, because loading a mesh takes long.
        max_clicks: more are dropped and reported.
        taxonomy: categories that parts may have, or None.
    """
    fields = _sort_results(annotation.get("result"))
    clicks, problems = [], list(fields.problems)
    for number, result in fields.clicks:
        found = _parse_click(number, result, buffers, triangles)
        if isinstance(found, str):
            problems.append(f"click {number} dropped: {found}")
        else:
            clicks.append(found)
    commands, unclear = parse_commands(
        [line for line, _ in fields.lines],
        int(buffers.meta["num_parts"]),
        taxonomy,
        [result_id for _, result_id in fields.lines],
    )
    problems += unclear
    if len(clicks) > max_clicks:
        problems.append(f"{len(clicks) - max_clicks} of {len(clicks)} clicks cut")
    verdict = fields.verdict
    if verdict not in VERDICTS:
        problems += [f"unknown verdict {verdict[:20]!r}"] if verdict else []
        verdict = None
    if annotation.get("was_cancelled"):
        verdict = SKIP
    kept = tuple(clicks[:max_clicks])
    note = fields.note[:MAX_NOTE_CHARS]
    return ParsedAnnotation(verdict, note, kept, tuple(problems[:MAX_PROBLEMS]), commands)


@dataclass(slots=True)
class _Fields:
    """An annotation's results by what they are.

    Attributes:
        verdict, note: as chosen and written.
        lines: command lines, each with the id of its result.
        clicks: raw keypoints, each with its place among all results.
        problems: of results that are no objects.
    """

    verdict: str | None = None
    note: str = ""
    lines: list[tuple[str, str]] = field(default_factory=list)
    clicks: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _sort_results(results: Any) -> _Fields:
    fields = _Fields()
    for number, result in enumerate(results if isinstance(results, list) else []):
        value = result.get("value") if isinstance(result, Mapping) else None
        if not isinstance(value, Mapping):
            fields.problems.append(f"result {number} is not an object")
        elif result.get("from_name") == VERDICT:
            fields.verdict = _get_first(value.get("choices"))
        elif result.get("from_name") == NOTE:
            fields.note = _get_first(value.get("text")) or ""
        elif result.get("from_name") == COMMANDS:
            found_id = str(result.get("id", ""))[:64]
            fields.lines += [(line, found_id) for line in _get_texts(value.get("text"))]
        elif result.get("from_name") == CLICK:
            fields.clicks.append((number, result))
    return fields


def _get_texts(values: Any) -> list[str]:
    """The texts of a text area; one text may come without its list."""
    held = values if isinstance(values, list) else [values]
    return [text for text in held if isinstance(text, str)]


def _get_first(values: Any) -> str | None:
    if isinstance(values, list) and values and isinstance(values[0], str):
        return str(values[0])
    return values if isinstance(values, str) else None


def _parse_click(
    number: int, result: Mapping[str, Any], buffers: Buffers, triangles: Triangles
) -> PointedClick | str:
    """A click, or the reason why it is none."""
    value = result["value"]
    label = _get_first(value.get("keypointlabels")) or ""
    meaning = parse_label(label, int(buffers.meta["num_parts"]))
    if meaning is None:
        return f"label {label[:40]!r} is not of this task"
    percent_x, percent_y = _parse_percentage(value.get("x")), _parse_percentage(value.get("y"))
    if percent_x is None or percent_y is None:
        return "its position is not on the sheet"
    width, height = buffers.size
    pixel_x, pixel_y = percent_x / 100 * width, percent_y / 100 * height
    column, row = min(int(pixel_x), width - 1), min(int(pixel_y), height - 1)
    viewer_point = _parse_viewer_point(result, buffers, triangles)
    point = buffers.locate_near(column, row) if viewer_point is None else None
    if isinstance(viewer_point, str):
        return viewer_point
    if viewer_point is not None:
        (face, xyz), view = viewer_point, int(buffers.view[row, column])
    elif point is not None:
        face, xyz, view = point.face, point.xyz, point.view
    else:
        return f"pixel ({column}, {row}) is background"
    return PointedClick(
        number=number,
        result_id=str(result.get("id", ""))[:64],
        source="sheet" if viewer_point is None else "viewer",
        pixel_x=pixel_x,
        pixel_y=pixel_y,
        view=str(buffers.meta["views"][view]) if view >= 0 else "",
        label=label,
        meaning=meaning,
        is_positive=_is_positive(result),
        face=face,
        xyz=xyz,
    )


def _is_positive(result: Mapping[str, Any]) -> bool:
    """The editor forgets its own field of a point that it did not make: then meta tells."""
    meta = result.get("meta")
    text = _get_first(meta.get("text")) if isinstance(meta, Mapping) else None
    try:
        meta_json = json.loads(text) if text is not None and text.startswith("{") else None
    except (ValueError, RecursionError):
        meta_json = None
    return result.get("is_positive") is not False and not (
        isinstance(meta_json, dict) and meta_json.get("is_positive") is False
    )


def _parse_percentage(value: Any) -> float | None:
    """A percentage, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= 100 else None  # False for what is not a number


def _parse_viewer_point(
    result: Mapping[str, Any], buffers: Buffers, triangles: Triangles
) -> tuple[int, FloatArray] | str | None:
    """The exact point that the 3D viewer left in the result: (face, xyz), None, or a refusal."""
    meta = result.get("meta")
    text = _get_first(meta.get("text")) if isinstance(meta, Mapping) else None
    if text is None or not text.startswith("{"):
        return None  # a reviewer may write a remark there
    try:
        point = json.loads(text)
        face, xyz = point["face"], np.array(point["xyz"], dtype=np.float64)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "its 3D point cannot be read"
    num_faces = int(buffers.meta["num_faces"])
    if isinstance(face, bool) or not isinstance(face, int) or not 0 <= face < num_faces:
        return f"face {str(face)[:20]} does not exist"
    if xyz.shape != (3,) or not np.isfinite(xyz).all():
        return "its 3D point is not a point"
    corners = triangles()[face]
    low, high = corners.min(axis=0), corners.max(axis=0)
    gap = np.maximum(np.maximum(low - xyz, xyz - high), 0)
    if float(np.linalg.norm(gap)) * buffers.frame.scale > POINT_TOLERANCE:
        return f"its 3D point is not on face {face}"
    return face, xyz
