"""How a stage processes its assets: claim a chunk, work on each asset, record the outcome.

A fault of one asset is a recorded outcome and does not stop the flow. Infrastructure errors (store,
network, catalogue) count against no asset: the chunk is retried, then the flow fails. A killed run
leaves only leases, which expire; while a chunk is being processed, a thread renews them.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect import task
from sqlalchemy.exc import SQLAlchemyError

from flows.runtime.report import Outcome, Progress, StageReport, publish_report
from segvigen_model.errors import CheckpointMismatch, MissingExtra
from tasks.catalogue import AssetState
from tasks.errors import SickDevice, is_transient_error
from tasks.outages import ServiceOutage
from tasks.recovery.repair import heal_asset
from tasks.stages.devices import check_device, get_device_name
from tasks.stages.runner import StageResult, run_stage_safely
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

logger = logging.getLogger(__name__)

RETRY_DELAYS_S = [2.0, 10.0, 30.0]
RETRY_JITTER = 0.5
RENEWALS_A_LEASE = 3
MAX_IDLE_LEASES = 12  # without an outcome: the chunk has stalled, others may claim its assets

# Leased asset ids -> the outcome of each, one at a time.
ChunkWork = Callable[[Workspace, Sequence[str]], Iterable[Outcome]]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        name: as in reports.
        claims: states that it takes assets from.
        work: processes assets that the workspace's worker holds.
        where: condition on these assets, for a stage that leaves them in their state.
    """

    name: str
    claims: tuple[AssetState, ...]
    work: ChunkWork
    where: Callable[[Workspace], ColumnElement[bool]] | None = None


def asset_stage(
    name: str,
    claims: tuple[AssetState, ...],
    work: Callable[[Workspace, str], StageResult],
    where: Callable[[Workspace], ColumnElement[bool]] | None = None,
) -> Stage:
    """Make a stage that processes its assets one at a time: a fault of one stops no other.

    Args:
        name: as in reports.
        claims: states that it takes assets from.
        work: processes one asset.
        where: as for `Stage`.
    """

    def work_on_each(workspace: Workspace, asset_ids: Sequence[str]) -> Iterator[Outcome]:
        for asset_id in asset_ids:
            yield _work_on_asset(workspace, name, asset_id, work)

    return Stage(name, claims, work_on_each, where)


def run_stage(workspace: Workspace, stage: Stage, limit: int | None = None) -> StageReport:
    """Claim and process chunk after chunk of the waiting assets, one Prefect task per chunk.

    Assets that start to wait meanwhile are left to the next run.

    Args:
        workspace: store, catalogue, settings, and the leases' owner.
        stage: what to do.
        limit: at most so many assets.
    """
    started = time.monotonic()
    waiting = count_waiting(workspace, stage.claims)
    if waiting:
        check_device(workspace, stage.name)
    total = waiting if limit is None else min(waiting, limit)
    outcomes: dict[str, Outcome] = {}
    progress = Progress(stage.name, total)
    while len(outcomes) < total:
        before = len(outcomes)
        size = min(workspace.settings.work.chunk_size, total - before)
        try:
            _work_on_chunk(workspace, stage, size, outcomes, progress)
        except SickDevice:
            _end_worker_process()
            raise
        # What is left has failed in this run or is held by others: left to the next run.
        if len(outcomes) == before:
            break
    return publish_report(stage.name, list(outcomes.values()), time.monotonic() - started)


def _end_worker_process() -> None:
    """Have a process that Prefect's worker started for this run end with the code of a sick device.

    The run's state is reported before; other processes show the error themselves.
    """
    if os.environ.get("PREFECT__FLOW_RUN_ID"):
        atexit.register(os._exit, SickDevice.exit_code)


def count_waiting(workspace: Workspace, states: Sequence[AssetState]) -> int:
    """Count the assets in these states."""
    counts = workspace.catalogue.count_assets()
    return sum(counts[state] for state in states)


