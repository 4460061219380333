"""Leases on a real PostgreSQL: by the server's clock, over a restart, in the order of an index."""

from __future__ import annotations

import time

import psycopg
import pytest

from tasks.catalogue import AssetRow, AssetState, Catalogue


def _fill(catalogue: Catalogue, count: int) -> list[str]:
    ids = [f"{number:064x}" for number in range(count)]
    with catalogue.transaction():
        for asset_id in ids:
            catalogue.register(AssetRow(asset_id, AssetState.REGISTERED))
    return ids


@pytest.mark.parametrize("shift_s", [-600.0, 600.0])
def test_a_machine_with_a_wrong_clock_neither_steals_nor_loses(
    fresh_url: str, monkeypatch: pytest.MonkeyPatch, shift_s: float
) -> None:
    right = Catalogue(fresh_url)
    first, second = _fill(right, 2)
    assert [row.asset_id for row in right.claim(["registered"], 1, "right", 60.0)] == [first]
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + shift_s)
        wrong = Catalogue(fresh_url)
        assert [row.asset_id for row in wrong.claim(["registered"], 2, "wrong", 60.0)] == [second]
        assert wrong.renew([second], "wrong", 60.0) == [second]
        wrong.move(second, "encoded", worker="wrong")
    assert right.claim(["registered"], 2, "third") == []
    assert abs(right.get_asset(second).updated_at - real()) < 60.0
    assert right.renew([first], "right", 60.0) == [first]


def test_a_lease_that_ended_while_the_server_was_down_is_kept_for_its_holder(
    fresh_url: str,
) -> None:
    catalogue = Catalogue(fresh_url)
    during, after, old = _fill(catalogue, 3)
    assert len(catalogue.claim(["registered"], 3, "w", 600.0)) == 3
    with psycopg.connect(fresh_url, autocommit=True) as connection:
        started = "extract(epoch from pg_postmaster_start_time())"
        now = "extract(epoch from clock_timestamp())"
        for asset_id, leased_at, lease_until in (
            (during, f"{started} - 1000", f"{now} - 1"),  # nobody could renew it
            (after, f"{started} + .001", f"{now} - 1"),  # the holder could, and did not
            (old, f"{started} - 1000", f"{started} - 999.999"),  # its time is over since, too
        ):
            change = f"update assets set leased_at = {leased_at}, lease_until = {lease_until}"
            connection.execute(f"{change} where asset_id = '{asset_id}'")
    catalogue.claim(["registered"], 1, "v", 600.0)
    rows = {row.asset_id: row for row in catalogue.list_assets()}
    assert (rows[during].lease_owner, rows[during].deaths) == ("w", 0)
    assert [rows[name].deaths for name in (after, old)] == [1, 1]
    assert catalogue.renew([during], "w") == [during]


def test_a_claim_follows_an_index_and_sorts_nothing(fresh_url: str) -> None:
    catalogue = Catalogue(fresh_url)
    _fill(catalogue, 2)
    with psycopg.connect(fresh_url, autocommit=True) as connection:
        connection.execute(
            "insert into assets (asset_id, state, round, name, suffix, size_bytes, num_faces,"
            " licence, priority, attempts, is_started, lease_until, created_at, updated_at)"
            " select 'x' || n, 'registered', 0, '', '', 0, 0, '', n % 7, 0, false, 0, n, n"
            " from generate_series(1, 20000) n"
        )
        connection.execute("analyze assets")
        plan = connection.execute(
            "explain select asset_id, is_suspect from assets where state = 'registered'"
            " and lease_until <= 5 order by priority desc, updated_at, asset_id limit 20"
            " for update skip locked"
        ).fetchall()
    text = "\n".join(row[0] for row in plan)
    assert "Index Scan using assets_by_order" in text and "Sort" not in text, text
    (best,) = catalogue.claim(["registered"], 1, "w")
    assert best.priority == 6.0
