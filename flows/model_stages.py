"""Flows of the stages that run the model, one asset at a time: encode, propose, refine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import Flow, flow

from flows.runtime.chunks import asset_stage, run_stage
from tasks.catalogue import AssetState
from tasks.checkpoints import load_segmenter
from tasks.labelling.segmenter import Segmenter
from tasks.stages.encode import encode_asset
from tasks.stages.propose import propose_asset
from tasks.stages.refine import refine_asset
from tasks.stages.runner import StageResult
from tasks.workspace import Overrides, Workspace, open_workspace


def _make_flow(
    name: str,
    claims: AssetState,
    work: Callable[[Workspace, str, Segmenter], StageResult],
    summary: str,
) -> Flow[..., dict[str, Any]]:
    """Make the flow that takes every asset waiting in a state through a stage."""

    def work_on_asset(workspace: Workspace, asset_id: str) -> StageResult:
        return work(workspace, asset_id, load_segmenter(workspace))

    stage = asset_stage(name, (claims,), work_on_asset)

    def run(
        limit: int | None = None,
        settings_file: str | None = None,
        overrides: Overrides | None = None,
    ) -> dict[str, Any]:
        workspace = open_workspace(settings_file, overrides, name)
        return run_stage(workspace, stage, limit).as_dict()

    run.__doc__ = f"""{summary}

    Args:
        limit: at most so many assets.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Counts by state reached and seconds.
    """
    return flow(name=name)(run)


encode = _make_flow(
    "encode",
    AssetState.REGISTERED,
    encode_asset,
    "Encode every registered asset as voxels and latents.",
)
propose = _make_flow(
    "propose",
    AssetState.ENCODED,
    propose_asset,
    "Make the first proposal of every encoded asset.",
)
refine = _make_flow(
    "refine",
    AssetState.REFINING,
    refine_asset,
    "Apply the reviewers' clicks: make the proposals of the next round.",
)
