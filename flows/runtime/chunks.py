"""How a stage works through its assets: claim a chunk, work on each asset, tell what happened.

One bad asset is a recorded outcome, never a dead flow. A world that does not answer (store,
network) is no asset's fault: the chunk is tried again, then the flow fails and nothing is counted
against the assets. A killed run leaves leases only, which end by themselves; while a chunk is at
work, a thread renews its leases.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import task
from sqlalchemy.exc import SQLAlchemyError

from flows.runtime.context import Context
from flows.runtime.report import Outcome, Progress, StageReport, publish
from segvigen_model.errors import CheckpointMismatch, MissingExtra
from tasks.catalogue import AssetState
from tasks.errors import is_surroundings
from tasks.stages.runner import StageResult, attempt

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

logger = logging.getLogger(__name__)

RETRY_DELAYS_S = [2.0, 10.0, 30.0]
RETRY_JITTER = 0.5
RENEWALS_A_LEASE = 3
MAX_SILENT_LEASES = 12  # so many without an outcome: stalled, its assets are for others

# Leased asset ids -> what became of each, told one by one.
ChunkWork = Callable[[Sequence[str]], Iterable[Outcome]]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of an asset's life.

    Attributes:
        name: told in reports.
        claims: states that it takes assets from.
        work: does it for one asset that the context's worker holds.
        where: which of these assets, for a stage that leaves them in their state.
    """

    name: str
    claims: tuple[AssetState, ...]
    work: Callable[[Context, str], StageResult]
    where: Callable[[Context], ColumnElement[bool]] | None = None


def run_stage(context: Context, stage: Stage, limit: int | None = None) -> StageReport:
    """Work on every asset that waits for `stage`, one by one; at most `limit` assets."""

    def work_on_each(asset_ids: Sequence[str]) -> Iterator[Outcome]:
        for asset_id in asset_ids:
            yield _work_on_asset(context, stage, asset_id)

    where = None if stage.where is None else stage.where(context)
    return run_chunks(context, stage.name, stage.claims, work_on_each, limit, where)


def run_chunks(
    context: Context,
    name: str,
    claims: Sequence[AssetState],
    work: ChunkWork,
    limit: int | None = None,
    where: ColumnElement[bool] | None = None,
) -> StageReport:
    """Claim chunk after chunk of what waits now and give each to `work`, as one Prefect task.

    Assets that come to wait while this runs are left to the next run.
    """
    started = time.monotonic()
    waiting = num_waiting(context, claims)
    total = waiting if limit is None else min(waiting, limit)
    progress = Progress(name, total)
    outcomes: dict[str, Outcome] = {}
    while len(outcomes) < total:
        before = len(outcomes)
        size = min(context.settings.work.chunk_size, total - before)
        _work_on_chunk(context, name, claims, size, work, outcomes, progress, where)
        # What is left has failed in this run or is held by others: the next run sees to it.
        if len(outcomes) == before:
            break
    return publish(name, list(outcomes.values()), time.monotonic() - started)


def num_waiting(context: Context, states: Sequence[AssetState]) -> int:
    """Assets that stand in one of these states."""
    counts = context.catalogue.counts()
    return sum(counts[state] for state in states)


def io_task(name: str) -> Callable[[Callable[..., Any]], Any]:
    """A Prefect task that is tried again, with jitter, when the world did not answer."""
    return task(
        name=name,
        retries=len(RETRY_DELAYS_S),
        retry_delay_seconds=RETRY_DELAYS_S,
        retry_jitter_factor=RETRY_JITTER,
        retry_condition_fn=_is_worth_a_retry,
        persist_result=False,
    )


def _is_worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    error = state.result(raise_on_failure=False)
    if isinstance(error, (MissingExtra, CheckpointMismatch)):
        return False  # a wrong set-up is not cured by waiting
    return isinstance(error, BaseException) and is_surroundings(error)


def _work_on_chunk(
    context: Context,
    name: str,
    claims: Sequence[AssetState],
    size: int,
    work: ChunkWork,
    outcomes: dict[str, Outcome],
    progress: Progress,
    where: ColumnElement[bool] | None,
) -> None:
    """One Prefect task; a retry claims again and goes on with what was not done."""
    catalogue, rules, worker = context.catalogue, context.settings.work, context.worker

    @io_task(f"{name}-chunk")
    def work_on_chunk(num_assets: int) -> None:
        claimed = catalogue.claim(
            claims, num_assets, worker, rules.lease_s, rules.max_attempts, where
        )
        held = [asset.asset_id for asset in claimed]
        try:
            with _renewing(context, held, lambda: len(outcomes)):
                for outcome in work([asset_id for asset_id in held if asset_id not in outcomes]):
                    outcomes[outcome.asset_id] = outcome
                    progress.advance()
        finally:
            catalogue.release(held, worker)

    work_on_chunk(size)


@contextmanager
def _renewing(
    context: Context, asset_ids: Sequence[str], num_outcomes: Callable[[], int]
) -> Iterator[None]:
    """Prolong leases while the work inside lasts, but not for ever when no outcome comes."""
    lease_s, is_over = context.settings.work.lease_s, threading.Event()

    def renew() -> None:
        silent, before = 0, num_outcomes()
        while silent < MAX_SILENT_LEASES * RENEWALS_A_LEASE:
            if is_over.wait(lease_s / RENEWALS_A_LEASE):
                return
            now = num_outcomes()
            silent, before = (silent + 1 if now == before else 0), now
            try:
                context.catalogue.renew(asset_ids, context.worker, lease_s)
            except SQLAlchemyError as err:  # the next one may come through
                logger.warning("leases=%d not renewed: %s", len(asset_ids), err)
        logger.warning("leases=%d no outcome for long: renewed no more", len(asset_ids))

    thread = threading.Thread(target=renew, name="leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _work_on_asset(context: Context, stage: Stage, asset_id: str) -> Outcome:
    result = attempt(
        stage.name,
        asset_id,
        lambda: stage.work(context, asset_id),
        catalogue=context.catalogue,
        worker=context.worker,
        max_attempts=context.settings.work.max_attempts,
    )
    logger.info(
        "stage=%s asset=%s state=%s seconds=%.2f note=%s",
        *(stage.name, asset_id[:12], result.state, result.seconds, result.note),
    )
    return Outcome(asset_id, str(result.state), result.note, round(result.seconds, 3))
