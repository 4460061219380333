"""The gate after the first proposal: sure enough to skip the reviewer, or not.

A share of the sure ones is reviewed all the same (the audit), chosen by the asset's hash so that
running again decides the same. Refined rounds always go back to the reviewer who asked for them.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import numpy as np

from segvigen_model.geometry import surface_of
from segvigen_model.types import FloatArray, Proposal
from tasks.assets import current_proposal, load_asset_mesh, load_proposal
from tasks.catalogue import AssetRow, AssetState, Catalogue
from tasks.labels import GATE, accept_asset
from tasks.settings import GateSettings
from tasks.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What the gate said.

    Attributes:
        is_accepted: a label set was written.
        is_audited: sure, but reviewed all the same.
        doubts: why it is not sure; empty if it is.
    """

    asset_id: str
    is_accepted: bool
    is_audited: bool
    doubts: tuple[str, ...] = ()


def gate_asset(
    asset_id: str,
    *,
    store: Store,
    catalogue: Catalogue,
    settings: GateSettings,
    worker: str | None = None,
) -> GateDecision:
    """Accept a sure first proposal; leave any other one proposed, the least sure ones first."""
    asset = catalogue.asset(asset_id)
    if asset.state is not AssetState.PROPOSED:
        return GateDecision(asset_id, False, False, (f"state is {asset.state}",))
    source = current_proposal(catalogue, asset)
    proposal = load_proposal(store, source)
    doubts = list(doubts_about(proposal, settings)) if asset.round == 0 else ["refined round"]
    if not doubts:
        doubts += _area_doubts(proposal, surface_of(load_asset_mesh(store, asset)).areas, settings)
    is_audited = not doubts and is_in_audit(asset_id, settings.audit_share)
    _order_queue(asset, 1.0 - source.confidence, catalogue)
    if not doubts and not is_audited:
        accept_asset(asset_id, store=store, catalogue=catalogue, decided_by=GATE, worker=worker)
    decision = GateDecision(asset_id, not doubts and not is_audited, is_audited, tuple(doubts))
    log.info("stage=gate asset=%s accepted=%s doubts=%s", asset_id[:12], not doubts, doubts)
    return decision


def doubts_about(proposal: Proposal, settings: GateSettings) -> tuple[str, ...]:
    """Reasons not to trust a proposal, as far as the proposal alone tells."""
    doubts = []
    draws = int(proposal.provenance.get("num_draws", 0))
    if draws < settings.min_draws:
        doubts.append(f"{draws} draws < {settings.min_draws}")
    if proposal.confidence < settings.accept_confidence:
        doubts.append(f"confidence {proposal.confidence:.3f} < {settings.accept_confidence}")
    if not settings.min_parts <= proposal.num_parts <= settings.max_parts:
        bounds = f"{settings.min_parts}..{settings.max_parts}"
        doubts.append(f"{proposal.num_parts} parts, not {bounds}")
    if proposal.provenance.get("fallbacks"):
        doubts.append("the model fell back")
    return tuple(doubts)


def is_in_audit(asset_id: str, share: float) -> bool:
    """Is this asset in the audited share? The same answer for ever."""
    digest = hashlib.sha256(f"audit:{asset_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _area_doubts(proposal: Proposal, areas: FloatArray, settings: GateSettings) -> list[str]:
    sums = np.bincount(proposal.face_labels, weights=areas, minlength=proposal.num_parts)
    shares = sums / max(float(sums.sum()), np.finfo(float).tiny)
    doubts = []
    if shares.min() < settings.min_part_area:
        doubts.append(f"a part has {shares.min():.4f} of the surface")
    if shares.max() > settings.max_part_area:
        doubts.append(f"a part has {shares.max():.4f} of the surface")
    return doubts


def _order_queue(asset: AssetRow, priority: float, catalogue: Catalogue) -> None:
    if asset.priority != priority:
        catalogue.update(asset.asset_id, priority=priority)
