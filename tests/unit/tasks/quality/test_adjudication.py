"""Double annotations, gold tasks and audits: what a comparison leads to, also when run again."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segvigen_model.evaluation.metrics import compute_boundary_f1, compute_miou_mutual
from segvigen_model.surface.geometry import measure_surface
from tasks.catalogue import AssetState, FindingKind
from tasks.labelling.label_sets import load_label_set
from tasks.labelling.lineage import lineage_of
from tasks.labelling.loading import get_current_proposal, load_asset_mesh, load_proposal
from tasks.quality import adjudication, copies
from tasks.quality.adjudication import find_disputed_faces
from tasks.quality.copies import add_double_annotation, load_gold_labels, plan_copies
from tasks.quality.queue import count_free_places
from tasks.quality.third_review import (
    draw_stripes,
    find_disputed,
    make_third_review_title,
    mark_disputed,
)
from tasks.settings import GateSettings, QualitySettings
from tasks.shards.build import build_shards
from tasks.stages.refine import replay_labels

QUALITY = QualitySettings(double_share=1.0, gold_share=0.0)
OPEN_GATE = GateSettings(
    accept_confidence=0.5, audit_share=1, min_draws=1, min_parts=1, min_part_area=0
)
ANN, BOB, EVE = "ann@local.test", "bob@local.test", "eve@local.test"
BOXES = 3


def make_pair(scenario, make_boxes):
    asset = scenario.add_proposed(make_boxes)
    (copy_id,) = plan_copies(scenario.pipeline.with_settings(quality=QUALITY), asset)
    return asset, scenario.get_asset(copy_id)


def test_a_double_annotation_is_an_asset_like_any_other(scenario, make_boxes):
    asset, copy = make_pair(scenario, make_boxes)
    assert copy.state is AssetState.PROPOSED and copy.round == 0
    assert len(copy.asset_id) == 64 and copy.asset_id != asset.asset_id
    assert (copy.name, copy.num_faces, copy.licence) == (asset.name, asset.num_faces, asset.licence)
    own_copy, other = (
        get_current_proposal(scenario.pipeline.catalogue, row) for row in (asset, copy)
    )
    assert own_copy.sha256 == other.sha256 and asset.asset_id not in other.key
    same = load_proposal(scenario.pipeline.store, other).face_labels
    assert np.array_equal(same, load_proposal(scenario.pipeline.store, own_copy).face_labels)
    assert load_asset_mesh(scenario.pipeline.store, copy).num_faces == asset.num_faces
    assert plan_copies(scenario.pipeline.with_settings(quality=QUALITY), asset) == [], "once"
    assert plan_copies(scenario.pipeline.with_settings(quality=QualitySettings()), copy) == [], (
        "off by default"
    )


def test_a_copy_begun_and_killed_is_made_whole_by_the_next_try(scenario, make_boxes, monkeypatch):
    asset = scenario.add_proposed(make_boxes)
    with monkeypatch.context() as patched:

        def killed(*_, **__):
            raise KeyboardInterrupt

        patched.setattr(type(scenario.pipeline.catalogue), "add_proposal", killed)
        with pytest.raises(KeyboardInterrupt):
            add_double_annotation(scenario.workspace, asset)
    assert scenario.pipeline.catalogue.quality.list_copies() == []
    assert len(scenario.pipeline.catalogue.list_assets()) == 1
    assert len(add_double_annotation(scenario.workspace, asset)) == 1


def test_an_accepted_asset_waits_for_its_second_reviewer(scenario, make_boxes):
    asset, copy = make_pair(scenario, make_boxes)
    scenario.record_annotation(asset.asset_id, "accept", ANN)
    assert scenario.get_asset(asset.asset_id).state is AssetState.IN_REVIEW
    assert scenario.adjudicate_twice() == []
    scenario.record_annotation(copy.asset_id, "accept", BOB)
    assert scenario.adjudicate_twice() == [("two annotations agree", asset.asset_id)]
    assert scenario.get_asset(asset.asset_id).state is AssetState.ACCEPTED
    found = scenario.get_finding(asset, FindingKind.DOUBLE)
    assert (found.reviewer, found.other, found.is_good, found.note) == (ANN, BOB, True, "")
    assert found.iou == pytest.approx(1) and found.boundary_f1 == 1
    assert scenario.pipeline.catalogue.labels.get_latest(asset.asset_id).decided_by == ANN


def test_a_held_asset_takes_no_place_that_its_double_annotation_needs(scenario, make_boxes):
    workspace = scenario.pipeline.with_settings(quality={"max_open_tasks": 1})
    asset, copy = make_pair(scenario, make_boxes)
    catalogue = scenario.pipeline.catalogue
    scenario.record_annotation(asset.asset_id, None, ANN)
    assert count_free_places(workspace) == 0, "nobody has decided yet"
    catalogue.move(asset.asset_id, "proposed")
    scenario.record_annotation(asset.asset_id, "accept", ANN)
    assert scenario.get_asset(asset.asset_id).state is AssetState.IN_REVIEW
    assert count_free_places(workspace) == 1
    catalogue.move(copy.asset_id, "in_review")
    assert count_free_places(workspace) == 0
    catalogue.move(copy.asset_id, "proposed")
    catalogue.move(asset.asset_id, "proposed")
    scenario.record_annotation(
        asset.asset_id, "refine", ANN
    )  # asked again: nothing usable was said
    assert count_free_places(workspace) == 0
    catalogue.move(asset.asset_id, "proposed")
    scenario.record_annotation(asset.asset_id, "accept", ANN)
    scenario.record_annotation(copy.asset_id, "reject", BOB)
    scenario.adjudicate()
    catalogue.move(asset.asset_id, "in_review")
    assert count_free_places(workspace) == 0, "the third review is a task again"


def test_it_does_not_matter_who_is_first(scenario, make_boxes):
    asset, copy = make_pair(scenario, make_boxes)
    scenario.record_annotation(copy.asset_id, "accept", BOB)
    assert scenario.adjudicate_twice() == []
    scenario.record_annotation(asset.asset_id, "accept", BOB)
    scenario.adjudicate_twice()
    assert scenario.get_asset(asset.asset_id).state is AssetState.ACCEPTED
    assert (
        scenario.get_finding(asset, FindingKind.DOUBLE).note == "both annotations are by one person"
    )


def test_killed_between_accepting_and_the_finding(scenario, make_boxes, monkeypatch):
    asset, copy = make_pair(scenario, make_boxes)
    scenario.record_annotation(asset.asset_id, "accept", ANN)
    scenario.record_annotation(copy.asset_id, "accept", BOB)
    ledger = type(scenario.pipeline.catalogue.quality)
    original = ledger.add_finding

    def killed(self, row):
        if row.kind is FindingKind.DOUBLE:
            raise KeyboardInterrupt
        original(self, row)

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "add_finding", killed)
        with pytest.raises(KeyboardInterrupt):
            scenario.adjudicate()
    assert scenario.get_asset(asset.asset_id).state is AssetState.ACCEPTED
    assert ("two annotations agree", asset.asset_id) in scenario.adjudicate_twice()
    assert len(scenario.pipeline.catalogue.labels.list_all(asset.asset_id)) == 1


def test_two_annotations_that_disagree_lead_to_a_third(scenario, make_boxes):
    asset, copy = make_pair(scenario, make_boxes)
    truth = scenario.compute_true_labels(asset)
    scenario.record_annotation(asset.asset_id, "accept", ANN)
    scenario.record_annotation(copy.asset_id, "accept", BOB, labels=np.where(truth == 2, 1, truth))
    assert scenario.adjudicate_twice() == [("third review", asset.asset_id)]
    again = scenario.get_asset(asset.asset_id)
    assert (again.state, again.round) == (AssetState.PROPOSED, 1)
    shown = load_proposal(
        scenario.pipeline.store, get_current_proposal(scenario.pipeline.catalogue, again)
    )
    assert np.array_equal(shown.face_labels, truth)
    row = get_current_proposal(scenario.pipeline.catalogue, again)
    assert lineage_of(row).third_review.reviewers == (ANN, BOB)
    assert "third review" in make_third_review_title(row)
    provenance = dict(row.provenance)
    provenance["third_look"] = provenance.pop("third_review")
    earlier = replace(row, provenance=provenance)
    assert lineage_of(earlier) == lineage_of(row), "rows of version 0.1.0 are read"
    scenario.record_annotation(asset.asset_id, "accept", EVE)
    assert scenario.get_asset(asset.asset_id).state is AssetState.ACCEPTED, "not held again"
    assert scenario.adjudicate_twice() == []
    found = scenario.get_finding(asset, FindingKind.DOUBLE)
    assert not found.is_good and found.iou < 0.75


def test_merges_that_came_with_accept_count_in_both_annotations(scenario, make_boxes):
    asset, copy = make_pair(scenario, make_boxes)
    truth = scenario.compute_true_labels(asset)
    scenario.record_annotation(asset.asset_id, "accept", ANN, merge=(0, 1))
    scenario.record_annotation(copy.asset_id, "accept", BOB)
    assert scenario.adjudicate_twice() == [("third review", asset.asset_id)]
    again = scenario.get_asset(asset.asset_id)
    shown = load_proposal(
        scenario.pipeline.store, get_current_proposal(scenario.pipeline.catalogue, again)
    )
    assert shown.num_parts == BOXES - 1, "the third sees what the first one accepted"
    assert len(np.unique(shown.face_labels[truth < 2])) == 1
    scenario.record_annotation(asset.asset_id, "accept", EVE)
    labels = load_label_set(
        scenario.pipeline.store, scenario.pipeline.catalogue.labels.get_latest(asset.asset_id)
    ).face_labels
    assert np.array_equal(labels, shown.face_labels)
    replayed = replay_labels(scenario.workspace, asset.asset_id, scenario.pipeline.segmenter)
    assert np.array_equal(replayed.face_labels, labels)


def test_the_third_reviews_sheet_marks_what_is_disputed(scenario, make_boxes):
    asset, copy = make_pair(scenario, make_boxes)
    truth = scenario.compute_true_labels(asset)
    scenario.record_annotation(asset.asset_id, "accept", ANN)
    scenario.record_annotation(copy.asset_id, "accept", BOB, labels=np.where(truth == 2, 1, truth))
    scenario.adjudicate()
    again = scenario.get_asset(asset.asset_id)
    proposal = load_proposal(
        scenario.pipeline.store, get_current_proposal(scenario.pipeline.catalogue, again)
    )
    mesh = load_asset_mesh(scenario.pipeline.store, again)
    face = np.full((60, 90), -1)
    for part in range(BOXES):
        face[10:50, 30 * part : 30 * part + 30] = np.flatnonzero(truth == part)[0]
    buffer = io.BytesIO()
    Image.new("RGB", (90, 60), (9, 9, 9)).save(buffer, "PNG")
    row = get_current_proposal(scenario.pipeline.catalogue, again)
    disputed = find_disputed(row, proposal.face_labels, mesh, scenario.pipeline.store)
    assert disputed.dtype == bool and disputed.any() and not disputed.all()
    png = mark_disputed(buffer.getvalue(), face, disputed)
    changed = (np.array(Image.open(io.BytesIO(png))) != 9).any(axis=2)
    assert not changed[:, :25].any()
    assert 0.1 < changed[10:50, 60:].mean() < 0.5 or 0.1 < changed[10:50, 32:58].mean() < 0.5
    plain = scenario.pipeline.catalogue.get_proposal(asset.asset_id, 0)
    assert find_disputed(plain, proposal.face_labels, mesh, scenario.pipeline.store) is None
    assert make_third_review_title(plain) == ""


def test_stripes_stay_in_their_region_and_its_border():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    region = np.zeros((40, 40), bool)
    region[10:30, 10:30] = True
    marked = np.array(Image.open(io.BytesIO(draw_stripes(buffer.getvalue(), region)))).any(axis=2)
    assert marked[10:30, 10:30].any() and not marked[10:30, 10:30].all()
    assert not marked[:8].any() and marked[9, 10:30].all()


@pytest.mark.parametrize(
    ("verdict", "result", "state", "round_"),
    [
        ("skip", "one annotation counts", AssetState.ACCEPTED, 0),
        ("reject", "third review", AssetState.PROPOSED, 1),
    ],
)
def test_a_second_reviewer_who_does_not_label(scenario, make_boxes, verdict, result, state, round_):
    asset, copy = make_pair(scenario, make_boxes)
    scenario.record_annotation(asset.asset_id, "accept", ANN)
    scenario.record_annotation(copy.asset_id, verdict, BOB)
    assert scenario.adjudicate_twice() == [(result, asset.asset_id)]
    now = scenario.get_asset(asset.asset_id)
    assert (now.state, now.round) == (state, round_)
    found = scenario.get_finding(asset, FindingKind.DOUBLE)
    words = {"skip": "no second opinion: reviewer_skipped", "reject": "rejected it: broken"}
    assert words[verdict] in found.note
    if verdict == "reject":
        row = get_current_proposal(scenario.pipeline.catalogue, now)
        assert "one rejected it" in make_third_review_title(row)


@pytest.mark.parametrize(("second", "is_good"), [("accept", False), ("reject", True)])
def test_a_first_reviewer_who_rejects_counts_and_contradiction_is_reported(
    scenario, make_boxes, second, is_good
):
    asset, copy = make_pair(scenario, make_boxes)
    scenario.record_annotation(asset.asset_id, "reject", ANN)
    assert scenario.adjudicate_twice() == []
    scenario.record_annotation(copy.asset_id, second, BOB)
    reported = scenario.adjudicate_twice()
    assert reported == ([] if is_good else [("reviewers disagree", asset.asset_id)])
    assert scenario.get_asset(asset.asset_id).state is AssetState.REJECTED
    assert scenario.get_finding(asset, FindingKind.DOUBLE).is_good is is_good


def test_copies_never_enter_shards_or_counts(scenario, make_boxes):
    asset, copy = make_pair(scenario, make_boxes)
    scenario.record_annotation(asset.asset_id, "accept", ANN)
    scenario.record_annotation(copy.asset_id, "accept", BOB)
    scenario.adjudicate()
    counts = scenario.pipeline.catalogue.quality.count_dataset_assets()
    assert counts[AssetState.ACCEPTED] == 1 and sum(counts.values()) == 1
    build = build_shards(scenario.workspace)
    assert copy.asset_id not in {name for name, _ in build.failed}
    assert {name for name, _ in build.failed} <= {asset.asset_id}


def test_one_that_cannot_be_compared_is_reported_and_stops_no_other(
    scenario, make_boxes, monkeypatch
):
    first, second = scenario.add_proposed(make_boxes), scenario.add_proposed(make_boxes)
    for asset in (first, second):
        scenario.record_annotation(asset.asset_id, "accept", ANN)
    original = adjudication.load_label_set

    def broken(store, row):
        if row.asset_id == first.asset_id:
            raise ValueError("no such array")
        return original(store, row)

    monkeypatch.setattr(adjudication, "load_label_set", broken)
    assert scenario.adjudicate() == [("failed", first.asset_id)]
    assert scenario.get_finding(second, FindingKind.GAIN).iou == pytest.approx(1)


def test_disputed_faces_do_not_hang_on_numbering():
    areas = np.ones(6)
    first, second = np.array([0, 0, 1, 1, 2, 2]), np.array([5, 5, 0, 0, 0, 9])
    assert find_disputed_faces(first, second, areas).tolist() == [False] * 4 + [True, False]
    assert not find_disputed_faces(first, first[::-1], areas).any()


def test_mutual_agreement_is_symmetric_and_bounded(scenario, make_boxes):
    asset = scenario.add_proposed(make_boxes)
    surface = measure_surface(load_asset_mesh(scenario.pipeline.store, asset))
    rng = np.random.default_rng(0)
    for _ in range(10):
        a, b = rng.integers(0, 4, (2, surface.num_faces))
        one = compute_miou_mutual(a, b, surface.areas)
        assert one == pytest.approx(compute_miou_mutual(b, a, surface.areas)) and 0 <= one <= 1
        assert compute_boundary_f1(a, b, surface) == pytest.approx(
            compute_boundary_f1(b, a, surface)
        )
        assert compute_miou_mutual(a, a + 7, surface.areas) == pytest.approx(1)


def test_copies_report_what_is_missing(scenario, make_boxes):
    asset = scenario.add_proposed(make_boxes)
    (copy_id,) = add_double_annotation(scenario.workspace, asset)
    with pytest.raises(copies.StageError, match="has no known labels"):
        load_gold_labels(
            scenario.pipeline.store, scenario.pipeline.catalogue.quality.get_copy(copy_id)
        )
    scenario.pipeline.raw.put("new.glb", make_boxes(2, 99.0))
    scenario.pipeline.ingest()
    fresh = scenario.pipeline.catalogue.list_assets("registered")[-1]
    with pytest.raises(copies.StageError, match="has no first proposal; propose it first"):
        add_double_annotation(scenario.workspace, fresh)
