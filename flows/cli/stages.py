"""`segvigen ingest`, `label`, `review`, `refine`, `shards`: run one flow in this process."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import Config, Home, Limit, enter_stack, run_flow
from infra.local import DEFAULT_HOME
from segvigen_model.command.options import AsJson

app = typer.Typer()

Prefix = Annotated[str, typer.Option(help="Folder of the raw bucket.")]


@app.command()  # more than five parameters: each is an option of the command
def ingest(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    prefix: Prefix = "",
    limit: Limit = None,
    retry: Annotated[bool, typer.Option(help="Also try rejected objects again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check what is new in the raw bucket and register it."""
    enter_stack(home, config)
    from flows.ingest import ingest as flow

    run_flow(flow, as_json, prefix=prefix, limit=limit, is_retrying=retry)


@app.command()
def label(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    prefix: Prefix = "",
    wait: Annotated[float, typer.Option(help="Seconds to wait for reviewers; 0 = one pass.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Run everything: ingest, encode, propose, review, refine, shards."""
    enter_stack(home, config)
    from flows.label_dataset import label_dataset as flow

    run_flow(flow, as_json, prefix=prefix, review_wait_s=wait)


@app.command()
def review(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    push: Annotated[bool, typer.Option(help="Send proposals to Label Studio.")] = True,
    pull: Annotated[bool, typer.Option(help="Fetch the reviewers' annotations.")] = True,
    as_json: AsJson = False,
) -> None:
    """Fetch annotations from Label Studio and send it what waits for review."""
    enter_stack(home, config)
    from flows.pull_review import pull_review
    from flows.push_review import push_review

    if pull:
        run_flow(pull_review, as_json)
    if push:
        run_flow(push_review, as_json)


@app.command()
def refine(
    home: Home = DEFAULT_HOME, config: Config = None, limit: Limit = None, as_json: AsJson = False
) -> None:
    """Apply the reviewers' clicks; the result goes back to review with the next push."""
    enter_stack(home, config)
    from flows.model_stages import refine as flow

    run_flow(flow, as_json, limit=limit)


@app.command()
def shards(home: Home = DEFAULT_HOME, config: Config = None, as_json: AsJson = False) -> None:
    """Write accepted label sets into fine-tuning shards."""
    enter_stack(home, config)
    from flows.build_shards import build_shards

    run_flow(build_shards, as_json)
