"""The review project as the flows use it: push a chunk, poll for annotations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from flows.runtime.report import Outcome
from tasks.quality.adjudication import settle
from tasks.review.project import Desk, open_desk
from tasks.review.pull import Reply, pull_annotations
from tasks.review.push import push_assets
from tasks.settings import ReviewSettings, StoreSettings
from tasks.workspace import Workspace


def desk_of(workspace: Workspace) -> Desk:
    """Open the project that the settings name; checked once per process."""
    return _desk(workspace.settings.review, workspace.settings.store)


def push_to_desk(workspace: Workspace, asset_ids: Sequence[str]) -> list[Outcome]:
    """Make the review tasks of leased, proposed assets; returns the outcome of each."""
    if not asset_ids:
        return []
    results = push_assets(workspace, desk_of(workspace), asset_ids)
    return [Outcome(r.asset_id, str(r.state), r.note, round(r.seconds, 3)) for r in results]


def pull_from_desk(workspace: Workspace) -> list[Outcome]:
    """Fetch annotations once and compare finished double annotations; returns the outcomes."""
    replies = pull_annotations(workspace, desk_of(workspace))
    settled = settle(workspace)
    compared = [Outcome(row.asset_id, row.result, row.detail) for row in settled]
    return [*(_outcome(reply) for reply in replies), *compared]


def _outcome(reply: Reply) -> Outcome:
    detail = f"round {reply.round}, {reply.num_clicks} clicks, now {reply.state} {reply.note}"
    return Outcome(reply.asset_id, reply.verdict or "no verdict", detail.strip())


@lru_cache(maxsize=1)
def _desk(review: ReviewSettings, store: StoreSettings) -> Desk:
    return open_desk(review, store)
