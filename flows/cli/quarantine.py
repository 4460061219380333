"""`segvigen quarantine`: messages of Label Studio that could not be read."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from flows import console
from flows.cli.options import Config, Home, enter_stack
from infra.local import DEFAULT_HOME
from segvigen_model.command import terminal
from segvigen_model.command.options import AsJson, handle_errors
from tasks.catalogue import Catalogue, QuarantineRow
from tasks.settings import load_settings
from tasks.workspace import open_catalogue

app = typer.Typer(
    no_args_is_help=True, help="Tasks and answers of Label Studio that could not be read."
)

Message = Annotated[str, typer.Argument(help="Id of the message, or its beginning.")]


def _open(home: Any, config: str | None) -> Catalogue:
    enter_stack(home, config, needs_store=False)
    return open_catalogue(load_settings())


@app.command("list")
def list_messages(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    dropped: Annotated[bool, typer.Option(help="Also those that were given up.")] = False,
    as_json: AsJson = False,
) -> None:
    """What waits, and why it could not be read."""
    with handle_errors():
        rows = _open(home, config).quarantine.list_all(is_dropped=None if dropped else False)
    if as_json:
        terminal.out.print_json(json.dumps([_describe(row) for row in rows]))
    else:
        console.show_quarantine([_describe(row) for row in rows])


@app.command()
def show(message: Message, home: Home = DEFAULT_HOME, config: Config = None) -> None:
    """One message as it came (cut), with its reason; JSON."""
    with handle_errors():
        row = _open(home, config).quarantine.get(message)
    terminal.out.print_json(json.dumps(asdict(row)))


@app.command()
def retry(message: Message, home: Home = DEFAULT_HOME, config: Config = None) -> None:
    """Have the next pull read a message again, e.g. after an update or a restore."""
    with handle_errors():
        row = _open(home, config).quarantine.request_retry(message)
    terminal.out.print(f"{row.message_id}: read again by the next `segvigen review`")


@app.command()
def drop(message: Message, home: Home = DEFAULT_HOME, config: Config = None) -> None:
    """Give a message up; an edited version of it would come back."""
    with handle_errors():
        row = _open(home, config).quarantine.drop(message)
    terminal.out.print(f"{row.message_id}: given up")


def _describe(row: QuarantineRow) -> dict[str, Any]:
    """A message without its raw text."""
    return {name: value for name, value in asdict(row).items() if name not in ("raw", "digest")}
