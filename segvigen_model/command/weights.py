"""`segvigen weights`: check folders of model weights before a run needs them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from segvigen_model.command import terminal
from segvigen_model.command.options import NOT_READY, OK, AsJson

STYLES = {"ok": "green", "optional": "yellow", "missing": "bold red", "wrong": "bold red"}

app = typer.Typer(no_args_is_help=True, help="Check model weights.")


@app.callback()
def _group() -> None:
    """Keep `check` a subcommand, although it is the only one."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Weights folder.")],
    sha256: Annotated[bool, typer.Option(help="Also hash the files.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what is there, what is missing and which licences apply; loads nothing."""
    from segvigen_model.checkpoints.inventory import check_weights, is_runnable

    rows = check_weights(folder, has_sha256=sha256)
    if as_json:
        terminal.out.print_json(json.dumps([asdict(row) for row in rows], default=str))
    else:
        table = terminal.make_table(
            f"weights in {terminal.sanitize_text(str(folder))}", "what", "state", "found", "terms"
        )
        for row in rows:
            found = row.detail + (f"\nsha256 {row.sha256}" if row.sha256 else "")
            state = f"[{STYLES[row.state]}]{row.state}[/]"
            table.add_row(
                row.name, state, terminal.sanitize_text(found), terminal.sanitize_text(row.licence)
            )
        terminal.out.print(table)
    raise typer.Exit(OK if is_runnable(rows) else NOT_READY)
