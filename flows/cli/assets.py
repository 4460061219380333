"""`segvigen status`, `show`, `retry`: the state of all assets and of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import console
from flows.cli.options import Config, Home, enter_stack
from infra.local import DEFAULT_HOME, LocalStack
from segvigen_model.command import terminal
from segvigen_model.command.options import AsJson, check_choice, check_output, handle_errors
from segvigen_model.errors import SegvigenError
from tasks.settings import load_settings
from tasks.workspace import open_catalogue

if TYPE_CHECKING:
    from tasks.catalogue import AssetRow, Catalogue, ShardVersionRow
    from tasks.workspace import Workspace

app = typer.Typer()
MAX_SHOWN = 20  # messages; `segvigen quarantine list` shows all
MAX_LISTED = 1000  # parked and failing assets in `status --json`, which also has their number
MAX_NAMED = 5  # assets in an error text


class NoSuchAsset(SegvigenError):
    """The requested name fits no asset or several, or the asset has no labels."""


@app.command()
def status(home: Home = DEFAULT_HOME, config: Config = None, as_json: AsJson = False) -> None:
    """Assets per state, what was parked and why, shards, services."""
    with handle_errors():
        stack = enter_stack(home, config, needs_store=False)
        state = read_state(open_catalogue(load_settings()), stack)
    if as_json:
        terminal.out.print_json(json.dumps(state))
    else:
        console.show_state(state)


@app.command()
def show(
    asset: Annotated[str, typer.Argument(help="Beginning of an id, or a file's name.")],
    home: Home = DEFAULT_HOME,
    config: Config = None,
    glb: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="GLB to write: a node per part, with the asset's own materials."
        ),
    ] = None,
    painted: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="GLB to write: a node per part, in its colour."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Everything about one asset: state, rounds, annotations and their problems, labels, blobs."""
    from tasks.workspace import Workspace

    wanted = {file: file == painted for file in (glb, painted) if file is not None}
    check_output("--glb", glb, ".glb")
    check_output("--painted", painted, ".glb")
    with handle_errors():
        enter_stack(home, config, needs_store=bool(wanted))
        workspace = Workspace.from_settings(load_settings())
        row = find_asset(workspace.catalogue, asset)
        history = read_asset(workspace.catalogue, row)
        written = write_parts(workspace, row, wanted) if wanted else []
    if as_json:
        terminal.out.print_json(json.dumps(history))
    else:
        console.show_asset(history)
        for line in written:
            terminal.out.print(line, soft_wrap=True)


@app.command()
def retry(
    state: Annotated[str, typer.Argument(help="failed, rejected or skipped.")] = "failed",
    home: Home = DEFAULT_HOME,
    config: Config = None,
    asset: Annotated[str, typer.Option(help="Only assets whose id begins so.")] = "",
) -> None:
    """Take parked assets back to the stage where they stopped; they are reviewed anew."""
    from tasks.catalogue import PARKED

    check_choice("STATE", state, tuple(sorted(PARKED)))
    with handle_errors():
        enter_stack(home, config, needs_store=False)
        catalogue = open_catalogue(load_settings())
        rows = catalogue.overview.find_by_prefix(asset, state=state)
        for row in rows:
            has_source = row.source_key is not None
            now = catalogue.retry(row.asset_id).state if has_source else "no source, left alone"
            terminal.out.print(f"{row.asset_id[:12]} {terminal.sanitize_text(row.name)}: {now}")
    if any(row.source_key is None for row in rows):
        terminal.out.print(
            "No source: ingest could not take the object; `segvigen ingest --retry` tries it again"
        )


def read_state(catalogue: Catalogue, stack: LocalStack) -> dict[str, Any]:
    """Read everything that `segvigen status` shows; JSON-able."""
    overview = catalogue.overview
    # Copies for quality control are reviewed, but they are no assets of the dataset.
    found = catalogue.quality.count_dataset_assets()
    counts = {str(state): number for state, number in found.items()}
    services = stack.list_status() if stack.home.is_dir() else []
    return {
        "assets": counts,
        "total": sum(counts.values()),
        "raw_objects": overview.count_raw(),
        "label_sets": overview.count_label_sets(),
        "copies": overview.count_copies(),
        "num_parked": overview.count_parked(),
        "parked": [_describe_trouble(row) for row in overview.list_parked(MAX_LISTED)],
        "suspects": [row.asset_id for row in catalogue.list_suspects()],
        "sick_devices": [asdict(row) for row in catalogue.devices.list_sick()],
        "quarantined": catalogue.quarantine.count_by_kind(),
        "quarantine": [
            {"message": row.message_id, "kind": row.kind, "reason": row.reason, "count": row.count}
            for row in catalogue.quarantine.list_all()[:MAX_SHOWN]
        ],
        "num_failing": overview.count_failing(),
        "failing": [_describe_trouble(row) for row in overview.list_failing(MAX_LISTED)],
        "shards": [_shard_version(row) for row in catalogue.labels.list_shard_versions()],
        "services": [
            {"name": row.name, "is_running": row.is_running, "url": row.url, "pid": row.pid}
            for row in services
        ],
    }


