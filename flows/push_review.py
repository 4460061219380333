"""Flow: accept what the gate is sure of, send the rest to the reviewers' desk."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import flow

from flows.chunked import Stage, run_chunks, run_stage
from flows.context import Context, Overrides, open_context
from flows.desk import push_to_desk
from tasks.catalogue import AssetState
from tasks.gate import gate_asset
from tasks.stage import StageResult


@flow(name="push_review")
def push_review(
    limit: int | None = None,
    settings_file: str | None = None,
    overrides: Overrides | None = None,
) -> dict[str, Any]:
    """Gate first proposals, then make one review task for each asset that waits.

    Args:
        limit: at most so many assets.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Counts by state reached and seconds.
    """
    context = open_context(settings_file, overrides, "push_review")
    gated = run_stage(context, GATE, limit)

    push = partial(push_to_desk, context)
    pushed = run_chunks(context, "push_review", (AssetState.PROPOSED,), push, limit)
    accepted = gated.counts.get(str(AssetState.ACCEPTED), 0)
    report = pushed.as_dict()
    if accepted:
        report["counts"] = {**pushed.counts, "accepted by the gate": accepted}
    return report


def _gate(context: Context, asset_id: str) -> StageResult:
    decision = gate_asset(
        asset_id,
        store=context.store,
        catalogue=context.catalogue,
        settings=context.settings.gate,
        worker=context.worker,
    )
    state = context.catalogue.asset(asset_id).state
    note = "; ".join(decision.doubts) or ("audit" if decision.is_audited else "sure")
    return StageResult(asset_id, "gate", state, decision.is_accepted, note=note)


GATE = Stage("gate", (AssetState.PROPOSED,), _gate)
