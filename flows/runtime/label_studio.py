"""The review project as the flows use it: push a chunk, poll for annotations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from flows.runtime.report import Outcome
from tasks.errors import BlobDamaged
from tasks.outages import wait_for
from tasks.quality.adjudication import adjudicate
from tasks.recovery.repair import heal_asset
from tasks.review.project import ReviewProject, open_project
from tasks.review.pull import Reply, pull_annotations
from tasks.review.push import push_assets
from tasks.settings import ReviewSettings, StoreSettings
from tasks.workspace import Workspace


def open_review_project(workspace: Workspace) -> ReviewProject:
    """Open the project that the settings name; checked once per process.

    Raises:
        ServiceOutage: Label Studio, or the store, did not answer for as long as a flow waits.
    """
    settings = workspace.settings
    return wait_for(
        "Label Studio",
        lambda: _open_project(settings.review, settings.store),
        settings.work.outage_wait_s,
    )


def push_to_review(workspace: Workspace, asset_ids: Sequence[str]) -> list[Outcome]:
    """Make the review tasks of leased, proposed assets; returns the outcome of each."""
    if not asset_ids:
        return []
    results = push_assets(workspace, open_review_project(workspace), asset_ids, heal_asset)
    return [Outcome(r.asset_id, str(r.state), r.note, round(r.seconds, 3)) for r in results]


def pull_from_review(workspace: Workspace) -> list[Outcome]:
    """Fetch annotations once and compare finished double annotations; returns the outcomes."""
    project = open_review_project(workspace)
    try:
        replies = pull_annotations(workspace, project)
    except BlobDamaged:
        waiting = {row.asset_id for row in workspace.catalogue.reviews.list_uninterpreted()}
        if not [each for each in sorted(waiting) if heal_asset(workspace, each)]:
            raise
        replies = pull_annotations(workspace, project)
    adjudicated = adjudicate(workspace)
    compared = [Outcome(row.asset_id, row.result, row.detail) for row in adjudicated]
    return [*(_make_outcome(reply) for reply in replies), *compared]


def _make_outcome(reply: Reply) -> Outcome:
    detail = f"round {reply.round}, {reply.num_clicks} clicks, now {reply.state} {reply.note}"
    return Outcome(reply.asset_id, reply.verdict or "no verdict", detail.strip())


@lru_cache(maxsize=1)
def _open_project(review: ReviewSettings, store: StoreSettings) -> ReviewProject:
    return open_project(review, store)
