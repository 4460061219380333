"""Locks and the order of dataset versions on a real PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.catalogue import (
    AssetRow,
    AssetState,
    Catalogue,
    LabelSetRow,
    LockLost,
    ShardMemberRow,
    ShardVersionRow,
)
from tasks.shards import build as build_module

ASSET = "c" * 64


def test_one_of_many_gets_the_lock(fresh_url: str) -> None:
    catalogues = [Catalogue(fresh_url) for _ in range(6)]
    barrier = threading.Barrier(len(catalogues))

    def ask(number: int) -> int | None:
        barrier.wait()
        return catalogues[number].locks.acquire("x", f"elsewhere/1/2/{number}", 100.0)

    with ThreadPoolExecutor(len(catalogues)) as pool:
        fences = list(pool.map(ask, range(len(catalogues))))
    assert sorted(fences, key=str) == [1, *[None] * 5]


def test_a_lock_ends_by_the_servers_clock(fresh_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Catalogue(fresh_url)
    assert first.locks.acquire("x", "elsewhere/1/2/a", 100.0) == 1
    monkeypatch.setattr("time.time", lambda: 4e9)  # this machine's clock is decades ahead
    late = Catalogue(fresh_url)
    assert late.locks.acquire("x", "elsewhere/1/2/b", 100.0) is None
    first.locks.renew("x", 1, -1.0)
    assert late.locks.acquire("x", "elsewhere/1/2/b", 100.0) == 2
    with pytest.raises(LockLost), first.transaction():
        first.locks.check("x", 1)


def test_two_builds_that_record_at_once_move_an_asset_once(fresh_url: str) -> None:
    """At a4d9af9 one of them ended with IllegalMove."""
    first = Catalogue(fresh_url)
    first.register(AssetRow(ASSET, AssetState.REGISTERED, name="x", source_key="k"))
    for state in ("encoded", "proposed", "in_review", "accepted"):
        first.move(ASSET, state)
    first.labels.add(LabelSetRow("l", ASSET, "k", "s", "j", "p", 2, 0, 1, 1.0, "ann"))
    barrier = threading.Barrier(2)

    def record(version: str) -> None:
        catalogue = Catalogue(fresh_url)
        member = ShardMemberRow("parts", version, ASSET, "l", "tar")
        barrier.wait()
        with catalogue.transaction():
            row = ShardVersionRow("parts", version, "m", "s", 1, 1, build_number=int(version))
            catalogue.labels.add_shards(row, [member])
            build_module._move_members(catalogue, [member], version)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(record, ["2", "1"]))
    assert first.get_asset(ASSET).state is AssetState.SHARDED
    moves = [row for row in first.list_events(ASSET, "moved") if row.detail["to"] == "sharded"]
    assert len(moves) == 1
    versions = [row.version for row in first.labels.list_shard_versions("parts")]
    assert versions == ["1", "2"], "whichever was recorded last"
