"""`segvigen report` and `segvigen gold`."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from segvigen_model.command import options
from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    AssetState,
    Catalogue,
    CopyRole,
    CopyRow,
    FindingKind,
    FindingRow,
    LabelSetRow,
)

A, B = "a" * 64, "ab" + "c" * 62


@pytest.fixture
def catalogue(environment):
    return Catalogue(f"sqlite:///{environment}/catalogue.db")


def test_report_shows_people_and_checks(run, catalogue):
    row = AnnotationRow("u", "2026-01-01T00:00:00Z", 1, 1, A, 0, "[red]ann", {}, 30.0)
    catalogue.reviews.record_annotation(row)
    catalogue.reviews.interpret("u", row.updated_at, verdict="accept")
    found = FindingRow(A, FindingKind.GOLD, "l", "[red]ann", iou=0.5, is_good=False)
    catalogue.quality.add_finding(found)
    shown = run("report")
    assert shown.exit_code == 0
    assert "[red]ann" in shown.output and "0.50 (1)" in shown.output
    assert "it requires confidence 0.95" in shown.output
    reported = json.loads(run("report", "--json").output)
    assert reported["gold_tasks"]["missed"] == 1
    assert reported["reviewers"][0]["median_s"] == 30.0


def test_report_also_writes_tables(run, catalogue, tmp_path):
    catalogue.register(AssetRow(A, AssetState.REGISTERED, name="a.glb"))
    shown = run("report", "--json", "--tables", str(tmp_path / "tables"))
    assert shown.exit_code == 0 and json.loads(shown.stdout)["reviewers"] == []
    assert pd.read_parquet(tmp_path / "tables" / "assets.parquet")["name"].tolist() == ["a.glb"]


def test_gold_marks_one_label_set_or_reports_why_not(run, catalogue):
    for name in (A, B):
        catalogue.register(AssetRow(name, AssetState.REGISTERED))
    several, none = run("gold", "a"), run("gold", A)
    assert several.exit_code == none.exit_code == options.WENT_WRONG
    assert "2 assets begin with 'a'; give more of the id" in several.output
    assert "has no accepted labels; label it first" in none.output
    labels = LabelSetRow("l1", A, "k", "s", "p", "pk", 2, 0, 1, 1.0, "ann")
    catalogue.labels.add(labels)
    assert run("gold", A).exit_code == 0
    assert [row.label_id for row in catalogue.quality.list_gold()] == ["l1"]
    catalogue.quality.add_copy(CopyRow(B, CopyRole.DOUBLE, A))
    refused = run("gold", B)
    assert refused.exit_code == options.WENT_WRONG and "is a copy" in refused.output


def test_status_leaves_copies_out(run, catalogue):
    for name in (A, B):
        catalogue.register(AssetRow(name, AssetState.REGISTERED))
    catalogue.quality.add_copy(CopyRow(B, CopyRole.DOUBLE, A))
    state = json.loads(run("status", "--json").output)
    assert (state["total"], state["copies"]) == (1, 1)