def find_asset(catalogue: Catalogue, asset: str) -> AssetRow:
    """Find the asset whose id begins so, or whose file has this name.

    Raises:
        NoSuchAsset: none or several.
    """
    found = catalogue.overview.find_by_prefix(asset, MAX_NAMED + 1)
    found = found or catalogue.overview.find_by_name(asset, MAX_NAMED + 1)
    if len(found) != 1:
        which = ", ".join(row.asset_id[:12] for row in found[:MAX_NAMED])
        number = f"more than {MAX_NAMED}" if len(found) > MAX_NAMED else len(found)
        raise NoSuchAsset(
            f"{number} assets begin with {asset[:64]!r} or have that name"
            f"{f' ({which})' if which else ''}; `segvigen status --json` lists what there is"
        )
    return found[0]


def read_asset(catalogue: Catalogue, asset: AssetRow) -> dict[str, Any]:
    """Read an asset's row, raw objects, rounds, annotations, label sets and events; JSON-able."""
    asset_id = asset.asset_id
    annotations = catalogue.reviews.list_annotations(asset_id)
    return {
        "asset": {**asdict(asset), "state": str(asset.state)},
        "raw_objects": [row.key for row in catalogue.raw.list_all(asset_id)],
        "rounds": [asdict(row) for row in catalogue.list_proposals(asset_id)],
        "tasks": [asdict(row) for row in catalogue.reviews.list_tasks(asset_id)],
        "annotations": [
            {k: v for k, v in asdict(row).items() if k != "raw"} for row in annotations
        ],
        "clicks": len(catalogue.reviews.list_clicks(asset_id)),
        "label_sets": [asdict(row) for row in catalogue.labels.list_all(asset_id)],
        "events": [asdict(row) for row in catalogue.list_events(asset_id)],
    }


def write_parts(workspace: Workspace, asset: AssetRow, files: Mapping[Path, bool]) -> list[str]:
    """Write the asset's accepted parts, else its newest proposal's, as GLB.

    Args:
        workspace: where the asset is.
        asset: its row.
        files: file -> whether in plain part colours, else with the asset's own materials.

    Returns:
        A line about each file.

    Raises:
        NoSuchAsset: it has no parts yet.
    """
    from segvigen_model.mesh.io import parts_to_glb
    from tasks.labelling.label_sets import load_label_set
    from tasks.labelling.loading import load_asset_mesh, load_proposal
    from tasks.labelling.part_colors import assign_part_colors

    store, catalogue = workspace.store, workspace.catalogue
    held = catalogue.labels.get_latest(asset.asset_id)
    row = catalogue.get_latest_proposal(asset.asset_id)
    names: tuple[str, ...]
    slots = None
    if held is not None:
        label_set = load_label_set(store, held)
        labels, names, source = label_set.face_labels, label_set.part_names, "accepted parts"
    elif row is not None:
        proposal = load_proposal(store, row)
        labels, names = proposal.face_labels, proposal.parts.names
        slots = proposal.parts.color_slots if min(proposal.parts.color_slots) >= 0 else None
        source = f"parts proposed in round {row.round}"
    else:
        raise NoSuchAsset(f"{asset.asset_id[:12]} has no parts yet, it is {asset.state}")
    mesh, colors = load_asset_mesh(store, asset), assign_part_colors(len(names), slots)
    for file, is_painted in files.items():
        file.write_bytes(parts_to_glb(mesh, labels, colors, names, is_painted=is_painted))
    looks = {False: "the asset's own materials", True: "part colours"}
    return [
        f"{terminal.sanitize_text(str(file))}: {len(names)} {source}, one node each, {looks[plain]}"
        for file, plain in files.items()
    ]


def _describe_trouble(row: AssetRow) -> dict[str, Any]:
    return {
        "asset": row.asset_id,
        "name": row.name,
        "state": str(row.state),
        "reason": row.reason,
        "detail": row.detail,
        "last_error": row.last_error,
        "attempts": row.attempts,
        "deaths": row.deaths,
    }


def _shard_version(row: ShardVersionRow) -> dict[str, Any]:
    return {
        "dataset": row.dataset,
        "version": row.version,
        "manifest_key": row.manifest_key,
        "sha256": row.sha256,
        "samples": row.num_samples,
        "size_bytes": row.size_bytes,
    }
