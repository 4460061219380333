"""What commands share: exit codes, errors told in one line, checked option values, `.env`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from dotenv import dotenv_values

from flows import console
from infra.local import LocalStack
from infra.processes import StackError
from segvigen_model.errors import MissingExtra, SegvigenError
from tasks.settings import SettingsError

OK, WENT_WRONG, USAGE, NOT_READY = range(4)
DOTENV = Path(".env")

Home = Annotated[
    Path, typer.Option(envvar="SEGVIGEN_HOME", help="Folder of the local stack and its data.")
]
Config = Annotated[str | None, typer.Option(help="Settings file (TOML).")]


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


def enter_stack(home: Path, config: str | None = None, *, needs_store: bool = True) -> LocalStack:
    """Make this process use the stack of `home`, as far as it runs and the caller says nothing."""
    stack = LocalStack(home)
    if config is not None:
        os.environ["SEGVIGEN_CONFIG"] = config
    if stack.home.is_dir():
        with errors_told():
            os.environ.update(stack.environment())
    if needs_store and stack.has_store and "SEGVIGEN_STORE_ROOT_URL" not in os.environ:
        # Any other store would not hold what this catalogue speaks of.
        console.complain("not ready", StackError(f"the stack of {home} is down; run `segvigen up`"))
        raise typer.Exit(NOT_READY)
    return stack


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
