"""`segvigen finetune`, `checkpoints`, `use`, `export`: from accepted labels to a better model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import console
from flows.cli.options import Config, Home, enter_stack, run_flow
from infra.local import DEFAULT_HOME
from segvigen_model.command import terminal
from segvigen_model.command.options import AsJson, check_choice, handle_errors
from tasks.settings import load_settings
from tasks.workspace import open_catalogue

if TYPE_CHECKING:
    from tasks.catalogue import Catalogue, CheckpointRow

app = typer.Typer()


@app.command()  # more than five parameters: each is an option of the command
def finetune(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Of training.")] = 20.0,
    surface: Annotated[str, typer.Option(help="Evaluate as-is or fused meshes.")] = "as-is",
    use_if_better: Annotated[bool, typer.Option(help="Use a better one at once.")] = True,
    as_json: AsJson = False,
) -> None:
    """Tune the model on accepted labels, evaluate it on held-out ones, use it if it is better."""
    check_choice("--surface", surface, ("as-is", "fused"))
    enter_stack(home, config)
    from flows.finetune import finetune as flow

    run_flow(flow, as_json, minutes=minutes, surface=surface, is_used_if_better=use_if_better)


@app.command()
def checkpoints(home: Home = DEFAULT_HOME, config: Config = None, as_json: AsJson = False) -> None:
    """List tuned checkpoints, their evaluation, and which one is in use."""
    with handle_errors():
        enter_stack(home, config, needs_store=False)
        settings = load_settings()
        rows = read_checkpoints(open_catalogue(settings))
    if as_json:
        terminal.out.print_json(json.dumps(rows))
    else:
        console.show_checkpoints(rows, settings.model.checkpoint)


@app.command()
def use(
    version: Annotated[str, typer.Argument(help="Of `segvigen checkpoints`, or default.")],
    home: Home = DEFAULT_HOME,
    config: Config = None,
) -> None:
    """Use a checkpoint from now on; restart the refine service for live predictions."""
    from tasks.checkpoints import use_checkpoint as use_checkpoint

    with handle_errors():
        enter_stack(home, config, needs_store=False)
        row = use_checkpoint(open_catalogue(load_settings()), version)
    terminal.out.print(f"in use now: {row.location}")


@app.command()
def export(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")],
    home: Home = DEFAULT_HOME,
    config: Config = None,
) -> None:
    """Write the newest dataset version as a labelled folder, for evaluate and training."""
    from tasks.shards.labelled_folder import find_latest_version, write_dataset_folder
    from tasks.workspace import Workspace

    with handle_errors():
        enter_stack(home, config)
        workspace = Workspace.from_settings(load_settings())
        version = find_latest_version(workspace.catalogue, workspace.settings.shard.dataset)
        written = write_dataset_folder(workspace, version, out)
    console.show_export(written, out)


def read_checkpoints(catalogue: Catalogue) -> list[dict[str, Any]]:
    """List every tuned checkpoint, and which one is in use; JSON-able."""
    from tasks.checkpoints import CURRENT, SHIPPED, list_published

    current = catalogue.labels.get_checkpoint(CURRENT)
    location = SHIPPED if current is None else current.location
    shipped = {"version": SHIPPED, "is_in_use": location == SHIPPED, "reason": "shipped"}
    return [shipped, *(_summary(row, location) for row in list_published(catalogue))]


def _summary(row: CheckpointRow, location: str) -> dict[str, Any]:
    return {
        "version": row.alias,
        "is_in_use": row.location == location,
        "is_better": bool(row.detail.get("is_better")),
        "reason": str(row.detail.get("reason", "")),
    }
