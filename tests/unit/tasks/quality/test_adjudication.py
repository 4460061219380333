"""Second looks, known tasks and audits: what comparing answers leads to, also when run again."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from segvigen_model.evaluation.metrics import boundary_f1, miou_mutual
from segvigen_model.surface.geometry import surface_of
from tasks.catalogue import AssetState, FindingKind
from tasks.labelling.label_sets import load_label_set
from tasks.labelling.lineage import lineage_of
from tasks.labelling.loading import current_proposal, load_asset_mesh, load_proposal
from tasks.quality import adjudication, copies
from tasks.quality.adjudication import disputed_faces
from tasks.quality.copies import known_labels, plan_copies, second_look
from tasks.quality.queue import num_free_places
from tasks.quality.third_review import find_disputed, mark_disputed, striped, third_look_title
from tasks.settings import GateSettings, QualitySettings
from tasks.shards.build import build_shards
from tasks.stages.refine import replay_labels

QUALITY = QualitySettings(double_share=1.0, known_share=0.0)
OPEN_GATE = GateSettings(
    accept_confidence=0.5, audit_share=1, min_draws=1, min_parts=1, min_part_area=0
)
ANN, BOB, EVE = "ann@local.test", "bob@local.test", "eve@local.test"
BOXES = 3


def pair(desk, make_boxes):
    asset = desk.proposed(make_boxes)
    (copy_id,) = plan_copies(desk.world.with_settings(quality=QUALITY), asset)
    return asset, desk.asset(copy_id)


def test_a_second_look_is_an_asset_like_any_other(desk, make_boxes):
    asset, copy = pair(desk, make_boxes)
    assert copy.state is AssetState.PROPOSED and copy.round == 0
    assert len(copy.asset_id) == 64 and copy.asset_id != asset.asset_id
    assert (copy.name, copy.num_faces, copy.licence) == (asset.name, asset.num_faces, asset.licence)
    mine, other = (current_proposal(desk.world.catalogue, row) for row in (asset, copy))
    assert mine.sha256 == other.sha256 and asset.asset_id not in other.key
    same = load_proposal(desk.world.store, other).face_labels
    assert np.array_equal(same, load_proposal(desk.world.store, mine).face_labels)
    assert load_asset_mesh(desk.world.store, copy).num_faces == asset.num_faces
    assert plan_copies(desk.world.with_settings(quality=QUALITY), asset) == [], "once"
    assert plan_copies(desk.world.with_settings(quality=QualitySettings()), copy) == [], (
        "off by default"
    )


def test_a_copy_begun_and_killed_is_made_whole_by_the_next_try(desk, make_boxes, monkeypatch):
    asset = desk.proposed(make_boxes)
    with monkeypatch.context() as patched:

        def killed(*_, **__):
            raise KeyboardInterrupt

        patched.setattr(type(desk.world.catalogue), "add_proposal", killed)
        with pytest.raises(KeyboardInterrupt):
            second_look(desk.workspace, asset)
    assert desk.world.catalogue.quality.copies() == []
    assert len(desk.world.catalogue.assets()) == 1
    assert len(second_look(desk.workspace, asset)) == 1


def test_an_accepted_asset_waits_for_its_second_reviewer(desk, make_boxes):
    asset, copy = pair(desk, make_boxes)
    desk.answer(asset.asset_id, "accept", ANN)
    assert desk.asset(asset.asset_id).state is AssetState.IN_REVIEW
    assert desk.settled_twice() == []
    desk.answer(copy.asset_id, "accept", BOB)
    assert desk.settled_twice() == [("two looks agree", asset.asset_id)]
    assert desk.asset(asset.asset_id).state is AssetState.ACCEPTED
    found = desk.finding(asset, FindingKind.SECOND)
    assert (found.reviewer, found.other, found.is_good, found.note) == (ANN, BOB, True, "")
    assert found.iou == pytest.approx(1) and found.boundary_f1 == 1
    assert desk.world.catalogue.labels.latest(asset.asset_id).decided_by == ANN


def test_a_held_asset_takes_no_place_that_its_second_look_needs(desk, make_boxes):
    workspace = desk.world.with_settings(quality={"max_open_tasks": 1})
    asset, copy = pair(desk, make_boxes)
    catalogue = desk.world.catalogue
    desk.answer(asset.asset_id, None, ANN)
    assert num_free_places(workspace) == 0, "nobody has decided yet"
    catalogue.move(asset.asset_id, "proposed")
    desk.answer(asset.asset_id, "accept", ANN)
    assert desk.asset(asset.asset_id).state is AssetState.IN_REVIEW
    assert num_free_places(workspace) == 1
    catalogue.move(copy.asset_id, "in_review")
    assert num_free_places(workspace) == 0
    catalogue.move(copy.asset_id, "proposed")
    catalogue.move(asset.asset_id, "proposed")
    desk.answer(asset.asset_id, "refine", ANN)  # asked again: nothing usable was said
    assert num_free_places(workspace) == 0
    catalogue.move(asset.asset_id, "proposed")
    desk.answer(asset.asset_id, "accept", ANN)
    desk.answer(copy.asset_id, "reject", BOB)
    desk.settle()
    catalogue.move(asset.asset_id, "in_review")
    assert num_free_places(workspace) == 0, "the third look is a task again"


def test_it_does_not_matter_who_is_first(desk, make_boxes):
    asset, copy = pair(desk, make_boxes)
    desk.answer(copy.asset_id, "accept", BOB)
    assert desk.settled_twice() == []
    desk.answer(asset.asset_id, "accept", BOB)
    desk.settled_twice()
    assert desk.asset(asset.asset_id).state is AssetState.ACCEPTED
    assert desk.finding(asset, FindingKind.SECOND).note == "both looks are by one person"


def test_killed_between_accepting_and_the_finding(desk, make_boxes, monkeypatch):
    asset, copy = pair(desk, make_boxes)
    desk.answer(asset.asset_id, "accept", ANN)
    desk.answer(copy.asset_id, "accept", BOB)
    ledger = type(desk.world.catalogue.quality)
    original = ledger.add_finding

    def killed(self, row):
        if row.kind is FindingKind.SECOND:
            raise KeyboardInterrupt
        original(self, row)

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "add_finding", killed)
        with pytest.raises(KeyboardInterrupt):
            desk.settle()
    assert desk.asset(asset.asset_id).state is AssetState.ACCEPTED
    assert ("two looks agree", asset.asset_id) in desk.settled_twice()
    assert len(desk.world.catalogue.labels.all(asset.asset_id)) == 1


def test_two_looks_that_disagree_lead_to_a_third(desk, make_boxes):
    asset, copy = pair(desk, make_boxes)
    truth = desk.true_labels(asset)
    desk.answer(asset.asset_id, "accept", ANN)
    desk.answer(copy.asset_id, "accept", BOB, labels=np.where(truth == 2, 1, truth))
    assert desk.settled_twice() == [("third look", asset.asset_id)]
    again = desk.asset(asset.asset_id)
    assert (again.state, again.round) == (AssetState.PROPOSED, 1)
    shown = load_proposal(desk.world.store, current_proposal(desk.world.catalogue, again))
    assert np.array_equal(shown.face_labels, truth)
    row = current_proposal(desk.world.catalogue, again)
    assert lineage_of(row).third_look.reviewers == (ANN, BOB)
    assert "third look" in third_look_title(row)
    desk.answer(asset.asset_id, "accept", EVE)
    assert desk.asset(asset.asset_id).state is AssetState.ACCEPTED, "not held again"
    assert desk.settled_twice() == []
    found = desk.finding(asset, FindingKind.SECOND)
    assert not found.is_good and found.iou < 0.75


def test_merges_that_came_with_accept_count_in_both_looks(desk, make_boxes):
    asset, copy = pair(desk, make_boxes)
    truth = desk.true_labels(asset)
    desk.answer(asset.asset_id, "accept", ANN, merge=(0, 1))
    desk.answer(copy.asset_id, "accept", BOB)
    assert desk.settled_twice() == [("third look", asset.asset_id)]
    again = desk.asset(asset.asset_id)
    shown = load_proposal(desk.world.store, current_proposal(desk.world.catalogue, again))
    assert shown.num_parts == BOXES - 1, "the third sees what the first one accepted"
    assert len(np.unique(shown.face_labels[truth < 2])) == 1
    desk.answer(asset.asset_id, "accept", EVE)
    labels = load_label_set(
        desk.world.store, desk.world.catalogue.labels.latest(asset.asset_id)
    ).face_labels
    assert np.array_equal(labels, shown.face_labels)
    replayed = replay_labels(desk.workspace, asset.asset_id, desk.world.segmenter)
    assert np.array_equal(replayed.face_labels, labels)


def test_the_third_looks_sheet_marks_what_is_disputed(desk, make_boxes):
    asset, copy = pair(desk, make_boxes)
    truth = desk.true_labels(asset)
    desk.answer(asset.asset_id, "accept", ANN)
    desk.answer(copy.asset_id, "accept", BOB, labels=np.where(truth == 2, 1, truth))
    desk.settle()
    again = desk.asset(asset.asset_id)
    proposal = load_proposal(desk.world.store, current_proposal(desk.world.catalogue, again))
    mesh = load_asset_mesh(desk.world.store, again)
    face = np.full((60, 90), -1)
    for part in range(BOXES):
        face[10:50, 30 * part : 30 * part + 30] = np.flatnonzero(truth == part)[0]
    buffer = io.BytesIO()
    Image.new("RGB", (90, 60), (9, 9, 9)).save(buffer, "PNG")
    row = current_proposal(desk.world.catalogue, again)
    disputed = find_disputed(row, proposal.face_labels, mesh, desk.world.store)
    assert disputed.dtype == bool and disputed.any() and not disputed.all()
    png = mark_disputed(buffer.getvalue(), face, disputed)
    changed = (np.array(Image.open(io.BytesIO(png))) != 9).any(axis=2)
    assert not changed[:, :25].any()
    assert 0.1 < changed[10:50, 60:].mean() < 0.5 or 0.1 < changed[10:50, 32:58].mean() < 0.5
    plain = desk.world.catalogue.proposal(asset.asset_id, 0)
    assert find_disputed(plain, proposal.face_labels, mesh, desk.world.store) is None
    assert third_look_title(plain) == ""


def test_stripes_stay_in_their_region_and_its_border():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    region = np.zeros((40, 40), bool)
    region[10:30, 10:30] = True
    marked = np.array(Image.open(io.BytesIO(striped(buffer.getvalue(), region)))).any(axis=2)
    assert marked[10:30, 10:30].any() and not marked[10:30, 10:30].all()
    assert not marked[:8].any() and marked[9, 10:30].all()


@pytest.mark.parametrize(
    ("verdict", "result", "state", "round_"),
    [
        ("skip", "one look counts", AssetState.ACCEPTED, 0),
        ("reject", "third look", AssetState.PROPOSED, 1),
    ],
)
def test_a_second_reviewer_who_does_not_label(desk, make_boxes, verdict, result, state, round_):
    asset, copy = pair(desk, make_boxes)
    desk.answer(asset.asset_id, "accept", ANN)
    desk.answer(copy.asset_id, verdict, BOB)
    assert desk.settled_twice() == [(result, asset.asset_id)]
    now = desk.asset(asset.asset_id)
    assert (now.state, now.round) == (state, round_)
    found = desk.finding(asset, FindingKind.SECOND)
    words = {"skip": "no second opinion: reviewer_skipped", "reject": "rejected it: broken"}
    assert words[verdict] in found.note
    if verdict == "reject":
        row = current_proposal(desk.world.catalogue, now)
        assert "one rejected it" in third_look_title(row)


@pytest.mark.parametrize(("second", "is_good"), [("accept", False), ("reject", True)])
def test_a_first_reviewer_who_rejects_counts_and_contradiction_is_told(
    desk, make_boxes, second, is_good
):
    asset, copy = pair(desk, make_boxes)
    desk.answer(asset.asset_id, "reject", ANN)
    assert desk.settled_twice() == []
    desk.answer(copy.asset_id, second, BOB)
    told = desk.settled_twice()
    assert told == ([] if is_good else [("reviewers disagree", asset.asset_id)])
    assert desk.asset(asset.asset_id).state is AssetState.REJECTED
    assert desk.finding(asset, FindingKind.SECOND).is_good is is_good


def test_copies_never_enter_shards_or_counts(desk, make_boxes):
    asset, copy = pair(desk, make_boxes)
    desk.answer(asset.asset_id, "accept", ANN)
    desk.answer(copy.asset_id, "accept", BOB)
    desk.settle()
    counts = desk.world.catalogue.quality.dataset_counts()
    assert counts[AssetState.ACCEPTED] == 1 and sum(counts.values()) == 1
    build = build_shards(desk.workspace)
    assert copy.asset_id not in {name for name, _ in build.failed}
    assert {name for name, _ in build.failed} <= {asset.asset_id}


def test_one_that_cannot_be_compared_is_told_and_stops_no_other(desk, make_boxes, monkeypatch):
    first, second = desk.proposed(make_boxes), desk.proposed(make_boxes)
    for asset in (first, second):
        desk.answer(asset.asset_id, "accept", ANN)
    original = adjudication.load_label_set

    def broken(store, row):
        if row.asset_id == first.asset_id:
            raise ValueError("no such array")
        return original(store, row)

    monkeypatch.setattr(adjudication, "load_label_set", broken)
    assert desk.settle() == [("failed", first.asset_id)]
    assert desk.finding(second, FindingKind.GAIN).iou == pytest.approx(1)


def test_disputed_faces_do_not_hang_on_numbering():
    areas = np.ones(6)
    first, second = np.array([0, 0, 1, 1, 2, 2]), np.array([5, 5, 0, 0, 0, 9])
    assert disputed_faces(first, second, areas).tolist() == [False] * 4 + [True, False]
    assert not disputed_faces(first, first[::-1], areas).any()


def test_mutual_agreement_is_symmetric_and_bounded(desk, make_boxes):
    asset = desk.proposed(make_boxes)
    surface = surface_of(load_asset_mesh(desk.world.store, asset))
    rng = np.random.default_rng(0)
    for _ in range(10):
        a, b = rng.integers(0, 4, (2, surface.num_faces))
        one = miou_mutual(a, b, surface.areas)
        assert one == pytest.approx(miou_mutual(b, a, surface.areas)) and 0 <= one <= 1
        assert boundary_f1(a, b, surface) == pytest.approx(boundary_f1(b, a, surface))
        assert miou_mutual(a, a + 7, surface.areas) == pytest.approx(1)


def test_copies_say_what_is_missing(desk, make_boxes):
    asset = desk.proposed(make_boxes)
    (copy_id,) = second_look(desk.workspace, asset)
    with pytest.raises(copies.StageError, match="has no known labels"):
        known_labels(desk.world.store, desk.world.catalogue.quality.copy(copy_id))
    desk.world.raw.put("new.glb", make_boxes(2, 99.0))
    desk.world.ingest()
    fresh = desk.world.catalogue.assets("registered")[-1]
    with pytest.raises(copies.StageError, match="has no first proposal; propose it first"):
        second_look(desk.workspace, fresh)
