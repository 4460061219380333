"""Flow: accept what passes the gate, send the rest to the review project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import flow

from flows.runtime.chunks import Stage, asset_stage, run_stage
from flows.runtime.label_studio import push_to_review
from tasks.catalogue import AssetState
from tasks.quality.gate import gate_asset, hash_gate_rules
from tasks.quality.queue import count_free_places, rank_waiting
from tasks.stages.runner import StageResult
from tasks.workspace import Overrides, Workspace, open_workspace

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement


@flow(name="push_review")
def push_review(
    limit: int | None = None,
    settings_file: str | None = None,
    overrides: Overrides | None = None,
) -> dict[str, Any]:
    """Gate first proposals, rank what waits, and make review tasks up to the limit of open ones.

    Args:
        limit: at most so many assets.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Counts by state reached and seconds.
    """
    workspace = open_workspace(settings_file, overrides, "push_review")
    gated = run_stage(workspace, GATE, limit)
    rank_waiting(workspace)
    room = count_free_places(workspace)
    room = room if limit is None else min(room, limit)
    pushed = run_stage(workspace, PUSH, room)
    accepted = gated.counts.get(str(AssetState.ACCEPTED), 0)
    report = pushed.as_dict()
    if accepted:
        report["counts"] = {**pushed.counts, "accepted by the gate": accepted}
    return report


def _gate_one(workspace: Workspace, asset_id: str) -> StageResult:
    decision = gate_asset(workspace, asset_id)
    state = workspace.catalogue.get_asset(asset_id).state
    note = "; ".join(decision.rejection_reasons) or ("audit" if decision.is_audited else "sure")
    return StageResult(asset_id, "gate", state, decision.is_accepted, note=note)


def _count_waiting(workspace: Workspace) -> ColumnElement[bool]:
    return workspace.catalogue.quality.is_ungated(hash_gate_rules(workspace.settings.gate))


GATE = asset_stage("gate", (AssetState.PROPOSED,), _gate_one, _count_waiting)
PUSH = Stage("push_review", (AssetState.PROPOSED,), push_to_review)
