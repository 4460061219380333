"""The `segvigen` command: start the stack, run the flows, look at the state.

Exit codes: 0 done; 1 it went wrong; 2 wrong usage; 3 something is missing on this machine or the
stack does not run. Prefect is imported only by commands that run flows, after its settings are set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import console
from flows.cli import db as cli_db
from flows.cli import evaluate as cli_evaluate
from flows.cli import finetune as cli_finetune
from flows.cli import quality as cli_quality
from flows.cli import show as cli_show
from flows.cli import weights as cli_weights
from flows.cli.options import (
    NOT_READY,
    OK,
    USAGE,
    WENT_WRONG,
    Config,
    Home,
    enter_stack,
    errors_told,
    load_dotenv,
    one_of,
)
from infra.local import DEFAULT_HOME, LocalStack
from infra.processes import StackError
from tasks.settings import load_settings
from tasks.storage.store import check_buckets

if TYPE_CHECKING:
    from tasks.catalogue import Catalogue

__all__ = ["NOT_READY", "OK", "USAGE", "WENT_WRONG", "app", "main"]

app = typer.Typer(
    name="segvigen",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Raw 3D meshes in, reviewed part labels and fine-tuning shards out.\n\n"
    "Exit codes: 0 done, 1 it went wrong, 2 wrong usage, 3 something is missing or not running.",
)

app.add_typer(cli_db.app, name="db")
app.add_typer(cli_weights.app, name="weights")

Limit = Annotated[int | None, typer.Option(min=1, help="At most so many assets.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.callback()
def _begin() -> None:
    # Before the options of any command are read: SEGVIGEN_HOME may stand there, too.
    with errors_told():
        load_dotenv()


def _catalogue() -> Catalogue:
    """The catalogue that the settings name."""
    from tasks.workspace import open_catalogue

    return open_catalogue(load_settings())


def _run(flow: Callable[..., dict[str, Any]], as_json: bool, **parameters: Any) -> None:
    """Run a flow here and show its report."""
    with errors_told(), console.progress_bar():
        check_buckets(load_settings().store)  # inside the flow Prefect would log a traceback
        report = flow(**parameters)
    if as_json:
        console.out.print_json(json.dumps(report))
    else:
        console.show_report(report)


@app.command()
def up(home: Home = DEFAULT_HOME, workers: bool = True) -> None:
    """Start the local stack: S3, Prefect, Label Studio, refine service, workers."""
    with errors_told(), console.err.status("starting; a first start takes a few minutes"):
        stack = LocalStack(home)
        if stack.has_own_store:
            check_buckets(load_settings().store)
        os.environ.update(stack.start(console.err.print))
        if workers:
            _deploy(stack)
            stack.start_workers(console.err.print)
    console.show_access(stack)


@app.command()
def down(home: Home = DEFAULT_HOME) -> None:
    """Stop the local stack; all data stays."""
    with errors_told():
        LocalStack(home).stop(console.err.print)


@app.command()
def deploy(home: Home = DEFAULT_HOME, force: bool = False) -> None:
    """Bring pools, deployments and automations to the Prefect server in use."""
    with errors_told():
        _deploy(enter_stack(home), force)


@app.command()
def ingest(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    prefix: Annotated[str, typer.Option(help="Folder of the raw bucket.")] = "",
    limit: Limit = None,
    retry: Annotated[bool, typer.Option(help="Also look again at rejected objects.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check what is new in the raw bucket and register it."""
    enter_stack(home, config)
    from flows.ingest import ingest as flow

    _run(flow, as_json, prefix=prefix, limit=limit, is_retrying=retry)


