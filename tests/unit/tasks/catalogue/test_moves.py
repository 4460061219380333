"""Moves of assets: only those of the table, each with its event; parking and the way back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.catalogue import (
    ALLOWED_MOVES,
    AssetRow,
    AssetState,
    Catalogue,
    CatalogueError,
    IllegalMove,
    LeaseLost,
    ProposalRow,
)

A = "a" * 64


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = Catalogue(f"sqlite:///{tmp_path}/new/folder/c.db")
    catalogue.register(AssetRow(A, AssetState.REGISTERED, name="chair", source_key="s"))
    return catalogue


def test_every_state_can_be_reached_and_left() -> None:
    assert set(ALLOWED_MOVES) == set(AssetState)
    reached = {AssetState.REGISTERED}
    for _ in AssetState:
        reached |= {new for old in reached for new in ALLOWED_MOVES[old]}
    assert reached == set(AssetState)
    assert all(ALLOWED_MOVES.values())


@settings(max_examples=15, deadline=None)
@given(tries=st.lists(st.sampled_from(list(AssetState)), max_size=12))
def test_random_moves_never_break_the_table(
    tmp_path_factory: pytest.TempPathFactory, tries: list[AssetState]
) -> None:
    catalogue = Catalogue(f"sqlite:///{tmp_path_factory.mktemp('c')}/c.db")
    catalogue.register(AssetRow(A, AssetState.REGISTERED))
    state, moved = AssetState.REGISTERED, 0
    for new in tries:
        if new in ALLOWED_MOVES[state]:
            assert catalogue.move(A, new).state is new
            state, moved = new, moved + 1
        else:
            with pytest.raises(IllegalMove):
                catalogue.move(A, new)
        assert catalogue.get_asset(A).state is state
    assert len(catalogue.list_events(A, "moved")) == moved
    assert catalogue.count_assets()[state] == 1
    assert sum(catalogue.count_assets().values()) == 1


def test_register_twice_is_once(catalogue: Catalogue) -> None:
    assert not catalogue.register(AssetRow(A, AssetState.REGISTERED, name="other"))
    assert catalogue.get_asset(A).name == "chair"
    assert len(catalogue.list_events(A, "registered")) == 1


def test_move_stores_facts_and_reports_what_is_wrong(catalogue: Catalogue) -> None:
    assert catalogue.move(A, "encoded", encoding_key="k").encoding_key == "k"
    with pytest.raises(CatalogueError, match="colour"):
        catalogue.move(A, "proposed", colour="red")
    assert catalogue.get_asset(A).state is AssetState.ENCODED
    with pytest.raises(CatalogueError, match="unknown asset"):
        catalogue.move("b" * 64, "encoded")
    with pytest.raises(IllegalMove, match="encoded -> sharded is not allowed; only"):
        catalogue.move(A, "sharded")


def test_parking_keeps_the_reason_and_leaving_clears_it(catalogue: Catalogue) -> None:
    catalogue.move(A, "encoded")
    catalogue.add_proposal(ProposalRow(A, 0, "k", "s", 2, 0.5, "c"))
    catalogue.move(A, "proposed")
    catalogue.move(A, "in_review")
    parked = catalogue.move(A, "rejected", reason="max_rounds", detail="four rounds")
    assert (parked.reason, parked.detail, parked.parked_from) == (
        "max_rounds",
        "four rounds",
        "in_review",
    )
    back = catalogue.retry(A)
    assert back.state is AssetState.PROPOSED
    assert (back.reason, back.detail, back.parked_from) == (None, None, None)


def test_retry_needs_a_parked_asset_with_a_source(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="not parked"):
        catalogue.retry(A)
    catalogue.register(AssetRow("b" * 64, AssetState.REGISTERED))
    catalogue.move("b" * 64, "rejected", reason="empty_file")
    with pytest.raises(CatalogueError, match="ingest"):
        catalogue.retry("b" * 64)


def test_failures_are_counted_then_parked(catalogue: Catalogue) -> None:
    catalogue.move(A, "encoded")
    for attempt in (1, 2):
        row = catalogue.record_failure(A, f"boom {attempt}")
        assert (row.state, row.attempts) == (AssetState.ENCODED, attempt)
    row = catalogue.record_failure(A, "boom 3")
    assert (row.state, row.attempts, row.last_error) == (AssetState.FAILED, 3, "boom 3")
    assert row.reason == "encoded_failed"
    row = catalogue.retry(A)
    assert (row.state, row.attempts, row.last_error) == (AssetState.ENCODED, 0, None)


def test_success_forgets_failures(catalogue: Catalogue) -> None:
    catalogue.record_failure(A, "boom")
    row = catalogue.move(A, "encoded")
    assert (row.attempts, row.last_error) == (0, None)


def test_a_lost_lease_cannot_move(catalogue: Catalogue) -> None:
    catalogue.claim(["registered"], 1, "first")
    with pytest.raises(LeaseLost):
        catalogue.move(A, "encoded", worker="second")
    row = catalogue.move(A, "encoded", worker="first")
    assert row.lease_owner is None


def test_a_transaction_is_all_or_nothing(catalogue: Catalogue) -> None:
    num_events = len(catalogue.list_events())
    with pytest.raises(IllegalMove), catalogue.transaction():
        catalogue.move(A, "encoded")
        catalogue.add_proposal(ProposalRow(A, 0, "k", "s", 2, 0.5, "c"))
        catalogue.move(A, "sharded")
    assert catalogue.get_asset(A).state is AssetState.REGISTERED
    assert catalogue.get_latest_proposal(A) is None
    assert len(catalogue.list_events()) == num_events


def test_unusable_urls_are_refused() -> None:
    for url, message in (
        ("sqlite://", "in-memory"),
        ("mysql://x/y", "mysql"),
        ("nonsense", "cannot be read"),
    ):
        with pytest.raises(CatalogueError, match=message):
            Catalogue(url)


# In a process of its own: forking the test runner, with the threads that other tests have left in
# it, is not what is tested.
FORK = """
import multiprocessing, sys
from tasks.catalogue import Catalogue

catalogue = Catalogue(sys.argv[1])
catalogue.get_asset(sys.argv[2])
fork = multiprocessing.get_context("fork")
child = fork.Process(target=catalogue.move, args=(sys.argv[2], "encoded"))
child.start()
child.join(60)
assert child.exitcode == 0, child.exitcode
assert catalogue.move(sys.argv[2], "proposed").round == 0
"""


def test_a_forked_child_has_connections_of_its_own(tmp_path: Path, catalogue: Catalogue) -> None:
    url = f"sqlite:///{tmp_path}/new/folder/c.db"
    done = subprocess.run(
        [sys.executable, "-c", FORK, url, A], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert catalogue.get_asset(A).state is AssetState.PROPOSED
