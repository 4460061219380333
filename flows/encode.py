"""Flow: every registered asset becomes voxels and latents."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.chunked import Stage, run_stage
from flows.context import Context, Overrides, open_context
from tasks.catalogue import AssetState
from tasks.encode import encode_asset
from tasks.stage import StageResult


@flow(name="encode")
def encode(
    limit: int | None = None,
    settings_file: str | None = None,
    overrides: Overrides | None = None,
) -> dict[str, Any]:
    """Encode what was registered.

    Args:
        limit: at most so many assets.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Counts by state reached and seconds.
    """
    context = open_context(settings_file, overrides, "encode")
    return run_stage(context, ENCODE, limit).as_dict()


def _encode(context: Context, asset_id: str) -> StageResult:
    return encode_asset(
        asset_id,
        store=context.store,
        catalogue=context.catalogue,
        segmenter=context.segmenter(),
        worker=context.worker,
    )


ENCODE = Stage("encode", (AssetState.REGISTERED,), _encode)
