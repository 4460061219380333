"""`segvigen report` and `gold`: quality of the reviews, and labels that are known to be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import console
from flows.cli.assets import MAX_NAMED
from flows.cli.options import Config, Home, enter_stack
from infra.local import DEFAULT_HOME
from segvigen_model.command import terminal
from segvigen_model.command.options import AsJson, handle_errors
from segvigen_model.errors import SegvigenError
from tasks.settings import load_settings
from tasks.workspace import open_catalogue

if TYPE_CHECKING:
    from tasks.catalogue import Catalogue, LabelSetRow

app = typer.Typer()


class NoSuchLabels(SegvigenError):
    """An asset that cannot be marked as gold."""


@app.command()
def report(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    tables: Annotated[
        Path | None, typer.Option(file_okay=False, help="Also write Parquet tables here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Reviewers (time, clicks, agreement), the queue, audits, double annotation, gold tasks."""
    from tasks.quality.statistics import build_quality_state, write_tables
    from tasks.workspace import Workspace

    with handle_errors():
        enter_stack(home, config, needs_store=False)
        workspace = Workspace.from_settings(load_settings())
        state = build_quality_state(workspace)
        written = [] if tables is None else write_tables(workspace.catalogue, tables)
    if as_json:
        terminal.out.print_json(json.dumps(state))
    else:
        console.show_quality(state)
    for file in written:
        terminal.err.print(terminal.sanitize_text(str(file)), soft_wrap=True)


@app.command()
def gold(
    asset: Annotated[str, typer.Argument(help="Beginning of an asset's id.")],
    home: Home = DEFAULT_HOME,
    config: Config = None,
) -> None:
    """Mark an asset's accepted labels as right: reviewers are measured by them."""
    with handle_errors():
        enter_stack(home, config, needs_store=False)
        row = mark_gold(open_catalogue(load_settings()), asset)
    terminal.out.print(f"{row.asset_id[:12]}: label set {row.label_id} is known to be right")


def mark_gold(catalogue: Catalogue, asset: str) -> LabelSetRow:
    """Mark an asset's label set as known to be right.

    Args:
        catalogue: gets the mark.
        asset: the beginning of its id.

    Raises:
        NoSuchLabels: no asset, several, or one without labels.
    """
    found = catalogue.overview.find_by_prefix(asset, MAX_NAMED + 1)
    if len(found) != 1:
        number = f"more than {MAX_NAMED}" if len(found) > MAX_NAMED else len(found)
        raise NoSuchLabels(f"{number} assets begin with {asset[:64]!r}; give more of the id")
    if catalogue.quality.get_copy(found[0].asset_id) is not None:
        raise NoSuchLabels(f"{asset[:64]!r} is a copy for quality control; choose another asset")
    row = catalogue.labels.get_latest(found[0].asset_id)
    if row is None:
        raise NoSuchLabels(f"{asset[:64]!r} has no accepted labels; label it first")
    catalogue.quality.add_gold(row)
    return row