@app.command()
def label(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    prefix: Annotated[str, typer.Option(help="Folder of the raw bucket.")] = "",
    wait: Annotated[float, typer.Option(help="Seconds to wait for reviewers; 0 = one pass.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Run everything: ingest, encode, propose, review, refine, shards."""
    enter_stack(home, config)
    from flows.label_dataset import label_dataset as flow

    _run(flow, as_json, prefix=prefix, review_wait_s=wait)


@app.command()
def review(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    push: Annotated[bool, typer.Option(help="Send proposals to Label Studio.")] = True,
    pull: Annotated[bool, typer.Option(help="Fetch the reviewers' answers.")] = True,
    as_json: AsJson = False,
) -> None:
    """Fetch answers from Label Studio and send it what waits for review."""
    enter_stack(home, config)
    from flows.pull_review import pull_review
    from flows.push_review import push_review

    if pull:
        _run(pull_review, as_json)
    if push:
        _run(push_review, as_json)


@app.command()
def refine(
    home: Home = DEFAULT_HOME, config: Config = None, limit: Limit = None, as_json: AsJson = False
) -> None:
    """Apply the reviewers' clicks; the result goes back to review with the next push."""
    enter_stack(home, config)
    from flows.model_stages import refine as flow

    _run(flow, as_json, limit=limit)


@app.command()
def shards(home: Home = DEFAULT_HOME, config: Config = None, as_json: AsJson = False) -> None:
    """Write accepted label sets into fine-tuning shards."""
    enter_stack(home, config)
    from flows.build_shards import build_shards

    _run(build_shards, as_json)


@app.command()
def retry(
    state: Annotated[str, typer.Argument(help="failed, rejected or skipped.")] = "failed",
    home: Home = DEFAULT_HOME,
    config: Config = None,
    asset: Annotated[str, typer.Option(help="Only assets whose id begins so.")] = "",
) -> None:
    """Take parked assets back to where they stood; their reviewers are asked anew."""
    from tasks.catalogue import PARKED

    one_of("STATE", state, tuple(sorted(PARKED)))
    with errors_told():
        enter_stack(home, config, needs_store=False)
        catalogue = _catalogue()
        rows = [row for row in catalogue.assets(state) if row.asset_id.startswith(asset)]
        for row in rows:
            has_source = row.source_key is not None
            now = catalogue.retry(row.asset_id).state if has_source else "no source, left alone"
            console.out.print(f"{row.asset_id[:12]} {console.plain(row.name)}: {now}")
    if any(row.source_key is None for row in rows):
        console.out.print(
            "No source: ingest could not take the object; `segvigen ingest --retry` tries it again"
        )


@app.command()
def status(home: Home = DEFAULT_HOME, config: Config = None, as_json: AsJson = False) -> None:
    """Assets per state, what was parked and why, shards, services."""
    with errors_told():
        stack = enter_stack(home, config, needs_store=False)
        state = console.read_state(load_settings(), stack.home)
    if as_json:
        console.out.print_json(json.dumps(state))
    else:
        console.show_state(state)


@app.command()
def show(
    asset: Annotated[str, typer.Argument(help="Beginning of an id, or a file's name.")],
    home: Home = DEFAULT_HOME,
    config: Config = None,
    glb: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write its parts as a coloured GLB here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """All that is known of one asset: state, rounds, answers and their problems, labels, blobs."""
    from tasks.storage.store import Store

    with errors_told():
        enter_stack(home, config, needs_store=glb is not None)
        settings = load_settings()
        catalogue = _catalogue()
        row = cli_show.find_asset(catalogue, asset)
        told = cli_show.read_asset(catalogue, row)
        if glb is not None:
            glb.write_bytes(cli_show.parts_glb(Store.from_settings(settings.store), catalogue, row))
    if as_json:
        console.out.print_json(json.dumps(told))
    else:
        cli_show.show_asset(told)


app.command()(cli_evaluate.evaluate)


@app.command()
def finetune(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Of training.")] = 20.0,
    surface: Annotated[str, typer.Option(help="Judge as-is, or fused to skins.")] = "as-is",
    use_if_better: Annotated[bool, typer.Option(help="Let a better one work at once.")] = True,
    as_json: AsJson = False,
) -> None:
    """Tune the model on accepted labels, judge it on held-out ones, use it if it is better."""
    one_of("--surface", surface, ("as-is", "fused"))
    enter_stack(home, config)
    from flows.finetune import finetune as flow

    _run(flow, as_json, minutes=minutes, surface=surface, is_used_if_better=use_if_better)


@app.command()
def checkpoints(home: Home = DEFAULT_HOME, config: Config = None, as_json: AsJson = False) -> None:
    """List tuned checkpoints, what they were judged, and which one works."""
    with errors_told():
        enter_stack(home, config, needs_store=False)
        settings = load_settings()
        rows = cli_finetune.read_checkpoints(settings)
    if as_json:
        console.out.print_json(json.dumps(rows))
    else:
        cli_finetune.show_checkpoints(rows, settings.model.checkpoint)


@app.command()
def use(
    version: Annotated[str, typer.Argument(help="Of `segvigen checkpoints`, or default.")],
    home: Home = DEFAULT_HOME,
    config: Config = None,
) -> None:
    """Let a checkpoint work from now on; restart the refine service for live answers."""
    from tasks.checkpoints import use as use_version

    with errors_told():
        enter_stack(home, config, needs_store=False)
        catalogue = _catalogue()
        row = use_version(catalogue, version)
    console.out.print(f"in use now: {row.location}")


@app.command()
def export(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")],
    home: Home = DEFAULT_HOME,
    config: Config = None,
) -> None:
    """Write the newest dataset version as a labelled folder, for evaluate and training."""
    with errors_told():
        enter_stack(home, config)
        written = cli_finetune.export_dataset(load_settings(), out)
    cli_finetune.show_export(written, out)


@app.command()
def report(home: Home = DEFAULT_HOME, config: Config = None, as_json: AsJson = False) -> None:
    """Reviewers (time, clicks, agreement), the queue, audits, second looks, known tasks."""
    with errors_told():
        enter_stack(home, config, needs_store=False)
        state = cli_quality.read_quality(load_settings())
    if as_json:
        console.out.print_json(json.dumps(state))
    else:
        cli_quality.show_quality(state)


@app.command()
def gold(
    asset: Annotated[str, typer.Argument(help="Beginning of an asset's id.")],
    home: Home = DEFAULT_HOME,
    config: Config = None,
) -> None:
    """Take an asset's accepted labels as known: reviewers are measured by them."""
    with errors_told():
        enter_stack(home, config, needs_store=False)
        catalogue = _catalogue()
        row = cli_quality.mark_gold(catalogue, asset)
    console.out.print(f"{row.asset_id[:12]}: label set {row.label_id} is known to be right")


@app.command()
def doctor(home: Home = DEFAULT_HOME, checkpoint: str = "default", as_json: AsJson = False) -> None:
    """Check this machine and say what to do."""
    from flows.cli.doctor import examine

    checks = list(examine(home, checkpoint))
    if as_json:
        console.out.print_json(json.dumps([console.check_as_dict(check) for check in checks]))
        is_fine = all(check.verdict != "problem" for check in checks)
    else:
        is_fine = console.show_checks(checks)
    raise typer.Exit(OK if is_fine else NOT_READY)


@app.command()
def demo(
    home: Home = DEFAULT_HOME,
    reviewer: Annotated[str, typer.Option(help="scripted or human.")] = "scripted",
    wait: Annotated[float, typer.Option(help="Seconds to wait for the reviewer.")] = 3600.0,
) -> None:
    """Run the whole loop on the local stack with meshes made in code."""
    one_of("--reviewer", reviewer, ("scripted", "human"))
    with errors_told():
        stack = LocalStack(home)
        if stack.has_own_store:
            raise StackError("the demo fills the raw bucket; unset SEGVIGEN_STORE_... for it")
        os.environ.update(stack.start(console.err.print))
        _deploy(stack)
        stack.start_workers(console.err.print)
        from flows.demo.run import run_demo

        is_complete = run_demo(stack, reviewer, wait)
    raise typer.Exit(OK if is_complete else WENT_WRONG)


def _deploy(stack: LocalStack, is_forced: bool = False) -> None:
    # A process of its own: deployments know the flows, not the other way round.
    argv = [sys.executable, "-m", "deployments.apply", *(["--force"] if is_forced else [])]
    env = {**os.environ, **stack.environment()}
    answer = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise StackError(f"Prefect did not take the deployments:\n{answer.stderr[-2000:]}")
    console.err.print(answer.stderr.strip() or "deployments applied")


def main() -> None:
    """Entry point of the `segvigen` command."""
    app()


if __name__ == "__main__":
    main()
