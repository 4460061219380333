"""Flows of the stages that ask the model, asset by asset: encode, propose, refine."""

from __future__ import annotations

from typing import Any

from prefect import Flow, flow

from flows.runtime.chunks import Stage, run_stage
from flows.runtime.context import Context, Overrides, open_context
from tasks.catalogue import AssetState
from tasks.stages.encode import encode_asset
from tasks.stages.propose import propose_asset
from tasks.stages.refine import refine_asset
from tasks.stages.runner import StageResult


def _flow_of(stage: Stage, what: str) -> Flow[..., dict[str, Any]]:
    """The flow that brings every waiting asset through a stage."""

    def run(
        limit: int | None = None,
        settings_file: str | None = None,
        overrides: Overrides | None = None,
    ) -> dict[str, Any]:
        context = open_context(settings_file, overrides, stage.name)
        return run_stage(context, stage, limit).as_dict()

    run.__doc__ = f"""{what}

    Args:
        limit: at most so many assets.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Counts by state reached and seconds.
    """
    return flow(name=stage.name)(run)


def _common(context: Context) -> dict[str, Any]:
    return {
        "store": context.store,
        "catalogue": context.catalogue,
        "segmenter": context.segmenter(),
        "worker": context.worker,
    }


def _encode(context: Context, asset_id: str) -> StageResult:
    return encode_asset(asset_id, **_common(context))


def _propose(context: Context, asset_id: str) -> StageResult:
    return propose_asset(asset_id, model=context.settings.model, **_common(context))


def _refine(context: Context, asset_id: str) -> StageResult:
    return refine_asset(asset_id, model=context.settings.model, **_common(context))


encode = _flow_of(
    Stage("encode", (AssetState.REGISTERED,), _encode),
    "Turn every registered asset into voxels and latents.",
)
propose = _flow_of(
    Stage("propose", (AssetState.ENCODED,), _propose),
    "Give every encoded asset its first partition.",
)
refine = _flow_of(
    Stage("refine", (AssetState.REFINING,), _refine),
    "Make the reviewers' clicks the next round's proposals.",
)
