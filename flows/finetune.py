"""Flow: tune the model on accepted labels; a better checkpoint replaces the one in use.

Export, training, evaluation and publishing each reuse what an earlier run of the same dataset
version has finished, so that a killed run continues where it stopped.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from prefect import flow, task

from flows.runtime.chunks import make_io_task
from flows.runtime.report import publish_table
from segvigen_model.checkpoints.native import resolve_checkpoint_folder
from tasks.catalogue import ShardVersionRow
from tasks.checkpoints import (
    CURRENT,
    VERDICT_FILE,
    checkpoint_in_use,
    publish_checkpoint,
    use_checkpoint,
)
from tasks.shards.labelled_folder import DatasetFolder, find_latest_version, write_dataset_folder
from tasks.workspace import Overrides, Workspace, open_workspace

RUNS = "runs"  # in the checkpoint cache


@flow(name="finetune")
def finetune(
    minutes: float = 20.0,
    surface: str = "as-is",
    is_used_if_better: bool = True,
    settings_file: str | None = None,
    overrides: Overrides | None = None,
) -> dict[str, Any]:
    """Tune the checkpoint in use on the newest dataset version, evaluate it, publish it.

    Args:
        minutes: of training; export and evaluation come on top.
        surface: held-out objects are evaluated "as-is", or each "fused" to a single shell.
        is_used_if_better: use a better one from now on.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Objects by split, the version, whether it is in use now, a note for people, seconds.
    """
    started = time.monotonic()
    workspace = open_workspace(settings_file, overrides, "finetune")
    dataset = find_latest_version(workspace.catalogue, workspace.settings.shard.dataset)
    name = _name_version(dataset)
    working = workspace.catalogue.labels.get_checkpoint(CURRENT)
    if working is not None and working.detail.get("dataset") == name:
        note = f"the checkpoint in use was tuned on {name}; accept more assets first"
        return {"stage": "finetune", "counts": {}, "seconds": 0.0, "note": note}
    written, verdict, version = _tune(workspace, dataset, minutes, surface)
    is_used = is_used_if_better and bool(verdict["is_better"])
    if is_used:
        use_checkpoint(workspace.catalogue, version)
    seconds = round(time.monotonic() - started, 2)
    state = "in use now" if is_used else "not in use"
    note = f"{name} -> checkpoint {version}, {state}: {verdict['reason']}"
    rows = [{"asset": asset_id, "left out because": why} for asset_id, why in written.left_out]
    publish_table("finetune", rows, f"## finetune\n\n{note}")
    counts = {**written.splits, "left_out": len(written.left_out)}
    report = {"stage": "finetune", "counts": counts, "seconds": seconds, "note": note}
    return {**report, "version": version, "is_in_use": is_used}


def _tune(
    workspace: Workspace, dataset: ShardVersionRow, minutes: float, surface: str
) -> tuple[DatasetFolder, dict[str, Any], str]:
    """Export, tune and publish, each as a Prefect task; returns the version of the checkpoint."""
    folder = _make_run_folder(workspace, dataset)

    @make_io_task("write-dataset-folder")
    def write_dataset() -> DatasetFolder:
        return write_dataset_folder(workspace, dataset, folder / "data")

    @task(name="tune-and-judge")
    def tune_and_judge() -> dict[str, Any]:
        return _load_or_make_verdict(workspace, dataset, folder, minutes, surface)

    @make_io_task("publish-checkpoint")
    def keep_checkpoint(verdict: dict[str, Any]) -> str:
        detail = {**verdict, "dataset": _name_version(dataset)}
        return publish_checkpoint(workspace, folder / "checkpoint", detail).alias

    written: DatasetFolder = write_dataset()
    verdict: dict[str, Any] = tune_and_judge()
    version: str = keep_checkpoint(verdict)
    return written, verdict, version


def _name_version(dataset: ShardVersionRow) -> str:
    return f"{dataset.dataset}/{dataset.version}"


def _make_run_folder(workspace: Workspace, dataset: ShardVersionRow) -> Path:
    """Return the folder in which this version is tuned from the checkpoint in use."""
    start = Path(checkpoint_in_use(workspace)).name
    runs = workspace.settings.model.checkpoint_cache.absolute() / RUNS
    return runs / f"{dataset.dataset}-{dataset.version}-from-{start}"


def _load_or_make_verdict(
    workspace: Workspace, dataset: ShardVersionRow, folder: Path, minutes: float, surface: str
) -> dict[str, Any]:
    """Tune and evaluate, unless an earlier run has finished it."""
    from segvigen_model.training.finetune import TuneOptions
    from segvigen_model.training.finetune import finetune as finetune

    done = folder / VERDICT_FILE
    if not done.exists():
        start = str(resolve_checkpoint_folder(checkpoint_in_use(workspace)))
        device = workspace.settings.model.device
        options = TuneOptions(start=start, minutes=minutes, surface=surface, device=device)
        finetune(
            folder / "data", folder, options, {"dataset": dataset.dataset, "of": dataset.version}
        )
    verdict: dict[str, Any] = json.loads(done.read_text())
    return verdict
