"""The queue: what is unsure and worth a look comes first, and chance has its share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.catalogue import (
    AssetRow,
    AssetState,
    Catalogue,
    FindingKind,
    FindingRow,
    ProposalRow,
    WaitingRow,
)
from tasks.quality.queue import compute_priorities, count_free_places, estimate_gain, rank_waiting
from tasks.settings import QualitySettings
from tasks.storage.keys import hash_uniform
from tasks.workspace import Workspace

NO_CHANCE = QualitySettings(exploration_share=0.0)


def name(number: int) -> str:
    return f"{number:064x}"


def rows(*confidences: float, round_: int = 0) -> list[WaitingRow]:
    return [WaitingRow(name(n), round_, 0.0, value) for n, value in enumerate(confidences)]


@pytest.fixture
def catalogue(pipeline) -> Catalogue:
    return pipeline.catalogue


@pytest.fixture
def workspace(pipeline) -> Workspace:
    return pipeline.with_settings(quality=NO_CHANCE)


def propose(catalogue: Catalogue, number: int, confidence: float, round_: int = 0) -> str:
    catalogue.register(AssetRow(name(number), AssetState.REGISTERED))
    catalogue.move(name(number), "encoded")
    catalogue.move(name(number), "proposed", round=round_)
    key = f"p/{number}"
    catalogue.add_proposal(ProposalRow(name(number), round_, key, "s", 2, confidence, "c"))
    return name(number)


def test_without_past_the_gain_is_the_uncertainty():
    found = compute_priorities(rows(0.9, 0.5, 0.1), [], 0.0)
    assert list(found.values()) == pytest.approx([0.01, 0.25, 0.81])


def test_past_reviews_of_like_confidence_outweigh_the_prior():
    past = [(0.3, 0.0)] * 50 + [(0.7, 0.6)] * 50
    gain = estimate_gain(np.array([0.3, 0.7]), past)
    assert gain[0] < 0.05 and gain[1] == pytest.approx(0.6, abs=0.03)
    found = compute_priorities(rows(0.3, 0.7), past, 0.0)
    assert found[name(1)] > found[name(0)], "unsure, but reviews never changed anything there"


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=6),
    st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_priorities_are_bounded_and_do_not_hang_on_the_order(confidences, past, share):
    waiting = rows(*confidences)
    found = compute_priorities(waiting, past, share)
    assert all(0 <= value <= 1 for value in found.values())
    assert compute_priorities(waiting[::-1], past, share) == pytest.approx(found)


def test_a_share_is_placed_by_chance_all_over_the_queue():
    waiting = rows(*np.linspace(0.01, 0.99, 400))
    plain, mixed = compute_priorities(waiting, [], 0.0), compute_priorities(waiting, [], 0.2)
    moved = [row for row in waiting if mixed[row.asset_id] != plain[row.asset_id]]
    assert 0.13 < len(moved) / 400 < 0.27
    sure = [row for row in moved if row.confidence > 0.8]
    ladder = np.median(list(plain.values()))
    assert any(mixed[row.asset_id] > ladder for row in sure), "sure ones come early, too"
    assert compute_priorities(waiting, [], 0.2) == mixed


def test_chance_differs_by_purpose_and_is_even():
    values = np.array([hash_uniform("double", name(n)) for n in range(500)])
    assert 0.4 < values.mean() < 0.6 and values.min() >= 0 and values.max() < 1
    assert (
        abs(np.corrcoef(values, [hash_uniform("known", name(n)) for n in range(500)])[0, 1]) < 0.15
    )


def test_claims_follow_the_ranking_and_ranking_again_writes_nothing(
    workspace, catalogue: Catalogue
):
    for number, confidence in enumerate((0.8, 0.2, 0.5)):
        propose(catalogue, number, confidence)
    refined = propose(catalogue, 7, 0.99, round_=1)
    assert rank_waiting(workspace) == 4
    claimed = catalogue.claim(["proposed"], 10, "w")
    assert [row.asset_id for row in claimed] == [refined, name(1), name(2), name(0)]
    events = len(catalogue.list_events())
    assert rank_waiting(workspace) == 0 and len(catalogue.list_events()) == events


def test_findings_of_reviews_change_the_ranking(workspace, catalogue: Catalogue):
    for number, confidence in enumerate((0.3, 0.6)):
        propose(catalogue, number, confidence)
    rank_waiting(workspace)
    for number in range(40):
        near, iou = (0.3, 1.0) if number % 2 else (0.6, 0.0)
        finding = FindingRow(name(100 + number), FindingKind.GAIN, "l", confidence=near, iou=iou)
        catalogue.quality.add_finding(finding)
    rank_waiting(workspace)
    found = {row.asset_id: row.priority for row in catalogue.quality.list_waiting()}
    assert found[name(1)] > found[name(0)]


def test_the_project_has_bounded_room(pipeline, catalogue: Catalogue):
    workspace = pipeline.with_settings(quality={"max_open_tasks": 2})
    for number in range(3):
        propose(catalogue, number, 0.5)
    assert count_free_places(workspace) == 2
    for number in range(3):
        catalogue.move(name(number), "in_review")
    assert count_free_places(workspace) == 0


def test_an_empty_queue_is_fine(workspace):
    assert rank_waiting(workspace) == 0
