"""What subcommands share: exit codes, errors on one line, checked option values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from segvigen_model.command import terminal
from segvigen_model.errors import NotReady, SegvigenError

OK, WENT_WRONG, USAGE, NOT_READY = range(4)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@contextmanager
def handle_errors() -> Iterator[None]:
    """Turn our own errors into one line and an exit code; bugs keep their traceback."""
    try:
        yield
    except NotReady as err:
        terminal.print_error("not ready", err)
        raise typer.Exit(NOT_READY) from err
    except SegvigenError as err:
        terminal.print_error("error", err)
        raise typer.Exit(getattr(err, "exit_code", WENT_WRONG)) from err


def check_choice(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return a value that is allowed; another one is wrong usage."""
    if value not in allowed:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(allowed)}", param_hint=option)
    return value


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Parse positive numbers of a list such as 1,3,5; each once, in order."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 1,3,5", param_hint=option)
    return tuple(sorted({int(part) for part in parts}))


def check_output(option: str, file: Path | None, *suffixes: str) -> None:
    """Refuse a file that could not be written, before anything is computed."""
    if file is None or file == Path("-"):
        return
    if not file.parent.is_dir():
        raise typer.BadParameter(f"{file.parent} is no folder", param_hint=option)
    if file.suffix.lower() not in suffixes:
        wanted = " or ".join(suffixes)
        raise typer.BadParameter(f"{file.name!r} does not end in {wanted}", param_hint=option)
