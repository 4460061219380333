"""`segvigen finetune`, `checkpoints`, `use`, `export`: from accepted labels to a better model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import console

if TYPE_CHECKING:
    from tasks.catalogue import CheckpointRow
    from tasks.settings import Settings
    from tasks.shards.labelled_folder import DatasetFolder


def read_checkpoints(settings: Settings) -> list[dict[str, Any]]:
    """Every tuned checkpoint, and which works; JSON-able."""
    from tasks.checkpoints import CURRENT, SHIPPED, published
    from tasks.workspace import open_catalogue

    catalogue = open_catalogue(settings)
    current = catalogue.labels.checkpoint(CURRENT)
    location = SHIPPED if current is None else current.location
    shipped = {"version": SHIPPED, "is_in_use": location == SHIPPED, "reason": "shipped"}
    return [shipped, *(_told(row, location) for row in published(catalogue))]


def show_checkpoints(rows: Sequence[Mapping[str, Any]], setting: str) -> None:
    """Print `read_checkpoints` for people."""
    from tasks.checkpoints import CURRENT

    shown = console.table("Checkpoints", "version", "", "verdict")
    for row in rows:
        in_use = "[green]in use" if row["is_in_use"] and setting == CURRENT else ""
        shown.add_row(row["version"], in_use, console.plain(row["reason"]))
    console.out.print(shown)
    if setting != CURRENT:
        console.out.print(
            f"SEGVIGEN_MODEL_CHECKPOINT={console.plain(setting)} is set and comes first."
        )


def export_dataset(settings: Settings, folder: Path) -> DatasetFolder:
    """Write the newest dataset version as a labelled folder."""
    from tasks.catalogue import Catalogue
    from tasks.shards.labelled_folder import latest_version, write_dataset_folder
    from tasks.storage.store import Store

    catalogue = Catalogue(settings.catalogue.url.get_secret_value())
    version = latest_version(catalogue, settings.shard.dataset)
    return write_dataset_folder(Store.from_settings(settings.store), catalogue, version, folder)


def show_export(written: DatasetFolder, folder: Path) -> None:
    """Say what `export_dataset` wrote."""
    counts = ", ".join(f"{number} {split}" for split, number in written.splits.items())
    console.out.print(f"{console.plain(str(folder))}: {counts}", soft_wrap=True)
    for asset_id, why in written.left_out:
        console.err.print(console.plain(f"{asset_id[:12]} left out: {why}"), soft_wrap=True)


def _told(row: CheckpointRow, location: str) -> dict[str, Any]:
    return {
        "version": row.alias,
        "is_in_use": row.location == location,
        "is_better": bool(row.detail.get("is_better")),
        "reason": str(row.detail.get("reason", "")),
    }
