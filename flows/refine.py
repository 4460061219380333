"""Flow: the reviewers' clicks become the next round's proposals."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.chunked import Stage, run_stage
from flows.context import Context, Overrides, open_context
from tasks.catalogue import AssetState
from tasks.refine import refine_asset
from tasks.stage import StageResult


@flow(name="refine")
def refine(
    limit: int | None = None,
    settings_file: str | None = None,
    overrides: Overrides | None = None,
) -> dict[str, Any]:
    """Apply the reviewers' clicks.

    Args:
        limit: at most so many assets.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Counts by state reached and seconds.
    """
    context = open_context(settings_file, overrides, "refine")
    return run_stage(context, REFINE, limit).as_dict()


def _refine(context: Context, asset_id: str) -> StageResult:
    return refine_asset(
        asset_id,
        store=context.store,
        catalogue=context.catalogue,
        segmenter=context.segmenter(),
        model=context.settings.model,
        worker=context.worker,
    )


REFINE = Stage("refine", (AssetState.REFINING,), _refine)
