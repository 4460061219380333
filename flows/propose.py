"""Flow: every encoded asset gets its first partition."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.chunked import Stage, run_stage
from flows.context import Context, Overrides, open_context
from tasks.catalogue import AssetState
from tasks.propose import propose_asset
from tasks.stage import StageResult


@flow(name="propose")
def propose(
    limit: int | None = None,
    settings_file: str | None = None,
    overrides: Overrides | None = None,
) -> dict[str, Any]:
    """Propose parts for what was encoded.

    Args:
        limit: at most so many assets.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Counts by state reached and seconds.
    """
    context = open_context(settings_file, overrides, "propose")
    return run_stage(context, PROPOSE, limit).as_dict()


def _propose(context: Context, asset_id: str) -> StageResult:
    return propose_asset(
        asset_id,
        store=context.store,
        catalogue=context.catalogue,
        segmenter=context.segmenter(),
        model=context.settings.model,
        worker=context.worker,
    )


PROPOSE = Stage("propose", (AssetState.ENCODED,), _propose)
