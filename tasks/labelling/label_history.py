"""The stored history of a label set: who said what of which round, and what it was made from.

It is the provenance of a label set and part of what its id is hashed from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from segvigen_model.types import Proposal
from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    Catalogue,
    ClickRow,
    EditCommandRow,
    ProposalRow,
)
from tasks.labelling.rounds import is_command_usable

LABEL_SCHEMA = "segvigen-labels/2"  # /1 had no levels and no categories; it is still read
GATE = "gate"  # decided_by of label sets that no person reviewed


@dataclass(frozen=True, slots=True)
class InterpretedAnnotation:
    """An interpreted annotation that the catalogue does not have yet.

    Attributes:
        row: with verdict, note and problem.
        clicks, commands: of this answer.
    """

    row: AnnotationRow
    clicks: tuple[ClickRow, ...] = ()
    commands: tuple[EditCommandRow, ...] = ()


@dataclass(frozen=True, slots=True)
class ReviewLog:
    """All reviews of one asset."""

    annotations: list[AnnotationRow]
    clicks: list[ClickRow]
    commands: list[EditCommandRow] = field(default_factory=list)


def collect_log(
    catalogue: Catalogue, asset_id: str, interpreted: InterpretedAnnotation | None
) -> ReviewLog:
    """The log of an asset, as it will be once `interpreted` is stored."""
    annotations = catalogue.reviews.list_annotations(asset_id)
    clicks, commands = (
        catalogue.reviews.list_clicks(asset_id),
        catalogue.reviews.list_edit_commands(asset_id),
    )
    if interpreted is None:
        return ReviewLog(annotations, clicks, commands)
    new = interpreted.row
    is_new = [each.unique_id == new.unique_id and not each.is_late for each in annotations]
    annotations = [
        new if replaced else each for replaced, each in zip(is_new, annotations, strict=True)
    ]
    place = {_version(each): number for number, each in enumerate(annotations)}
    clicks = [each for each in clicks if each.unique_id != new.unique_id] + list(interpreted.clicks)
    commands = [each for each in commands if each.unique_id != new.unique_id] + list(
        interpreted.commands
    )
    return ReviewLog(
        annotations,
        sorted(clicks, key=lambda each: (place[_version(each)], each.number)),
        sorted(commands, key=lambda each: (place[_version(each)], each.number)),
    )


def select_accepting_commands(
    log_rows: ReviewLog, round_: int, num_parts: int
) -> list[EditCommandRow]:
    """Usable commands of the annotations that accept a round, without splits."""
    accepting = {_version(each) for each in log_rows.annotations if each.verdict == "accept"}
    return [
        command
        for command in log_rows.commands
        if _version(command) in accepting
        and command.round == round_
        and command.kind != "split"
        and is_command_usable(command, num_parts)
    ]


def list_accepting_commands(
    catalogue: Catalogue, asset: AssetRow, num_parts: int
) -> list[EditCommandRow]:
    """Merges, names and categories that came with the acceptance of the present round."""
    return select_accepting_commands(
        collect_log(catalogue, asset.asset_id, None), asset.round, num_parts
    )


def build_history(
    asset: AssetRow,
    source: ProposalRow,
    proposal: Proposal,
    log_rows: ReviewLog,
    decided_by: str,
) -> dict[str, Any]:
    """The history of a label set; JSON-able.

    Args:
        asset: in the round that is accepted.
        source: the proposal of that round.
        proposal: the partition that is accepted, after exact edits.
        log_rows: all reviews of the asset.
        decided_by: the reviewer's name, or GATE.
    """
    return {
        "schema": LABEL_SCHEMA,
        "asset_id": asset.asset_id,
        "asset_name": asset.name,
        "licence": asset.licence,
        "num_faces": asset.num_faces,
        "num_parts": proposal.num_parts,
        "proposal": {"key": source.key, "sha256": source.sha256, "round": source.round},
        "proposal_provenance": dict(proposal.provenance),
        "confidence": source.confidence,
        "checkpoint": source.checkpoint,
        "decided_by": decided_by,
        "num_rounds": 0 if decided_by == GATE else asset.round + 1,
        "seconds": sum(annotation.lead_time_s for annotation in log_rows.annotations),
        "reviews": [_describe_review(annotation) for annotation in log_rows.annotations],
        "clicks": [_describe_click(click, log_rows.annotations) for click in log_rows.clicks],
        "verbs": [  # this key stays: ids of label sets are hashed from it
            _describe_command(command, log_rows.annotations) for command in log_rows.commands
        ],
    }


def _describe_review(annotation: AnnotationRow) -> dict[str, Any]:
    return {
        "round": annotation.round,
        "reviewer": annotation.reviewer,
        "verdict": annotation.verdict,
        "note": annotation.note,
        "seconds": annotation.lead_time_s,
        "updated_at": annotation.updated_at,
        "label_studio": _describe_place(annotation),
        **({"is_late": True} if annotation.is_late else {}),
    }


def _version(row: AnnotationRow | ClickRow | EditCommandRow) -> tuple[str, str]:
    """The version of an annotation that a row is, or belongs to."""
    return row.unique_id, row.updated_at


def _describe_click(click: ClickRow, annotations: list[AnnotationRow]) -> dict[str, Any]:
    annotation = next(a for a in annotations if _version(a) == _version(click))
    return {
        "round": click.round,
        "reviewer": annotation.reviewer,
        "at": annotation.updated_at,
        "source": click.source,
        "view": click.view,
        "pixel": [click.pixel_x, click.pixel_y],
        "label": click.label,
        "kind": click.kind,
        "part": click.part,
        "group": click.group,
        "is_positive": click.is_positive,
        "face": click.face,
        "xyz": [click.x, click.y, click.z],
        "label_studio": {**_describe_place(annotation), "result_id": click.result_id},
    }


def _describe_command(command: EditCommandRow, annotations: list[AnnotationRow]) -> dict[str, Any]:
    annotation = next(a for a in annotations if _version(a) == _version(command))
    return {
        "round": command.round,
        "reviewer": annotation.reviewer,
        "at": annotation.updated_at,
        "kind": command.kind,
        "parts": list(command.parts),
        "text": command.text,
        "count": command.count,
        "label_studio": {**_describe_place(annotation), "result_id": command.result_id},
    }


def _describe_place(annotation: AnnotationRow) -> dict[str, Any]:
    return {
        "annotation_id": annotation.annotation_id,
        "task_id": annotation.task_id,
        "unique_id": annotation.unique_id,
    }
