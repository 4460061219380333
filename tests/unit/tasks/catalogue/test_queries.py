"""Queries that are repeated all day use an index: what SQLite plans for them, as it is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tasks.catalogue import AssetRow, AssetState, Catalogue


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    made = Catalogue(f"sqlite:///{tmp_path}/c.db")
    for number in range(5):
        made.register(AssetRow(f"{number:064x}", AssetState.REGISTERED))
    return made


def explain(catalogue: Catalogue, action: Callable[[], Any]) -> list[str]:
    """The steps of every query that an action runs."""
    engine, seen = catalogue._db.engine, []

    def note(_connection: Any, _cursor: Any, text: str, values: Any, *_rest: Any) -> None:
        if text.startswith(("SELECT", "UPDATE", "DELETE")) and "julianday" not in text:
            seen.append((text, values))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    assert seen, "the action asked nothing"
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        plans = [raw.execute(f"EXPLAIN QUERY PLAN {text}", values) for text, values in seen]
        return [row[3] for plan in plans for row in plan]


def test_a_claim_follows_an_index_and_sorts_nothing(catalogue: Catalogue) -> None:
    for action in (
        lambda: catalogue.claim(["registered"], 2, "w"),
        lambda: catalogue.claim(["proposed"], 2, "w", where=catalogue.quality.is_ungated("r")),
    ):
        plan = explain(catalogue, action)
        assert any("USING INDEX assets_by_order (state=?)" in step for step in plan), plan
        assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step], plan


def test_the_lost_are_found_by_their_owners(catalogue: Catalogue) -> None:
    plan = explain(catalogue, lambda: catalogue.claim(["registered"], 2, "w"))
    assert plan[0] == "SEARCH assets USING COVERING INDEX assets_by_owner (lease_owner>?)"


@pytest.mark.parametrize(
    "poll",
    [
        lambda c: c.reviews.list_uninterpreted(),
        lambda c: c.raw.get_cursor("x"),
        lambda c: c.renew([f"{0:064x}"], "w"),
    ],
)
def test_a_poll_reads_no_whole_table(catalogue: Catalogue, poll: Callable[[Any], Any]) -> None:
    plan = explain(catalogue, lambda: poll(catalogue))
    assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step], plan


def test_what_is_compared_is_found_once_per_label_set(catalogue: Catalogue) -> None:
    """`list_uncompared` was quadratic: each label set looked through all findings."""
    plan = explain(catalogue, lambda: catalogue.quality.list_uncompared("gate"))
    assert "SEARCH quality_findings USING INDEX quality_findings_by_subject (subject=?)" in plan
    assert [step for step in plan if "SCAN" in step] == ["SCAN label_sets"]


def test_counts_come_from_an_index(catalogue: Catalogue) -> None:
    plan = explain(catalogue, catalogue.count_assets)
    assert plan == ["SCAN assets USING COVERING INDEX assets_by_order"]


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda c: c.overview.list_parked(20), "assets_parked"),
        (lambda c: c.overview.count_parked(), "assets_parked"),
        (lambda c: c.overview.list_failing(20), "assets_failing"),
        (lambda c: c.overview.count_failing(), "assets_failing"),
        (lambda c: c.list_suspects(), "assets_suspect"),
        (lambda c: c.overview.find_by_name("chair.glb", 6), "assets_by_name"),
        (lambda c: c.overview.find_by_prefix("0a", 6), "sqlite_autoindex_assets_1"),
        (lambda c: c.overview.has_assets([AssetState.REGISTERED]), "assets_by_order"),
        (lambda c: c.labels.get_latest("a"), "label_sets_by_asset"),
        (lambda c: c.labels.find_latest_ids(["a", "b"]), "label_sets_by_asset"),
        (lambda c: c.get_latest_proposal("a"), "sqlite_autoindex_proposals_1"),
        (lambda c: c.raw.find_seen(["a", "b"]), "sqlite_autoindex_raw_objects_1"),
    ],
)
def test_what_people_and_scans_ask_uses_an_index(
    catalogue: Catalogue, ask: Callable[[Any], Any], index: str
) -> None:
    plan = explain(catalogue, lambda: ask(catalogue))
    assert any(f"INDEX {index}" in step for step in plan), plan
    # A partial index holds only what is listed, so it may be walked from its start.
    walks = [step for step in plan if "SCAN" in step and f"INDEX {index}" not in step]
    assert not walks, plan


def test_a_plan_of_a_dataset_reads_each_table_by_an_index(catalogue: Catalogue) -> None:
    plan = explain(catalogue, catalogue.plan.list_current)
    assert not [step for step in plan if step.startswith("SCAN")], plan
    for index in ("assets_by_order", "label_sets_by_asset", "sqlite_autoindex_proposals_1"):
        assert any(f"INDEX {index}" in step for step in plan), plan
    members = explain(catalogue, lambda: catalogue.plan.list_of_version("parts", "v"))
    assert not [step for step in members if step.startswith("SCAN")], members


def test_numbers_of_all_assets_come_from_indexes(catalogue: Catalogue) -> None:
    """Counts read an index, or a table as small as that of copies; never the rows of assets."""
    for ask in (
        catalogue.quality.count_dataset_assets,
        catalogue.overview.count_raw,
        catalogue.overview.count_label_sets,
    ):
        plan = explain(catalogue, ask)
        walks = [step for step in plan if step.startswith("SCAN")]
        small = ("review_copies", "both", "anon", "(subquery")
        assert all("COVERING INDEX" in step or any(n in step for n in small) for step in walks), (
            plan
        )
