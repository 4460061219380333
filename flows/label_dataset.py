"""Flow: the whole pipeline, from raw meshes through review to shards. The schedule runs it.

Every stage can be killed and run again: the catalogue holds the state, and this flow only reads
which assets wait in which state. While reviewers work it polls for annotations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prefect import flow

from flows.build_shards import build_shards
from flows.ingest import ingest
from flows.model_stages import encode, propose, refine
from flows.pull_review import WAKE_UP, publish_reviewers, pull_review
from flows.push_review import push_review
from flows.runtime.label_studio import pull_from_review
from flows.runtime.report import MAX_TABLE_ROWS, publish_table
from tasks.catalogue import AssetState
from tasks.outages import wait_for
from tasks.quality.queue import count_free_places
from tasks.workspace import Overrides, Workspace, open_workspace

# Assets in these states need no reviewer to move on.
OURS = (AssetState.REGISTERED, AssetState.ENCODED, AssetState.PROPOSED, AssetState.REFINING)
WAKE_UP_POLL_S = 0.5


@flow(name="label_dataset", flow_run_name="label_dataset /{prefix}")
def label_dataset(
    prefix: str = "",
    review_wait_s: float = 0.0,
    settings_file: str | None = None,
    overrides: Overrides | None = None,
) -> dict[str, Any]:
    """Ingest, encode, propose, gate, review, refine, build shards.

    Args:
        prefix: folder of the raw bucket.
        review_wait_s: keep fetching annotations, refining and pushing for at most this time, until
            all assets are accepted or parked; 0 = one pass.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Assets by state, whether all are accepted or parked, seconds.
    """
    started = time.monotonic()
    workspace = open_workspace(settings_file, overrides, "label_dataset")
    common: dict[str, Any] = {"settings_file": settings_file, "overrides": overrides}
    ingest(prefix=prefix, **common)
    if workspace.catalogue.overview.has_assets((AssetState.IN_REVIEW,)):
        pull_review(**common)
    _advance_stages(workspace, common)
    deadline = started + review_wait_s
    while not is_finished(workspace) and time.monotonic() < deadline:
        before = workspace.catalogue.count_assets()
        _wait_for_annotations(workspace, deadline)
        _advance_stages(workspace, common)
        if workspace.catalogue.count_assets() == before:  # another run holds what is left
            time.sleep(workspace.settings.review.poll_interval_s)
    build_shards(**common, is_thorough=False)  # `segvigen shards` reads everything
    return _publish_report(workspace, time.monotonic() - started)


def is_finished(workspace: Workspace) -> bool:
    """Return whether no asset waits for a stage or for a reviewer."""
    return not workspace.catalogue.overview.has_assets((*OURS, AssetState.IN_REVIEW))


def has_work(workspace: Workspace) -> bool:
    """Return whether a stage can run now; proposals wait while the review project is full."""
    states = [state for state in OURS if state is not AssetState.PROPOSED]
    overview = workspace.catalogue.overview
    if overview.has_assets(states):
        return True
    is_waiting = overview.has_assets((AssetState.PROPOSED,))
    return is_waiting and count_free_places(workspace) > 0


def _advance_stages(workspace: Workspace, common: dict[str, Any]) -> None:
    """Run each stage that has assets waiting, in the order of the pipeline."""
    stages: dict[AssetState, Callable[..., Any]] = {
        AssetState.REGISTERED: encode,
        AssetState.ENCODED: propose,
        AssetState.REFINING: refine,
        AssetState.PROPOSED: push_review,
    }
    for state, stage in stages.items():
        if workspace.catalogue.overview.has_assets((state,)):
            stage(**common)


def _wait_for_annotations(workspace: Workspace, deadline: float) -> None:
    """Return when an annotation has moved an asset, or at the deadline.

    The review project is polled every interval, and at once when a webhook sets the cursor.
    """
    interval = workspace.settings.review.poll_interval_s
    while time.monotonic() < deadline:
        last_wake_up = workspace.catalogue.raw.get_cursor(WAKE_UP)
        wait_s = workspace.settings.work.outage_wait_s
        wait_for("Label Studio", lambda: pull_from_review(workspace), wait_s)
        if has_work(workspace) or is_finished(workspace):
            return
        until = min(deadline, time.monotonic() + interval)
        while (
            time.monotonic() < until and workspace.catalogue.raw.get_cursor(WAKE_UP) == last_wake_up
        ):
            time.sleep(WAKE_UP_POLL_S)


def _publish_report(workspace: Workspace, seconds: float) -> dict[str, Any]:
    """Publish a table of the first assets, and return the counts of all."""
    assets = workspace.catalogue.overview.list_dataset_assets(MAX_TABLE_ROWS)
    rows = [
        {
            "asset": asset.asset_id[:12],
            "name": asset.name,
            "state": str(asset.state),
            "round": asset.round,
            "reason": asset.reason or "",
            "faces": asset.num_faces,
        }
        for asset in assets
    ]
    found = workspace.catalogue.quality.count_dataset_assets()
    counts = {str(state): number for state, number in found.items()}
    lines = [f"- {state}: {number}" for state, number in counts.items() if number]
    text = "\n".join(
        ["## label_dataset", *lines, f"\n{sum(counts.values())} assets, {seconds:.0f} s"]
    )
    publish_table("label_dataset", rows, text)
    publish_reviewers(workspace)
    return {"counts": counts, "is_finished": is_finished(workspace), "seconds": round(seconds, 1)}
