"""The gate after the first proposal: sure enough to skip the reviewer, or not.

A share of the sure ones is reviewed all the same (the audit), chosen by the asset's hash so that
running again decides the same. Refined rounds always go back to the reviewer who asked for them.
Audits count: each one that contradicts the gate raises the confidence that it asks for, and copies
made for quality control are never judged by it.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import numpy as np

from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import FloatArray, Proposal
from tasks.catalogue import AssetRow, AssetState, Catalogue, FindingKind, GateRow
from tasks.labelling.label_history import GATE
from tasks.labelling.label_sets import accept_asset
from tasks.labelling.loading import get_current_proposal, load_asset_mesh, load_proposal
from tasks.quality.copies import plan_copies
from tasks.settings import GateSettings
from tasks.storage.canonical import canonical_json
from tasks.storage.keys import hash_uniform
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

NUM_LAST_AUDITS = 20  # so many audits say how far the gate may be trusted
RULES_CHARS = 16


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What the gate said.

    Attributes:
        is_accepted: a label set was written.
        is_audited: sure, but reviewed all the same.
        rejection_reasons: why it is not sure; empty if it is.
    """

    asset_id: str
    is_accepted: bool
    is_audited: bool
    rejection_reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FusionWeights:
    """How far audits let the gate be trusted.

    Attributes:
        num_audits, num_misses: of the last ones; a miss is an audit that contradicts the gate.
        required: confidence that a proposal now needs; 1.0 at the highest.
    """

    num_audits: int
    num_misses: int
    required: float


def gate_asset(workspace: Workspace, asset_id: str) -> GateDecision:
    """Accept a sure first proposal; leave any other one proposed, for the reviewers.

    Args:
        workspace: gets the decision, the label set, and the copies that the asset calls for.
        asset_id: in state proposed; others are left alone. Leased, if the workspace has a worker.
    """
    catalogue, settings = workspace.catalogue, workspace.settings.gate
    asset = catalogue.get_asset(asset_id)
    if asset.state is not AssetState.PROPOSED:
        return GateDecision(asset_id, False, False, (f"state is {asset.state}",))
    source = get_current_proposal(catalogue, asset)
    reasons = _find_all_rejection_reasons(workspace, asset, load_proposal(workspace.store, source))
    is_audited = not reasons and is_in_audit(asset_id, settings.audit_share)
    is_accepted = not reasons and not is_audited
    _set_priority(asset, 1.0 - source.confidence, catalogue)
    if is_accepted:
        accept_asset(workspace, asset_id, GATE, is_leased=True)
    elif asset.round == 0 and catalogue.quality.get_copy(asset_id) is None:
        plan_copies(workspace, asset)
    row = GateRow(
        asset_id, asset.round, hash_gate_rules(settings), is_accepted, is_audited, reasons
    )
    catalogue.quality.add_decision(row)
    log.info("stage=gate asset=%s accepted=%s reasons=%s", asset_id[:12], is_accepted, reasons)
    return GateDecision(asset_id, is_accepted, is_audited, tuple(reasons))


def hash_gate_rules(settings: GateSettings) -> str:
    """Name of the settings that a decision was made by."""
    return hashlib.sha256(canonical_json(settings.model_dump()).encode()).hexdigest()[:RULES_CHARS]


def compute_audited_threshold(workspace: Workspace) -> FusionWeights:
    """What audits let the gate ask for.

    required = c + (1 - c) * min(1, misses / audits / max_audit_misses), with c the confidence of
    the settings and the last LAST_AUDITS audits: at `max_audit_misses` the gate is as good as shut.
    """
    audits = workspace.catalogue.quality.list_last_findings(FindingKind.AUDIT, NUM_LAST_AUDITS)
    misses = sum(not found.is_good for found in audits)
    lowered = min(1.0, misses / max(len(audits), 1) / workspace.settings.quality.max_audit_misses)
    base_confidence = workspace.settings.gate.accept_confidence
    return FusionWeights(len(audits), misses, base_confidence + (1.0 - base_confidence) * lowered)


def _find_all_rejection_reasons(
    workspace: Workspace, asset: AssetRow, proposal: Proposal
) -> list[str]:
    if asset.round > 0:
        return ["refined round"]
    if workspace.catalogue.quality.get_copy(asset.asset_id) is not None:
        return ["made for review"]
    required = {"accept_confidence": compute_audited_threshold(workspace).required}
    settings = workspace.settings.gate.model_copy(update=required)
    reasons = list(find_rejection_reasons(proposal, settings))
    if not reasons:
        areas = measure_surface(load_asset_mesh(workspace.store, asset)).areas
        reasons += _find_area_reasons(proposal, areas, settings)
    return reasons


def find_rejection_reasons(proposal: Proposal, settings: GateSettings) -> tuple[str, ...]:
    """Reasons not to trust a proposal, as far as the proposal alone tells."""
    reasons = []
    if proposal.num_draws < settings.min_draws:
        reasons.append(f"{proposal.num_draws} draws < {settings.min_draws}")
    if proposal.confidence < settings.accept_confidence:
        reasons.append(f"confidence {proposal.confidence:.3f} < {settings.accept_confidence:.3g}")
    if not settings.min_parts <= proposal.num_parts <= settings.max_parts:
        bounds = f"{settings.min_parts}..{settings.max_parts}"
        reasons.append(f"{proposal.num_parts} parts, not {bounds}")
    if proposal.fallbacks:
        reasons.append("the model fell back")
    return tuple(reasons)


def is_in_audit(asset_id: str, share: float) -> bool:
    """Is this asset in the audited share? The same answer for ever."""
    return hash_uniform("audit", asset_id) < share


def _find_area_reasons(proposal: Proposal, areas: FloatArray, settings: GateSettings) -> list[str]:
    sums = np.bincount(proposal.face_labels, weights=areas, minlength=proposal.num_parts)
    shares = sums / max(float(sums.sum()), np.finfo(float).tiny)
    reasons = []
    if shares.min() < settings.min_part_area:
        reasons.append(f"a part has {shares.min():.4f} of the surface")
    if shares.max() > settings.max_part_area:
        reasons.append(f"a part has {shares.max():.4f} of the surface")
    return reasons


def _set_priority(asset: AssetRow, priority: float, catalogue: Catalogue) -> None:
    if asset.priority != priority:
        catalogue.update(asset.asset_id, priority=priority)
