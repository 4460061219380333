"""Repair: make damaged blobs again in the order of their making, else re-queue, else report.

`repair` takes the faults of a scrub; `heal_asset` is called by a flow that met a damaged blob.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segvigen_model.errors import SegvigenError
from tasks.catalogue import AssetState
from tasks.checkpoints import load_segmenter
from tasks.errors import is_transient_error
from tasks.labelling.segmenter import Segmenter
from tasks.recovery.mending import CannotMend, Tools, mend
from tasks.recovery.needs import BlobKind, Need, list_asset_needs
from tasks.recovery.requeue import requeue_proposal
from tasks.recovery.scrub import Fault, find_fault, find_faults
from tasks.storage.store import BlobDamaged, BlobMissing
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

PLANS = {
    BlobKind.SOURCE: "fetch again from the raw bucket",
    BlobKind.SIDE_FILE: "fetch again from the raw bucket",
    BlobKind.ASSET_INFO: "ingest the raw object again",
    BlobKind.MESH: "parse the source again",
    BlobKind.GOLD: "make again in code",
    BlobKind.CHECKPOINT: "copy from this machine's cache",
    BlobKind.ENCODING: "encode again",
    BlobKind.PROPOSAL: "make again, or re-queue the asset",
    BlobKind.LABEL_SET: "decide again from the stored annotations",
    BlobKind.PROVENANCE: "decide again from the stored annotations, or take from a shard",
    BlobKind.REVIEW: "draw again",
    BlobKind.SHARD: "build the version again",
}


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of one damaged blob.

    Attributes:
        action: what was done, or why nothing could be.
        is_mended: the blob is whole, or is not needed any more.
    """

    need: Need
    fault: str
    action: str
    is_mended: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "key": self.need.key,
            "kind": self.need.kind,
            "asset": self.need.asset_id,
            "fault": self.fault,
            "action": self.action,
            "is_mended": self.is_mended,
        }


def repair(
    workspace: Workspace,
    faults: Sequence[Fault],
    *,
    open_segmenter: Callable[[], Segmenter] | None = None,
    is_dry_run: bool = False,
) -> list[Repair]:
    """Make damaged blobs again.

    Args:
        workspace: store, raw bucket, catalogue, settings.
        faults: of `scrub`.
        open_segmenter: loads the model where encodings or proposals need it; None = that of the
            settings.
        is_dry_run: say what would be tried, and change nothing.
    """
    order = list(BlobKind)
    ordered = sorted(faults, key=lambda each: (order.index(each.need.kind), each.need.round))
    if is_dry_run:
        return [Repair(each.need, each.fault, PLANS[each.need.kind], False) for each in ordered]
    tools = Tools(workspace, open_segmenter or (lambda: load_segmenter(workspace)))
    done = [_repair_blob(tools, fault) for fault in ordered]
    for each in done:
        log.warning(
            "stage=repair key=%s fault=%s mended=%s action=%s",
            *(each.need.key, each.fault, each.is_mended, each.action),
        )
    return done


def heal_asset(
    workspace: Workspace, asset_id: str, open_segmenter: Callable[[], Segmenter] | None = None
) -> str:
    """Find and repair what is damaged of one asset; "" if nothing is, or nothing could be done.

    What cannot be made again parks the asset, with the blob's name, unless it has labels.
    """
    faults = find_faults(workspace.store, list_asset_needs(workspace, [asset_id]))
    if not faults:
        return ""
    done = repair(workspace, faults, open_segmenter=open_segmenter)
    lost = [each for each in done if not each.is_mended]
    needed = [
        each
        for each in lost  # asked once more: a store that lies must park nothing
        if each.need.kind is not BlobKind.REVIEW and find_fault(workspace.store, each.need)[0]
    ]
    if needed and workspace.catalogue.get_asset(asset_id).state in _OPEN:
        detail = f"{needed[0].need.key}: {needed[0].action}"
        workspace.catalogue.move(
            asset_id, AssetState.FAILED, reason="blob_lost", detail=detail[:2000]
        )
        return f"parked: {detail}"
    if lost and len(lost) == len(done):
        return ""
    return "; ".join(f"{each.need.kind} {each.action}" for each in done)


def list_lost_labels(workspace: Workspace, done: Sequence[Repair]) -> list[str]:
    """Names of the assets whose accepted labels are lost."""
    kinds = (BlobKind.LABEL_SET, BlobKind.PROVENANCE)
    lost = {each.need.asset_id for each in done if not each.is_mended and each.need.kind in kinds}
    return sorted(workspace.catalogue.get_asset(asset_id).name for asset_id in lost)


_OPEN = frozenset(AssetState) - {
    *(AssetState.ACCEPTED, AssetState.SHARDED),
    *(AssetState.REJECTED, AssetState.FAILED, AssetState.SKIPPED),
}


def _repair_blob(tools: Tools, fault: Fault) -> Repair:
    need, workspace = fault.need, tools.workspace
    # An earlier repair may have made this one too, such as a round's three files.
    if not find_fault(workspace.store, need)[0]:
        return Repair(need, fault.fault, "whole by now", True)
    try:
        return Repair(need, fault.fault, mend(tools, need), True)
    except (CannotMend, BlobDamaged, BlobMissing) as err:
        problem = str(err)
    except Exception as err:
        if is_transient_error(err) or not isinstance(err, SegvigenError):
            raise
        problem = f"{type(err).__name__}: {err}"
    if need.kind is BlobKind.PROPOSAL:
        asset = workspace.catalogue.get_asset(need.asset_id)
        action = requeue_proposal(workspace.catalogue, asset, need.round)
        if action:
            workspace.store.delete(need.key)
            return Repair(need, fault.fault, f"{action} ({problem})", True)
    return Repair(need, fault.fault, problem, False)
