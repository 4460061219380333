"""Flow: write the accepted label sets as an immutable version of the fine-tuning dataset."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from prefect import flow

from flows.runtime.chunks import make_io_task
from flows.runtime.report import publish_table
from tasks.recovery.repair import heal_asset
from tasks.shards import build as shards
from tasks.workspace import Overrides, open_workspace


@flow(name="build_shards")
def build_shards(
    settings_file: str | None = None,
    overrides: Overrides | None = None,
    is_thorough: bool = True,
) -> dict[str, Any]:
    """Write a new version if label sets have changed, else check and return the present one.

    Args:
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.
        is_thorough: compare the hashes of all tars that are there, not only their sizes.

    Returns:
        The version, its size, and assets that were left out with the reason.
    """
    started = time.monotonic()
    workspace = open_workspace(settings_file, overrides, "build_shards")

    @make_io_task("build-shards")
    def write_version() -> shards.ShardBuild:
        made = shards.build_shards(workspace, is_thorough=is_thorough)
        healed = [asset_id for asset_id, _ in made.failed if heal_asset(workspace, asset_id)]
        return shards.build_shards(workspace, is_thorough=False) if healed else made

    built: shards.ShardBuild = write_version()
    seconds = round(time.monotonic() - started, 2)
    rows = [{"asset": asset_id, "left out because": error} for asset_id, error in built.failed]
    text = (
        f"## build_shards\n\n{built.dataset}/{built.version or '(nothing to build)'}: "
        f"{built.num_samples} samples ({built.num_reused} copied from the version before) "
        f"in {built.num_shards} shards, "
        f"{'new' if built.is_new else 'unchanged'}, {seconds:.1f} s"
    )
    text += "".join(f"\n- made again: {key} ({fault})" for key, fault in built.repaired)
    publish_table("build_shards", rows, text)
    counts = {"samples": built.num_samples, "left_out": len(built.failed)}
    return {"stage": "build_shards", "counts": counts, "seconds": seconds, **asdict(built)}
