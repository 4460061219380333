"""`segvigen finetune`, `checkpoints`, `use`, `export`: from accepted labels to a better model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import cli_view as view

if TYPE_CHECKING:
    from tasks.catalogue import CheckpointRow
    from tasks.dataset_folder import DatasetFolder
    from tasks.settings import Settings


def read_checkpoints(settings: Settings) -> list[dict[str, Any]]:
    """Every tuned checkpoint, and which works; JSON-able."""
    from tasks.catalogue import Catalogue
    from tasks.checkpoints import CURRENT, SHIPPED, published

    catalogue = Catalogue(settings.catalogue.url.get_secret_value())
    current = catalogue.labels.checkpoint(CURRENT)
    location = SHIPPED if current is None else current.location
    shipped = {"version": SHIPPED, "is_in_use": location == SHIPPED, "reason": "shipped"}
    return [shipped, *(_told(row, location) for row in published(catalogue))]


def show_checkpoints(rows: Sequence[Mapping[str, Any]], setting: str) -> None:
    """Print `read_checkpoints` for people."""
    from tasks.checkpoints import CURRENT

    shown = view.table("Checkpoints", "version", "", "verdict")
    for row in rows:
        in_use = "[green]in use" if row["is_in_use"] and setting == CURRENT else ""
        shown.add_row(row["version"], in_use, view.plain(row["reason"]))
    view.out.print(shown)
    if setting != CURRENT:
        view.out.print(f"SEGVIGEN_MODEL_CHECKPOINT={view.plain(setting)} is set and comes first.")


def export_dataset(settings: Settings, folder: Path) -> DatasetFolder:
    """Write the newest dataset version as a labelled folder."""
    from tasks.catalogue import Catalogue
    from tasks.dataset_folder import latest_version, write_dataset_folder
    from tasks.store import Store

    catalogue = Catalogue(settings.catalogue.url.get_secret_value())
    version = latest_version(catalogue, settings.shard.dataset)
    return write_dataset_folder(Store.from_settings(settings.store), catalogue, version, folder)


def show_export(written: DatasetFolder, folder: Path) -> None:
    """Say what `export_dataset` wrote."""
    counts = ", ".join(f"{number} {split}" for split, number in written.splits.items())
    view.out.print(f"{view.plain(str(folder))}: {counts}", soft_wrap=True)
    for asset_id, why in written.left_out:
        view.err.print(view.plain(f"{asset_id[:12]} left out: {why}"), soft_wrap=True)


def _told(row: CheckpointRow, location: str) -> dict[str, Any]:
    return {
        "version": row.alias,
        "is_in_use": row.location == location,
        "is_better": bool(row.detail.get("is_better")),
        "reason": str(row.detail.get("reason", "")),
    }
