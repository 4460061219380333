"""The gate: what is sure, what is audited, and why something is doubted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from segvigen_model.types import PartTable, Proposal
from tasks.catalogue import AssetState
from tasks.quality.gate import find_rejection_reasons, gate_asset, is_in_audit
from tasks.settings import GateSettings

OPEN_GATE = GateSettings(
    accept_confidence=0, audit_share=0, min_draws=1, min_parts=1, min_part_area=0, max_part_area=1
)


def test_the_default_gate_sends_to_review(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    decision = gate_asset(pipeline.workspace, asset.asset_id)
    assert not decision.is_accepted
    assert decision.rejection_reasons
    assert pipeline.catalogue.get_asset(asset.asset_id).state is AssetState.PROPOSED


def test_a_sure_proposal_is_accepted_without_review(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    workspace = pipeline.with_settings(gate=OPEN_GATE)
    decision = gate_asset(workspace, asset.asset_id)
    assert decision.is_accepted
    row = pipeline.catalogue.labels.get_latest(asset.asset_id)
    assert (row.decided_by, row.num_rounds, row.num_clicks) == ("gate", 0, 0)
    again = gate_asset(workspace, asset.asset_id)
    assert again.rejection_reasons == ("state is accepted",)


def test_the_audit_reviews_sure_ones_too(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    audited = OPEN_GATE.model_copy(update={"audit_share": 1.0})
    decision = gate_asset(pipeline.with_settings(gate=audited), asset.asset_id)
    assert (decision.is_accepted, decision.is_audited) == (False, True)
    assert pipeline.catalogue.get_asset(asset.asset_id).state is AssetState.PROPOSED


def test_the_audit_share_is_a_share_and_stays() -> None:
    ids = [f"{number:064x}" for number in range(2000)]
    chosen = {i for i in ids if is_in_audit(i, 0.05)}
    assert 60 < len(chosen) < 140
    assert chosen <= {i for i in ids if is_in_audit(i, 0.1)}
    assert not any(is_in_audit(i, 0.0) for i in ids)
    assert all(is_in_audit(i, 1.0) for i in ids)


def test_rejection_reasons() -> None:
    good = Proposal(
        np.array([0, 1], np.int32),
        np.array([0], np.int32),
        np.ones(2, np.float32),
        0.99,
        num_draws=4,
    )
    assert find_rejection_reasons(good, GateSettings()) == ()
    cases = {
        "confidence": replace(good, confidence=0.5),
        "draws": replace(good, num_draws=1),
        "parts": replace(good, part_confidence=np.ones(51, np.float32), parts=PartTable()),
        "fell back": replace(good, fallbacks=("colour",)),
    }
    for word, proposal in cases.items():
        (reason,) = find_rejection_reasons(proposal, GateSettings())
        assert word in reason
