"""What commands share: exit codes, errors told in one line, checked option values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from flows import cli_view as view
from infra.processes import StackError
from segvigen_model.errors import MissingExtra, SegvigenError

OK, WENT_WRONG, USAGE, NOT_READY = range(4)


@contextmanager
def errors_told() -> Iterator[None]:
    """Turn our own errors into one line and an exit code; bugs keep their traceback."""
    try:
        yield
    except (StackError, MissingExtra) as err:
        view.complain("not ready", err)
        raise typer.Exit(NOT_READY) from err
    except SegvigenError as err:
        view.complain("error", err)
        raise typer.Exit(WENT_WRONG) from err


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """Give back a value that is allowed, or say which are."""
    if value not in allowed:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(allowed)}", param_hint=option)
    return value


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Positive numbers of a list such as 1,3,5; each once, in order."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 1,3,5", param_hint=option)
    return tuple(sorted({int(part) for part in parts}))
