"""Claims: never shared, given back, taken over from the dead, and bounded for killers."""

from __future__ import annotations

import multiprocessing as mp
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tasks.catalogue import AssetRow, AssetState, Catalogue, LeaseLost, make_worker_id
from tasks.catalogue.leases import is_dead
from tasks.settings import load_settings
from tasks.stages.runner import make_not_needed_result, run_stage_safely
from tasks.storage.store import Store
from tasks.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[4]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogue(tmp_path: Path, clock: Clock) -> Catalogue:
    return Catalogue(f"sqlite:///{tmp_path}/c.db", clock)


def fill(catalogue: Catalogue, count: int) -> list[str]:
    ids = [f"{number:064x}" for number in range(count)]
    with catalogue.transaction():
        for asset_id in ids:
            catalogue.register(AssetRow(asset_id, AssetState.REGISTERED, source_key="s"))
    return ids


def dead_worker() -> str:
    """The name of a worker whose process has ended."""
    code = "from tasks.catalogue import make_worker_id; print(make_worker_id('gone'))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return run.stdout.strip()


def claim_all(url: str, name: str, queue: mp.Queue[tuple[str, list[str]]]) -> None:
    catalogue = Catalogue(url)
    mine: list[str] = []
    while True:
        rows = catalogue.claim(["registered"], 3, f"{make_worker_id()}{name}")
        if not rows:
            break
        for row in rows:
            catalogue.move(row.asset_id, "encoded", worker=row.lease_owner)
            mine.append(row.asset_id)
    queue.put((name, mine))


def test_processes_never_share_an_asset(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    ids = fill(Catalogue(url), 40)
    context = mp.get_context("spawn")
    queue: mp.Queue[tuple[str, list[str]]] = context.Queue()
    workers = [context.Process(target=claim_all, args=(url, str(i), queue)) for i in range(3)]
    for worker in workers:
        worker.start()
    got = [queue.get(timeout=60)[1] for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(asset_id for mine in got for asset_id in mine) == ids
    assert Catalogue(url).count_assets()[AssetState.ENCODED] == 40


def test_limit_priority_and_release(catalogue: Catalogue) -> None:
    ids = fill(catalogue, 4)
    catalogue.update(ids[2], priority=5.0)
    first = catalogue.claim(["registered"], 2, "w")
    assert [row.asset_id for row in first] == [ids[2], ids[0]]
    assert len(catalogue.claim(["registered"], 9, "v")) == 2
    catalogue.release([ids[2], ids[1]], "w")  # ids[1] is v's: left alone
    assert [row.asset_id for row in catalogue.claim(["registered"], 9, "u")] == [ids[2]]
    assert catalogue.claim(["encoded"], 9, "w") == []


def test_expired_leases_are_reclaimed(catalogue: Catalogue, clock: Clock) -> None:
    ids = fill(catalogue, 2)
    catalogue.claim(["registered"], 2, "w", lease_s=60)
    clock.now += 59
    assert catalogue.claim(["registered"], 2, "v") == []
    assert catalogue.renew(ids[:1], "w", lease_s=60) == ids[:1]
    clock.now += 2
    assert [row.asset_id for row in catalogue.claim(["registered"], 2, "v")] == ids[1:]
    with pytest.raises(LeaseLost):
        catalogue.move(ids[1], "encoded", worker="w")
    with pytest.raises(LeaseLost):
        catalogue.start(ids[1], "w")


def test_the_dead_lose_their_leases_at_once(catalogue: Catalogue) -> None:
    ids = fill(catalogue, 2)
    gone = dead_worker()
    assert is_dead(gone)
    assert len(catalogue.claim(["registered"], 2, gone)) == 2
    again = catalogue.claim(["registered"], 2, make_worker_id())
    assert [row.asset_id for row in again] == ids
    assert [row.attempts for row in again] == [0, 0]


def test_only_what_was_at_work_counts_an_attempt_and_a_killer_is_parked(
    catalogue: Catalogue,
) -> None:
    killer, innocent = fill(catalogue, 2)
    gone = dead_worker()
    for _ in range(3):
        catalogue.claim(["registered"], 2, gone, max_attempts=3)
        catalogue.start(killer, gone)
    free = catalogue.claim(["registered"], 2, make_worker_id(), max_attempts=3)
    assert [row.asset_id for row in free] == [innocent]
    assert free[0].attempts == 0
    parked = catalogue.get_asset(killer)
    assert (parked.state, parked.attempts) == (AssetState.FAILED, 3)
    assert "died" in str(parked.last_error)


def test_what_was_left_alone_before_a_killer_counts_no_attempt(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    innocent, killer = fill(catalogue, 2)
    gone, store = dead_worker(), Store(f"file://{tmp_path}")
    for _ in range(3):
        catalogue.claim(["registered"], 2, gone, max_attempts=3)
        workspace = Workspace(store, store, catalogue, load_settings(), gone)
        result = run_stage_safely(
            workspace,
            "test",
            innocent,
            partial(make_not_needed_result, "test", catalogue, innocent),
        )
        assert result.note == "asset is registered"
        assert catalogue.get_asset(innocent).lease_owner == gone
        catalogue.start(killer, gone)
    free = catalogue.claim(["registered"], 2, make_worker_id(), max_attempts=3)
    assert [(row.asset_id, row.attempts) for row in free] == [(innocent, 0)]
    assert catalogue.get_asset(killer).state is AssetState.FAILED


def test_who_was_overtaken_changes_nothing_though_nobody_holds_the_asset(
    catalogue: Catalogue, clock: Clock
) -> None:
    (asset_id,) = fill(catalogue, 1)
    catalogue.claim(["registered"], 1, "slow", lease_s=60)
    clock.now += 61
    catalogue.claim(["registered"], 1, "fast")
    catalogue.move(asset_id, "encoded", worker="fast")
    with pytest.raises(LeaseLost, match="nobody"):
        catalogue.record_failure(asset_id, "too late", worker="slow")
    with pytest.raises(LeaseLost, match="nobody"):
        catalogue.move(asset_id, "rejected", reason="no_voxels", worker="slow")
    assert (catalogue.get_asset(asset_id).state, catalogue.get_asset(asset_id).attempts) == (
        "encoded",
        0,
    )


def test_retry_after_holds_an_asset_back(catalogue: Catalogue, clock: Clock) -> None:
    (asset_id,) = fill(catalogue, 1)
    catalogue.claim(["registered"], 1, "w")
    catalogue.record_failure(asset_id, "boom", retry_after_s=30, worker="w")
    assert catalogue.claim(["registered"], 1, "w") == []
    clock.now += 31
    assert len(catalogue.claim(["registered"], 1, "w")) == 1
    assert catalogue.get_asset(asset_id).attempts == 1


def test_a_worker_recognizes_living_and_foreign_processes() -> None:
    assert not is_dead(make_worker_id("x"))
    assert not is_dead("other-machine/1/2/x")
    assert not is_dead("anything")
    recycled = make_worker_id().replace(f"/{os.getpid()}/", "/1/")
    assert is_dead(recycled)  # process 1 lives, but began at another time
