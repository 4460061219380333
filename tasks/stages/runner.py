"""What every stage shares: its small result, and the runner that isolates errors.

`run_stage_safely` turns whatever goes wrong with one asset into a row of the catalogue. Only faults
of the infrastructure (network, database, full disk) are raised: they are no asset's fault.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from segvigen_model.errors import AssetRejected
from tasks.catalogue import AssetState, Catalogue, IllegalMove, LeaseLost
from tasks.errors import BlobDamaged, BlobMissing, is_device_error, is_transient_error
from tasks.stages.devices import note_success, record_device_fault
from tasks.stages.limits import limit_stage
from tasks.storage.s3_errors import is_s3_outage
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

# Repairs what is damaged of an asset: what was done, or "" (tasks.recovery.repair.heal_asset).
Heal = Callable[[Workspace, str], str]


@dataclass(frozen=True, slots=True)
class StageResult:
    """What became of one asset in one stage.

    Attributes:
        is_done: the stage moved the asset; False when there was nothing to do, or it failed.
        state: where the asset stands now.
        key, sha256: the blob that was written or found, if any.
        note: why nothing was done, or what was rejected.
    """

    asset_id: str
    stage: str
    state: AssetState
    is_done: bool
    key: str | None = None
    sha256: str | None = None
    seconds: float = 0.0
    note: str = ""


def make_not_needed_result(stage: str, catalogue: Catalogue, asset_id: str) -> StageResult:
    """Build the result of a stage that finds the asset already elsewhere."""
    state = catalogue.get_asset(asset_id).state
    return StageResult(asset_id, stage, state, False, note=f"asset is {state}")


def run_stage_safely(
    workspace: Workspace,
    stage: str,
    asset_id: str,
    action: Callable[[], StageResult],
    heal: Heal | None = None,
) -> StageResult:
    """Run one stage on one leased asset so that no fault of the asset gets out.

    Args:
        workspace: its worker holds the lease; its catalogue records faults.
        stage: its name, for the log.
        asset_id: the asset.
        action: the stage, ready to run.
        heal: called where a blob of the asset is damaged or missing.

    Returns:
        The stage's result, or what was recorded instead: rejected, failed, healed or still waiting.

    Raises:
        Exception: infrastructure errors (`is_transient_error`); the lease is given back.
        SickDevice: the device failed; the lease is given back, and the process should end.
    """
    begin = time.perf_counter()
    catalogue, worker = workspace.catalogue, workspace.lease_owner
    settings = workspace.settings.work
    try:
        catalogue.start(asset_id, worker)
        with limit_stage(settings.stage_seconds, _get_memory_limit(workspace)):
            result = action()
        # Where the chunk's death comes later, it is not this asset's: see `Catalogue.claim`.
        catalogue.end(asset_id, worker)
        if result.is_done:
            note_success(workspace, stage)
        return result
    except Exception as err:
        if is_device_error(err):
            raise record_device_fault(workspace, asset_id, err) from err
        note = _heal(workspace, asset_id, err, heal)
        if not note and is_transient_error(err):
            catalogue.release([asset_id], worker)
            raise
        note = note or _record_fault(workspace, asset_id, err)
    seconds = time.perf_counter() - begin
    log.warning("stage=%s asset=%s seconds=%.2f note=%s", stage, asset_id[:12], seconds, note)
    state = catalogue.get_asset(asset_id).state
    return StageResult(asset_id, stage, state, False, seconds=seconds, note=note)


def _get_memory_limit(workspace: Workspace) -> float | None:
    """GiB that a stage may take; None on a GPU, whose driver maps more than there is."""
    is_cpu = workspace.settings.model.device == "cpu"
    return workspace.settings.work.stage_gib if is_cpu else None


def _heal(workspace: Workspace, asset_id: str, error: Exception, heal: Heal | None) -> str:
    """Repair an asset whose blob is damaged or gone; "" if that is not what is wrong."""
    is_blob = isinstance(error, (BlobDamaged, BlobMissing)) and not is_s3_outage(error)
    if heal is None or not is_blob:
        return ""
    note = heal(workspace, asset_id)
    if note:
        workspace.catalogue.release([asset_id], workspace.lease_owner)
        return f"{note} (after {type(error).__name__}: {error})"
    return ""


def _record_fault(workspace: Workspace, asset_id: str, error: Exception) -> str:
    """Write what went wrong into the catalogue, unless another worker has taken over."""
    catalogue, worker = workspace.catalogue, workspace.lease_owner
    max_attempts = workspace.settings.work.max_attempts
    try:
        if isinstance(error, AssetRejected):
            reason, detail = error.reason, error.message
            catalogue.move(
                asset_id, AssetState.REJECTED, reason=reason, detail=detail, worker=worker
            )
            return str(error)
        if isinstance(error, (LeaseLost, IllegalMove)):
            catalogue.release([asset_id], worker)
            return str(error)  # another worker was faster: its result counts
        note = f"{type(error).__name__}: {error}"
        log.error("asset=%s failed", asset_id[:12], exc_info=error)
        catalogue.record_failure(asset_id, note, max_attempts=max_attempts, worker=worker)
        return note
    except (LeaseLost, IllegalMove) as late:
        return f"{late} (after {type(error).__name__}: {error})"
