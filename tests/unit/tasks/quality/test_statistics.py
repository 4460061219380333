"""The table of reviewers: sums, means, and whose answers count."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    AssetState,
    Catalogue,
    ClickRow,
    FindingKind,
    FindingRow,
)
from tasks.quality.statistics import build_quality_state, render_markdown, write_tables

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


def reviewers(pipeline) -> list[SimpleNamespace]:
    return [SimpleNamespace(**row) for row in build_quality_state(pipeline.workspace)["reviewers"]]


def test_one_row_a_person(pipeline, catalogue: Catalogue):
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
    ann, bob = reviewers(pipeline)
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


def test_a_changed_answer_counts_once(pipeline, catalogue: Catalogue):
    answer(catalogue, 1, ANN, "refine", 10, clicks=2)
    again = AnnotationRow("u1", "2026-01-02T00:00:00Z", 1, 1, name(1), 0, ANN, {}, 15.0)
    catalogue.reviews.record_annotation(again)
    catalogue.reviews.interpret("u1", again.updated_at, verdict="accept")
    (row,) = reviewers(pipeline)
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


def test_the_state_is_json(pipeline, catalogue: Catalogue):
    answer(catalogue, 1, ANN, "accept", 10.04, clicks=2)
    catalogue.quality.add_finding(FindingRow(name(5), FindingKind.GOLD, "l", ANN, iou=2 / 3))
    (row,) = json.loads(json.dumps(build_quality_state(pipeline.workspace)))["reviewers"]
    assert row == {
        "reviewer": ANN,
        "annotations": 1,
        "seconds": 10.0,
        "median_s": 10.0,
        "clicks": 2,
        "verdicts": {"accept": 1},
        "gold_iou": 0.6667,
        "num_gold": 1,
        "agreement": None,
        "num_pairs": 0,
        "num_disputed": 0,
    }


@pytest.mark.parametrize("is_empty", [True, False])
def test_tables_are_read_back_as_they_were(pipeline, catalogue: Catalogue, tmp_path, is_empty):
    if not is_empty:
        catalogue.register(AssetRow(name(1), AssetState.REGISTERED, name="a.glb"))
        answer(catalogue, 1, ANN, "accept", 10, clicks=2)
        answer(catalogue, 2, BOB, "reject", 5)
        add = catalogue.quality.add_finding
        add(FindingRow(name(1), FindingKind.DOUBLE, "pair", ANN, BOB, False, 0.5, note="why"))
        add(FindingRow(name(2), FindingKind.DOUBLE, "pair", ANN, BOB, True, None))
    written = write_tables(catalogue, tmp_path / "new" / "tables")
    assert [file.stem for file in written] == ["assets", "annotations", "findings", "reviewers"]
    assets, annotations, findings, people = (pd.read_parquet(file) for file in written)
    for table in (assets, annotations, findings, people):
        assert table.empty == is_empty
    if not is_empty:
        assert assets["state"].tolist() == ["registered"] and assets["name"].tolist() == ["a.glb"]
        assert annotations["clicks"].tolist() == [2, 0]
        assert findings["kind"].tolist() == [str(FindingKind.DOUBLE)] * 2
        assert findings["iou"].isna().tolist() == [False, True]
        assert people["reviewer"].tolist() == [ANN, BOB]
        assert people["num_disputed"].tolist() == [1, 1]
