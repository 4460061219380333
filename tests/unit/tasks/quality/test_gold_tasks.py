"""Known tasks and audits of the gate: what a wrong answer leads to, also when run again."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.catalogue import AssetState, CopyRole, FindingKind
from tasks.labelling.loading import load_asset_mesh
from tasks.quality.copies import known_labels, known_task, plan_copies
from tasks.quality.gate import gate_asset, gate_rules, trust
from tasks.settings import GateSettings, QualitySettings
from tasks.storage import keys

QUALITY = QualitySettings(double_share=1.0, known_share=0.0)
OPEN_GATE = GateSettings(
    accept_confidence=0.5, audit_share=1, min_draws=1, min_parts=1, min_part_area=0
)
ANN, BOB, EVE = "ann@local.test", "bob@local.test", "eve@local.test"


def test_a_gold_label_set_becomes_a_known_task_and_scores_its_reviewer(desk, make_boxes):
    gold = desk.proposed(make_boxes, shown=np.repeat([0, 1], [12, 24]))
    truth = desk.true_labels(gold)
    desk.answer(gold.asset_id, "accept", ANN, labels=truth)
    quality = desk.world.catalogue.quality
    assert quality.add_gold(desk.world.catalogue.labels.latest(gold.asset_id))
    assert not quality.add_gold(desk.world.catalogue.labels.latest(gold.asset_id))
    asset = desk.proposed(make_boxes)
    (known,) = known_task(desk.workspace, asset)
    assert known_task(desk.workspace, asset) == []
    row = desk.asset(known)
    assert (row.state, row.name) == (AssetState.PROPOSED, gold.name)
    assert np.array_equal(known_labels(desk.world.store, quality.copy(known)), truth)
    desk.settle()
    desk.answer(known, "accept", EVE)
    assert desk.settled_twice() == [("known task missed", known)]
    found = desk.finding(row, FindingKind.KNOWN)
    assert (found.reviewer, found.is_good) == (EVE, False)
    assert found.iou == pytest.approx(1.5 / 3)
    assert desk.asset(asset.asset_id).state is AssetState.PROPOSED, "nobody waits for it"


def test_without_gold_a_shape_made_in_code_is_the_known_task(desk, make_boxes):
    asset = desk.proposed(make_boxes)
    rules = QualitySettings(known_share=1.0)
    (known,) = plan_copies(desk.world.with_settings(quality=rules), asset)
    row = desk.asset(known)
    assert row.state is AssetState.REGISTERED and row.suffix == "glb"
    truth = known_labels(desk.world.store, desk.world.catalogue.quality.copy(known))
    mesh = load_asset_mesh(desk.world.store, row)
    assert len(truth) == mesh.num_faces == row.num_faces
    assert plan_copies(desk.world.with_settings(quality=rules), asset) == []
    assert not keys.known_labels(known).startswith("review/"), "the desk must not read it"
    desk.world.catalogue.move(known, "encoded")
    desk.propose(known, truth, 0)
    desk.answer(known, "reject", EVE)
    assert desk.settled_twice() == [("known task missed", known)]
    found = desk.finding(row, FindingKind.KNOWN)
    assert (found.iou, found.note) == (0.0, "rejected: broken")


def test_a_right_answer_to_a_known_task_is_not_worth_a_word(desk, make_boxes):
    asset = desk.proposed(make_boxes)
    (known,) = known_task(desk.workspace, asset)
    row = desk.asset(known)
    desk.world.catalogue.move(known, "encoded")
    truth = known_labels(desk.world.store, desk.world.catalogue.quality.copy(known))
    desk.propose(known, truth, 0)
    desk.answer(known, "accept", EVE)
    assert desk.settled_twice() == []
    assert desk.finding(row, FindingKind.KNOWN).iou == pytest.approx(1)


def gate(desk, asset, quality):
    workspace = desk.world.with_settings(gate=OPEN_GATE, quality=quality)
    return gate_asset(workspace, asset.asset_id)


def test_audits_that_contradict_the_gate_raise_what_it_asks_for(desk, make_boxes):
    plain = QualitySettings()
    workspace = desk.world.with_settings(gate=OPEN_GATE)
    catalogue = desk.world.catalogue
    assert trust(workspace).required == 0.5
    good = desk.proposed(make_boxes)
    assert gate(desk, good, plain).is_audited
    desk.answer(good.asset_id, "accept", ANN)
    assert desk.settled_twice(plain) == []
    assert trust(workspace).required == 0.5
    bad = desk.proposed(make_boxes, shown=np.repeat([0, 1], [12, 24]))
    assert gate(desk, bad, plain).is_audited
    desk.answer(bad.asset_id, "accept", ANN, labels=desk.true_labels(bad))
    assert desk.settled_twice(plain) == [("audit disagrees", bad.asset_id)]
    lowered = trust(workspace)
    assert (lowered.num_audits, lowered.num_misses, lowered.required) == (2, 1, 1.0)
    unsure = gate(desk, desk.proposed(make_boxes), plain)
    assert not unsure.is_accepted and "confidence 0.900 < 1" in unsure.doubts
    kinds = {found.kind for found in catalogue.quality.findings(asset_id=bad.asset_id)}
    assert kinds == {FindingKind.AUDIT, FindingKind.GAIN}


def test_a_rejected_audit_is_a_miss(desk, make_boxes):
    asset = desk.proposed(make_boxes)
    assert gate(desk, asset, QualitySettings()).is_audited
    desk.answer(asset.asset_id, "reject", ANN)
    assert desk.settled_twice() == [("audit disagrees", asset.asset_id)]


def test_the_gate_plans_copies_for_what_it_sends_to_review_and_judges_none(desk, make_boxes):
    asset = desk.proposed(make_boxes, confidence=0.1)
    gate(desk, asset, QUALITY)
    (copy,) = desk.world.catalogue.quality.copies(CopyRole.SECOND)
    decision = gate(desk, desk.asset(copy.asset_id), QUALITY)
    assert decision.doubts == ("made for review",) and not decision.is_audited
    assert len(desk.world.catalogue.quality.copies()) == 1, "no copy of a copy"
    condition = desk.world.catalogue.quality.is_ungated(gate_rules(OPEN_GATE))
    assert desk.world.catalogue.claim(["proposed"], 9, "w", where=condition) == []
    other = desk.world.catalogue.quality.is_ungated("other rules")
    assert len(desk.world.catalogue.claim(["proposed"], 9, "w", where=other)) == 2
