"""Numbers, lists, plans and moves on a real PostgreSQL are what plain Python makes of rows."""

from __future__ import annotations

import psycopg
import pytest

from tasks.catalogue import Catalogue
from tests.random_catalogue import fill
from tests.unit.tasks.catalogue.test_overview import check_finding, check_numbers_and_lists
from tests.unit.tasks.shards.test_entries import check_members, check_moves, check_plan


@pytest.mark.parametrize("seed", [1, 4])
def test_what_is_asked_of_all_assets(fresh_url: str, seed: int) -> None:
    catalogue = Catalogue(fresh_url)
    fill(catalogue, seed)
    check_numbers_and_lists(catalogue)
    check_finding(catalogue)
    check_plan(catalogue)
    check_members(catalogue)
    check_moves(catalogue)


def test_status_and_show_use_the_small_indexes(fresh_url: str) -> None:
    Catalogue(fresh_url)
    with psycopg.connect(fresh_url, autocommit=True) as connection:
        connection.execute(
            "insert into assets (asset_id, state, round, name, suffix, size_bytes, num_faces,"
            " licence, priority, attempts, is_started, lease_until, created_at, updated_at, reason,"
            " last_error) select md5(n::text) || md5(n::text), 'registered', 0, 'n' || n, '', 0, 0,"
            " '', 0, 0, false, 0, n, n, case when n % 1000 = 0 then 'x' end,"
            " case when n % 900 = 0 then 'x' end from generate_series(1, 20000) n"
        )
        connection.execute("vacuum analyze assets")

        def explain(condition: str) -> str:
            rows = connection.execute(
                f"explain select * from assets where {condition} order by created_at, asset_id"
                " limit 6"
            )
            return "\n".join(row[0] for row in rows)

        for condition, index in (
            ("reason is not null and reason != ''", "assets_parked"),
            ("last_error is not null and last_error != ''", "assets_failing"),
            ("is_suspect is true", "assets_suspect"),
            ("name = 'n7'", "assets_by_name"),
            ("asset_id between 'ab01' and 'ab01zz'", "assets_pkey"),
        ):
            assert index in explain(condition), explain(condition)
