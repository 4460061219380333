"""The reviews behind a label set, out of its provenance, as rows of the catalogue again.

Annotations come back as they were interpreted, so a later pull of Label Studio finds them known.
Label Studio's own JSON of them is not in the provenance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.catalogue import AnnotationRow, Catalogue, ClickRow, EditCommandRow


def add_history(catalogue: Catalogue, asset_id: str, provenance: Mapping[str, Any]) -> None:
    """Record annotations, clicks and edit commands; those that are there stay as they are.

    Args:
        catalogue: gets the rows.
        asset_id: whose.
        provenance: of a label set.
    """
    for review in provenance["reviews"]:
        row = _make_annotation(asset_id, review)
        if not catalogue.reviews.record_annotation(row):
            continue
        version = (row.unique_id, row.updated_at)
        clicks = [each for each in provenance["clicks"] if _version(each) == version]
        commands = [each for each in provenance["verbs"] if _version(each) == version]
        catalogue.reviews.interpret(
            *version,
            verdict=row.verdict,
            note=row.note,
            clicks=[_make_click(asset_id, n, click) for n, click in enumerate(clicks)],
            commands=[_make_command(asset_id, n, each) for n, each in enumerate(commands)],
        )


def _make_annotation(asset_id: str, review: Mapping[str, Any]) -> AnnotationRow:
    place = review["label_studio"]
    return AnnotationRow(
        unique_id=str(place["unique_id"]),
        updated_at=str(review["updated_at"]),
        annotation_id=int(place["annotation_id"]),
        task_id=int(place["task_id"]),
        asset_id=asset_id,
        round=int(review["round"]),
        reviewer=str(review["reviewer"]),
        raw={},
        lead_time_s=float(review["seconds"]),
        verdict=review["verdict"],
        note=str(review["note"] or ""),
        is_late=bool(review.get("is_late", False)),
    )


def _version(item: Mapping[str, Any]) -> tuple[str, str]:
    """The version of an annotation that a click or a command belongs to."""
    return str(item["label_studio"]["unique_id"]), str(item["at"])


def _make_click(asset_id: str, number: int, click: Mapping[str, Any]) -> ClickRow:
    unique_id, updated_at = _version(click)
    x, y, z = (float(value) for value in click["xyz"])
    return ClickRow(
        unique_id=unique_id,
        updated_at=updated_at,
        number=number,
        asset_id=asset_id,
        round=int(click["round"]),
        result_id=str(click["label_studio"]["result_id"]),
        source=str(click["source"]),
        pixel_x=float(click["pixel"][0]),
        pixel_y=float(click["pixel"][1]),
        label=str(click["label"]),
        kind=str(click["kind"]),
        part=int(click["part"]),
        face=int(click["face"]),
        x=x,
        y=y,
        z=z,
        view=str(click["view"]),
        group=int(click["group"]),
        is_positive=bool(click["is_positive"]),
    )


def _make_command(asset_id: str, number: int, command: Mapping[str, Any]) -> EditCommandRow:
    unique_id, updated_at = _version(command)
    return EditCommandRow(
        unique_id=unique_id,
        updated_at=updated_at,
        number=number,
        asset_id=asset_id,
        round=int(command["round"]),
        result_id=str(command["label_studio"]["result_id"]),
        kind=str(command["kind"]),
        parts=tuple(int(part) for part in command["parts"]),
        text=str(command["text"]),
        count=command["count"],
    )
