"""What commands share: exit codes, errors told in one line, checked option values, `.env`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from dotenv import dotenv_values

from flows import console
from infra.processes import StackError
from segvigen_model.errors import MissingExtra, SegvigenError
from tasks.settings import SettingsError

OK, WENT_WRONG, USAGE, NOT_READY = range(4)
DOTENV = Path(".env")


def load_dotenv() -> None:
    """Set what the working folder's `.env` says and the environment does not.

    Raises:
        SettingsError: the file cannot be read.
    """
    try:
        said = dotenv_values(DOTENV, interpolate=False) if DOTENV.is_file() else {}
    except (OSError, UnicodeDecodeError) as err:
        raise SettingsError(f"cannot read {DOTENV.resolve()}: {err}") from err
    for name, text in said.items():
        if text:  # a line that nobody filled in says nothing
            os.environ.setdefault(name, text)


@contextmanager
def errors_told() -> Iterator[None]:
    """Turn our own errors into one line and an exit code; bugs keep their traceback."""
    try:
        yield
    except (StackError, MissingExtra) as err:
        console.complain("not ready", err)
        raise typer.Exit(NOT_READY) from err
    except SegvigenError as err:
        console.complain("error", err)
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
