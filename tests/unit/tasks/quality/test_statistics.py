"""The table of reviewers: sums, means, and whose answers count."""

from __future__ import annotations

import pytest

from tasks.catalogue import AnnotationRow, Catalogue, ClickRow, FindingKind, FindingRow
from tasks.quality.statistics import build_quality_state, build_reviewer_table, render_markdown

ANN, BOB = "ann@local.test", "bob|x@local.test"


@pytest.fixture
def catalogue(pipeline) -> Catalogue:
    return pipeline.catalogue


def name(number: int) -> str:
    return f"{number:064x}"


def answer(
    catalogue: Catalogue, number: int, reviewer: str, verdict: str, seconds: float, clicks: int = 0
) -> None:
    row = AnnotationRow(
        *(f"u{number}", f"2026-01-01T00:00:{number:02d}Z", 1, 1, name(number), 0, reviewer, {}),
        lead_time_s=seconds,
    )
    catalogue.reviews.record_annotation(row)
    made = [
        ClickRow(
            *(row.unique_id, row.updated_at, n, row.asset_id, 0, f"r{n}", "sheet", 1.5, 2.5),
            *("part 1", "belongs", 1, 42, 0.1, 0.2, 0.3),
        )
        for n in range(clicks)
    ]
    catalogue.reviews.interpret(row.unique_id, row.updated_at, verdict=verdict, clicks=made)


def test_one_row_a_person(catalogue: Catalogue):
    answer(catalogue, 1, ANN, "accept", 10)
    answer(catalogue, 2, ANN, "refine", 40, clicks=3)
    answer(catalogue, 3, ANN, "reject", 20)
    answer(catalogue, 4, BOB, "skip", 5)
    add = catalogue.quality.add_finding
    add(FindingRow(name(1), FindingKind.DOUBLE, "pair", ANN, BOB, False, 0.5))
    add(FindingRow(name(2), FindingKind.DOUBLE, "pair", ANN, BOB, True, 0.9))
    add(FindingRow(name(3), FindingKind.DOUBLE, "pair", ANN, ANN, True, 1.0))
    add(FindingRow(name(4), FindingKind.DOUBLE, "pair", ANN, "", True, None))
    add(FindingRow(name(5), FindingKind.GOLD, "l", ANN, iou=0.8))
    add(FindingRow(name(6), FindingKind.GOLD, "l", ANN, iou=0.6))
    add(FindingRow(name(7), FindingKind.GAIN, "l", ANN, iou=0.7))
    ann, bob = build_reviewer_table(catalogue)
    assert (ann.reviewer, ann.annotations, ann.seconds, ann.median_s, ann.clicks) == (
        ANN,
        3,
        70,
        20,
        3,
    )
    assert ann.verdicts == {"accept": 1, "refine": 1, "reject": 1}
    assert (ann.gold_iou, ann.num_gold) == (pytest.approx(0.7), 2)
    assert (ann.agreement, ann.num_pairs, ann.num_disputed) == (pytest.approx(0.7), 2, 1)
    assert (bob.annotations, bob.gold_iou, bob.agreement) == (1, None, pytest.approx(0.7))


def test_a_changed_answer_counts_once(catalogue: Catalogue):
    answer(catalogue, 1, ANN, "refine", 10, clicks=2)
    again = AnnotationRow("u1", "2026-01-02T00:00:00Z", 1, 1, name(1), 0, ANN, {}, 15.0)
    catalogue.reviews.record_annotation(again)
    catalogue.reviews.interpret("u1", again.updated_at, verdict="accept")
    (row,) = build_reviewer_table(catalogue)
    assert (row.annotations, row.seconds, row.clicks, row.verdicts) == (1, 15, 0, {"accept": 1})


def test_markdown_cannot_be_broken_by_a_name(pipeline, catalogue: Catalogue):
    answer(catalogue, 1, BOB, "accept", 60)
    state = build_quality_state(pipeline.workspace)
    lines = render_markdown(state["reviewers"]).splitlines()
    assert lines[2].startswith("| bob\\|x@local.test | 1 | 1.0 | 60 | 0 | 1 | 0 |")
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_nothing_yet_is_reported_as_nothing(pipeline):
    state = build_quality_state(pipeline.workspace)
    assert state["reviewers"] == [] and state["reviews"] == {"measured": 0, "mean_gain": None}
    assert state["audits"] == {"last": 0, "misses": 0, "required_confidence": 0.95}
    assert state["gold_tasks"]["mean_iou"] is None