def make_io_task(name: str, run_name: str | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Make a Prefect task that is retried, with jitter, on transient I/O errors.

    Args:
        name: of the task.
        run_name: of this run, without braces; None lets Prefect choose one.
    """
    return task(
        name=name,
        task_run_name=run_name,
        retries=len(RETRY_DELAYS_S),
        retry_delay_seconds=RETRY_DELAYS_S,
        retry_jitter_factor=RETRY_JITTER,
        retry_condition_fn=_is_worth_a_retry,
        persist_result=False,
    )


def _is_worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    error = state.result(raise_on_failure=False)
    if isinstance(error, (MissingExtra, CheckpointMismatch, ServiceOutage)):
        return False  # waiting does not mend a wrong installation, or has been tried
    return isinstance(error, BaseException) and is_transient_error(error)


def _work_on_chunk(
    workspace: Workspace,
    stage: Stage,
    size: int,
    outcomes: dict[str, Outcome],
    progress: Progress,
) -> None:
    """Process one chunk as a Prefect task; a retry claims again and skips finished assets."""
    held: list[str] = []

    first = len(outcomes) + 1

    # No parameters but a number: Prefect copies and stores a task's parameters.
    @make_io_task(f"{stage.name}-chunk", f"{stage.name} {first} to {len(outcomes) + size}")
    def work_on_chunk(num_assets: int) -> None:
        held[:] = _claim(workspace, stage, num_assets, held)
        todo = [asset_id for asset_id in held if asset_id not in outcomes]
        try:
            with _renew_leases(workspace, held, lambda: len(outcomes)):
                for outcome in stage.work(workspace, todo):
                    outcomes[outcome.asset_id] = outcome
                    progress.advance()
        finally:
            if _release(workspace, held):
                held.clear()

    work_on_chunk(size)


def _claim(
    workspace: Workspace, stage: Stage, num_assets: int, held: Sequence[str]
) -> Sequence[str]:
    """Take back what an outage kept from being released, else claim; returns asset ids."""
    catalogue, rules, worker = workspace.catalogue, workspace.settings.work, workspace.lease_owner
    still_held = catalogue.renew(held, worker, rules.lease_s) if held else []
    if still_held:
        return still_held
    where = None if stage.where is None else stage.where(workspace)
    if not check_device(workspace, stage.name):  # what it failed on is another device's to try
        is_usable = catalogue.devices.is_without_fault(get_device_name(workspace))
        where = is_usable if where is None else where & is_usable
    claimed = catalogue.claim(
        stage.claims, num_assets, worker, rules.lease_s, rules.max_deaths, where
    )
    return [asset.asset_id for asset in claimed]


def _release(workspace: Workspace, held: Sequence[str]) -> bool:
    """Give leases back; False while the catalogue cannot be reached, so that they stay held."""
    try:
        workspace.catalogue.release(held, workspace.lease_owner)
    except SQLAlchemyError as err:  # what the chunk itself met is the error to report
        logger.warning("leases=%d not released: %s", len(held), err)
        return False
    return True


@contextmanager
def _renew_leases(
    workspace: Workspace, asset_ids: Sequence[str], num_outcomes: Callable[[], int]
) -> Iterator[None]:
    """Renew leases while the block runs, unless it yields no outcome for long."""
    lease_s, is_over = workspace.settings.work.lease_s, threading.Event()

    def renew() -> None:
        num_idle, before = 0, num_outcomes()
        while num_idle < MAX_IDLE_LEASES * RENEWALS_A_LEASE:
            if is_over.wait(lease_s / RENEWALS_A_LEASE):
                return
            now = num_outcomes()
            num_idle, before = (num_idle + 1 if now == before else 0), now
            try:
                workspace.catalogue.renew(asset_ids, workspace.lease_owner, lease_s)
            except SQLAlchemyError as err:  # the next renewal may succeed
                logger.warning("leases=%d not renewed: %s", len(asset_ids), err)
        logger.warning("leases=%d no outcome for too long: no longer renewed", len(asset_ids))

    thread = threading.Thread(target=renew, name="leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _work_on_asset(
    workspace: Workspace, name: str, asset_id: str, work: Callable[[Workspace, str], StageResult]
) -> Outcome:
    result = run_stage_safely(
        workspace, name, asset_id, partial(work, workspace, asset_id), heal_asset
    )
    logger.info(
        "stage=%s asset=%s state=%s seconds=%.2f note=%s",
        *(name, asset_id[:12], result.state, result.seconds, result.note),
    )
    return Outcome(asset_id, str(result.state), result.note, round(result.seconds, 3))
