"""`segvigen up`, `down`, `deploy`, `demo`: the local stack."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from flows import console
from flows.cli.options import Home, enter_stack
from infra.local import DEFAULT_HOME, LocalStack
from infra.processes import StackError
from segvigen_model.command import terminal
from segvigen_model.command.options import OK, WENT_WRONG, check_choice, handle_errors
from tasks.settings import load_settings
from tasks.storage.buckets import check_buckets

app = typer.Typer()


@app.command()
def up(home: Home = DEFAULT_HOME, workers: bool = True) -> None:
    """Start the local stack: S3, Prefect, Label Studio, refine service, workers."""
    with handle_errors(), terminal.err.status("starting; the first start takes a few minutes"):
        stack = LocalStack(home)
        if stack.has_own_store:
            check_buckets(load_settings().store)
        os.environ.update(stack.start(terminal.err.print))
        if workers:
            _apply_deployments(stack)
            stack.start_workers(terminal.err.print)
    console.show_access(stack)


@app.command()
def down(home: Home = DEFAULT_HOME) -> None:
    """Stop the local stack; all data stays."""
    with handle_errors():
        LocalStack(home).stop(terminal.err.print)


@app.command()
def deploy(home: Home = DEFAULT_HOME, force: bool = False) -> None:
    """Bring pools, deployments and automations to the Prefect server in use."""
    with handle_errors():
        _apply_deployments(enter_stack(home), force)


@app.command()
def demo(
    home: Home = DEFAULT_HOME,
    reviewer: Annotated[str, typer.Option(help="scripted or human.")] = "scripted",
    wait: Annotated[float, typer.Option(help="Seconds to wait for the reviewer.")] = 3600.0,
) -> None:
    """Run the whole loop on the local stack with meshes made in code."""
    check_choice("--reviewer", reviewer, ("scripted", "human"))
    with handle_errors():
        stack = LocalStack(home)
        if stack.has_own_store:
            raise StackError("the demo fills the raw bucket; unset SEGVIGEN_STORE_... for it")
        os.environ.update(stack.start(terminal.err.print))
        _apply_deployments(stack)
        stack.start_workers(terminal.err.print)
        from flows.demo.run import run_demo

        is_complete = run_demo(stack, reviewer, wait)
    raise typer.Exit(OK if is_complete else WENT_WRONG)


def _apply_deployments(stack: LocalStack, is_forced: bool = False) -> None:
    # A process of its own: deployments import the flows, not the other way round.
    argv = [sys.executable, "-m", "deployments.apply", *(["--force"] if is_forced else [])]
    env = {**os.environ, **stack.make_environment()}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"Prefect did not take the deployments:\n{done.stderr[-2000:]}")
    terminal.err.print(done.stderr.strip() or "deployments applied")
