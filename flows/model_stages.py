"""Flows of the stages that ask the model, asset by asset: encode, propose, refine."""

from __future__ import annotations

from typing import Any

from prefect import Flow, flow

from flows.runtime.chunks import Stage, asset_stage, run_stage
from tasks.catalogue import AssetState
from tasks.checkpoints import load_segmenter
from tasks.stages.encode import encode_asset
from tasks.stages.propose import propose_asset
from tasks.stages.refine import refine_asset
from tasks.stages.runner import StageResult
from tasks.workspace import Overrides, Workspace, open_workspace


def _flow_of(stage: Stage, what: str) -> Flow[..., dict[str, Any]]:
    """The flow that brings every waiting asset through a stage."""

    def run(
        limit: int | None = None,
        settings_file: str | None = None,
        overrides: Overrides | None = None,
    ) -> dict[str, Any]:
        workspace = open_workspace(settings_file, overrides, stage.name)
        return run_stage(workspace, stage, limit).as_dict()

    run.__doc__ = f"""{what}

    Args:
        limit: at most so many assets.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Counts by state reached and seconds.
    """
    return flow(name=stage.name)(run)


def _common(workspace: Workspace) -> dict[str, Any]:
    return {
        "store": workspace.store,
        "catalogue": workspace.catalogue,
        "segmenter": load_segmenter(workspace),
        "worker": workspace.worker,
    }


def _encode(workspace: Workspace, asset_id: str) -> StageResult:
    return encode_asset(asset_id, **_common(workspace))


def _propose(workspace: Workspace, asset_id: str) -> StageResult:
    return propose_asset(asset_id, model=workspace.settings.model, **_common(workspace))


def _refine(workspace: Workspace, asset_id: str) -> StageResult:
    return refine_asset(asset_id, model=workspace.settings.model, **_common(workspace))


encode = _flow_of(
    asset_stage("encode", (AssetState.REGISTERED,), _encode),
    "Turn every registered asset into voxels and latents.",
)
propose = _flow_of(
    asset_stage("propose", (AssetState.ENCODED,), _propose),
    "Give every encoded asset its first partition.",
)
refine = _flow_of(
    asset_stage("refine", (AssetState.REFINING,), _refine),
    "Make the reviewers' clicks the next round's proposals.",
)
