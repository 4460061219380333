"""Rows of the catalogue for the clicks and edit commands of an answer."""

from __future__ import annotations

from tasks.catalogue import AnnotationRow, ClickRow, EditCommandRow
from tasks.labelling.edit_commands import EditCommand
from tasks.review.annotations import PointedClick


def make_click_row(row: AnnotationRow, click: PointedClick) -> ClickRow:
    """The row of a click of an answer."""
    return ClickRow(
        unique_id=row.unique_id,
        updated_at=row.updated_at,
        number=click.number,
        asset_id=row.asset_id,
        round=row.round,
        result_id=click.result_id,
        source=click.source,
        pixel_x=click.pixel_x,
        pixel_y=click.pixel_y,
        label=click.label,
        kind=str(click.meaning.kind),
        part=click.meaning.part,
        face=click.face,
        x=float(click.xyz[0]),
        y=float(click.xyz[1]),
        z=float(click.xyz[2]),
        view=click.view,
        group=click.meaning.group,
        is_positive=click.is_positive,
    )


def make_command_row(row: AnnotationRow, command: EditCommand) -> EditCommandRow:
    """The row of an edit command of an answer."""
    return EditCommandRow(
        unique_id=row.unique_id,
        updated_at=row.updated_at,
        number=command.number,
        asset_id=row.asset_id,
        round=row.round,
        result_id=command.result_id,
        kind=str(command.kind),
        parts=command.parts,
        text=command.text,
        count=command.count,
    )
