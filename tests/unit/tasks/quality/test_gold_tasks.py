"""Known tasks and audits of the gate: what a wrong answer leads to, also when run again."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tasks.catalogue import AssetState, CopyRole, FindingKind
from tasks.labelling.loading import load_asset_mesh
from tasks.quality.copies import add_gold_task, load_gold_labels, make_copy_id, plan_copies
from tasks.quality.gate import compute_audited_threshold, gate_asset, hash_gate_rules
from tasks.settings import GateSettings, QualitySettings
from tasks.storage import keys

QUALITY = QualitySettings(double_share=1.0, gold_share=0.0)
OPEN_GATE = GateSettings(
    accept_confidence=0.5, audit_share=1, min_draws=1, min_parts=1, min_part_area=0
)
ANN, BOB, EVE = "ann@local.test", "bob@local.test", "eve@local.test"


def test_a_gold_label_set_becomes_a_gold_task_and_scores_its_reviewer(scenario, make_boxes):
    gold = scenario.add_proposed(make_boxes, shown=np.repeat([0, 1], [12, 24]))
    truth = scenario.compute_true_labels(gold)
    scenario.record_annotation(gold.asset_id, "accept", ANN, labels=truth)
    quality = scenario.pipeline.catalogue.quality
    assert quality.add_gold(scenario.pipeline.catalogue.labels.get_latest(gold.asset_id))
    assert not quality.add_gold(scenario.pipeline.catalogue.labels.get_latest(gold.asset_id))
    asset = scenario.add_proposed(make_boxes)
    (known,) = add_gold_task(scenario.workspace, asset)
    assert add_gold_task(scenario.workspace, asset) == []
    row = scenario.get_asset(known)
    assert (row.state, row.name) == (AssetState.PROPOSED, gold.name)
    assert np.array_equal(load_gold_labels(scenario.pipeline.store, quality.get_copy(known)), truth)
    scenario.adjudicate()
    scenario.record_annotation(known, "accept", EVE)
    assert scenario.adjudicate_twice() == [("gold task missed", known)]
    found = scenario.get_finding(row, FindingKind.GOLD)
    assert (found.reviewer, found.is_good) == (EVE, False)
    assert found.iou == pytest.approx(1.5 / 3)
    assert scenario.get_asset(asset.asset_id).state is AssetState.PROPOSED, "nobody waits for it"


def test_ids_of_copies_stay_what_they_were():
    """Another id would copy every asset of a running project a second time."""
    for role, text in ((CopyRole.DOUBLE, "second"), (CopyRole.GOLD, "known")):
        expected = hashlib.sha256(f"segvigen-{text}:{'0a' * 32}".encode()).hexdigest()
        assert make_copy_id(role, "0a" * 32) == expected


def test_without_gold_a_shape_made_in_code_is_the_gold_task(scenario, make_boxes):
    asset = scenario.add_proposed(make_boxes)
    rules = QualitySettings(gold_share=1.0)
    (known,) = plan_copies(scenario.pipeline.with_settings(quality=rules), asset)
    row = scenario.get_asset(known)
    assert row.state is AssetState.REGISTERED and row.suffix == "glb"
    truth = load_gold_labels(
        scenario.pipeline.store, scenario.pipeline.catalogue.quality.get_copy(known)
    )
    mesh = load_asset_mesh(scenario.pipeline.store, row)
    assert len(truth) == mesh.num_faces == row.num_faces
    assert plan_copies(scenario.pipeline.with_settings(quality=rules), asset) == []
    assert not keys.make_gold_labels_key(known).startswith("review/"), (
        "Label Studio must not read it"
    )
    scenario.pipeline.catalogue.move(known, "encoded")
    scenario.propose(known, truth, 0)
    scenario.record_annotation(known, "reject", EVE)
    assert scenario.adjudicate_twice() == [("gold task missed", known)]
    found = scenario.get_finding(row, FindingKind.GOLD)
    assert (found.iou, found.note) == (0.0, "rejected: broken")


def test_a_right_answer_to_a_gold_task_is_not_worth_a_word(scenario, make_boxes):
    asset = scenario.add_proposed(make_boxes)
    (known,) = add_gold_task(scenario.workspace, asset)
    row = scenario.get_asset(known)
    scenario.pipeline.catalogue.move(known, "encoded")
    truth = load_gold_labels(
        scenario.pipeline.store, scenario.pipeline.catalogue.quality.get_copy(known)
    )
    scenario.propose(known, truth, 0)
    scenario.record_annotation(known, "accept", EVE)
    assert scenario.adjudicate_twice() == []
    assert scenario.get_finding(row, FindingKind.GOLD).iou == pytest.approx(1)


def run_gate(scenario, asset, quality):
    workspace = scenario.pipeline.with_settings(gate=OPEN_GATE, quality=quality)
    return gate_asset(workspace, asset.asset_id)


def test_audits_that_contradict_the_gate_raise_what_it_requires(scenario, make_boxes):
    plain = QualitySettings()
    workspace = scenario.pipeline.with_settings(gate=OPEN_GATE)
    catalogue = scenario.pipeline.catalogue
    assert compute_audited_threshold(workspace).required == 0.5
    good = scenario.add_proposed(make_boxes)
    assert run_gate(scenario, good, plain).is_audited
    scenario.record_annotation(good.asset_id, "accept", ANN)
    assert scenario.adjudicate_twice(plain) == []
    assert compute_audited_threshold(workspace).required == 0.5
    bad = scenario.add_proposed(make_boxes, shown=np.repeat([0, 1], [12, 24]))
    assert run_gate(scenario, bad, plain).is_audited
    scenario.record_annotation(
        bad.asset_id, "accept", ANN, labels=scenario.compute_true_labels(bad)
    )
    assert scenario.adjudicate_twice(plain) == [("audit disagrees", bad.asset_id)]
    lowered = compute_audited_threshold(workspace)
    assert (lowered.num_audits, lowered.num_misses, lowered.required) == (2, 1, 1.0)
    unsure = run_gate(scenario, scenario.add_proposed(make_boxes), plain)
    assert not unsure.is_accepted and "confidence 0.900 < 1" in unsure.rejection_reasons
    kinds = {found.kind for found in catalogue.quality.list_findings(asset_id=bad.asset_id)}
    assert kinds == {FindingKind.AUDIT, FindingKind.GAIN}


def test_a_rejected_audit_is_a_miss(scenario, make_boxes):
    asset = scenario.add_proposed(make_boxes)
    assert run_gate(scenario, asset, QualitySettings()).is_audited
    scenario.record_annotation(asset.asset_id, "reject", ANN)
    assert scenario.adjudicate_twice() == [("audit disagrees", asset.asset_id)]


def test_the_gate_plans_copies_for_what_it_sends_to_review_and_judges_none(scenario, make_boxes):
    asset = scenario.add_proposed(make_boxes, confidence=0.1)
    run_gate(scenario, asset, QUALITY)
    (copy,) = scenario.pipeline.catalogue.quality.list_copies(CopyRole.DOUBLE)
    decision = run_gate(scenario, scenario.get_asset(copy.asset_id), QUALITY)
    assert decision.rejection_reasons == ("made for review",) and not decision.is_audited
    assert len(scenario.pipeline.catalogue.quality.list_copies()) == 1, "no copy of a copy"
    condition = scenario.pipeline.catalogue.quality.is_ungated(hash_gate_rules(OPEN_GATE))
    assert scenario.pipeline.catalogue.claim(["proposed"], 9, "w", where=condition) == []
    other = scenario.pipeline.catalogue.quality.is_ungated("other rules")
    assert len(scenario.pipeline.catalogue.claim(["proposed"], 9, "w", where=other)) == 2
