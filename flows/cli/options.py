"""What the pipeline's subcommands share: options, `.env`, the stack in use, running a flow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from dotenv import dotenv_values

from flows import console
from infra.local import LocalStack
from infra.processes import StackError
from segvigen_model.command import terminal
from segvigen_model.command.options import NOT_READY, handle_errors
from tasks.outages import wait_for
from tasks.settings import CONFIG_VARIABLE, SettingsError, load_settings
from tasks.storage.buckets import check_buckets

DOTENV = Path(".env")
PREFECT_TIMEOUT_S = 10.0

Home = Annotated[
    Path, typer.Option(envvar="SEGVIGEN_HOME", help="Folder of the local stack and its data.")
]
Config = Annotated[str | None, typer.Option(help="Settings file (TOML).")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many assets.")]


def load_dotenv() -> None:
    """Set the variables of the working folder's `.env` that the environment does not set.

    Raises:
        SettingsError: the file cannot be read.
    """
    try:
        variables = dotenv_values(DOTENV, interpolate=False) if DOTENV.is_file() else {}
    except (OSError, UnicodeDecodeError) as err:
        raise SettingsError(f"cannot read {DOTENV.resolve()}: {err}") from err
    for name, text in variables.items():
        if text:  # a line without a value sets nothing
            os.environ.setdefault(name, text)


def enter_stack(home: Path, config: str | None = None, *, needs_store: bool = True) -> LocalStack:
    """Make this process use the stack of `home`, as far as it runs; own settings come first."""
    stack = LocalStack(home)
    if config is not None:
        os.environ[CONFIG_VARIABLE] = config
    if stack.home.is_dir():
        with handle_errors():
            os.environ.update(stack.make_environment())
    if needs_store and stack.has_store and "SEGVIGEN_STORE_ROOT_URL" not in os.environ:
        # Any other store would not hold what this catalogue refers to.
        error = StackError(f"the stack of {home} is down; run `segvigen up`")
        terminal.print_error("not ready", error)
        raise typer.Exit(NOT_READY)
    return stack


def run_flow(flow: Callable[..., dict[str, Any]], as_json: bool, **parameters: Any) -> None:
    """Run a flow in this process and print its report; waits for services that are down."""
    with handle_errors(), console.show_progress():
        settings = load_settings()
        wait_s = settings.work.outage_wait_s
        # Inside the flow Prefect would log a traceback.
        wait_for("the store", lambda: check_buckets(settings.store), wait_s)
        wait_for("Prefect", _ask_prefect, wait_s)
        report = flow(**parameters)
    if as_json:
        terminal.out.print_json(json.dumps(report))
    else:
        console.show_report(report)


def _ask_prefect() -> None:
    """Raise httpx.TransportError while the Prefect server in use does not answer."""
    url = os.environ.get("PREFECT_API_URL")
    if url:  # else Prefect starts a server of its own
        httpx.get(f"{url.rstrip('/')}/health", timeout=PREFECT_TIMEOUT_S, trust_env=False)
