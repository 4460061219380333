"""Claims: never shared, given back, taken over from the dead, and bounded for killers."""

from __future__ import annotations

import multiprocessing as mp
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.catalogue import (
    KILLED_WORKER,
    AssetRow,
    AssetState,
    Catalogue,
    LeaseLost,
    make_worker_id,
)
from tasks.catalogue.workers import is_dead

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


def test_the_dead_lose_their_leases_at_once_and_no_attempt_is_counted(catalogue: Catalogue) -> None:
    ids = fill(catalogue, 2)
    gone = dead_worker()
    assert is_dead(gone)
    assert len(catalogue.claim(["registered"], 2, gone)) == 2
    catalogue.start(ids[0], gone)
    (first,) = catalogue.claim(["registered"], 2, make_worker_id())
    assert first.asset_id == ids[0], "alone, because its worker died"
    assert (first.attempts, first.deaths, first.deaths_alone) == (0, 1, 0)
    assert "died" in str(first.last_error)
    assert {row.kind for row in catalogue.list_events(ids[1])} == {"registered", "worker_died"}


def test_only_who_died_over_an_asset_alone_has_found_its_killer(catalogue: Catalogue) -> None:
    """Three workers die over a chunk: the killer is known after two more that held it alone."""
    ids = fill(catalogue, 4)
    killer, gone, num_deaths = ids[2], dead_worker(), 0
    for _ in range(50):
        if not (held := catalogue.claim(["registered"], 4, gone)):
            break
        for row in held:
            catalogue.start(row.asset_id, gone)
            if row.asset_id == killer:
                num_deaths += 1
                break
            catalogue.move(row.asset_id, "encoded", worker=gone)
    assert num_deaths == 3, "once in company, then twice alone"
    assert catalogue.count_assets()[AssetState.ENCODED] == 3
    parked = catalogue.get_asset(killer)
    assert (parked.state, parked.reason, parked.attempts) == (AssetState.FAILED, KILLED_WORKER, 0)
    assert "2 workers died or stalled over this asset alone" in str(parked.detail)
    again = catalogue.retry(killer)
    assert (again.state, again.deaths, again.deaths_alone) == (AssetState.REGISTERED, 0, 0)
    assert not again.is_suspect


def test_what_outlives_an_attempt_alone_is_innocent(catalogue: Catalogue, clock: Clock) -> None:
    ids, gone, alive = fill(catalogue, 3), dead_worker(), make_worker_id()
    catalogue.claim(["registered"], 3, gone)
    for number, asset_id in enumerate(ids):
        (row,) = catalogue.claim(["registered"], 3, alive)
        assert (row.asset_id, row.is_suspect, row.is_alone) == (asset_id, True, True)
        catalogue.start(asset_id, alive)
        clock.now += 1
        if number == 0:
            catalogue.record_failure(asset_id, "boom", worker=alive)
        elif number == 1:
            catalogue.move(asset_id, "encoded", worker=alive)
        else:
            catalogue.end(asset_id, alive)
            catalogue.release([asset_id], alive)
    both = catalogue.claim(["registered"], 3, alive)
    assert {row.asset_id for row in both} == {ids[0], ids[2]}
    assert [(row.is_suspect, row.deaths) for row in both] == [(False, 0)] * 2


def test_a_suspect_is_alone_in_its_worker_too(catalogue: Catalogue) -> None:
    ids, gone = fill(catalogue, 4), dead_worker()
    catalogue.update(ids[3], priority=9.0)
    catalogue.claim(["registered"], 1, gone)  # the first in order becomes a suspect
    catalogue.update(ids[0], priority=9.0)
    held = catalogue.claim(["registered"], 1, "w")
    assert [row.asset_id for row in held] == [ids[0]]
    more = catalogue.claim(["registered"], 1, "w")
    assert [row.asset_id for row in more] == [ids[1]], "who holds something gets no suspect"
    assert not catalogue.get_asset(ids[0]).is_alone
    assert [row.asset_id for row in catalogue.claim(["registered"], 9, "v")] == [ids[3]]
    assert catalogue.claim(["registered"], 9, "v") == [], "who holds a suspect gets no more"
    assert [row.asset_id for row in catalogue.claim(["registered"], 9, "u")] == [ids[2]]


def test_a_spot_instance_that_ends_before_the_work_begins_blames_nobody(
    catalogue: Catalogue,
) -> None:
    (asset_id,), gone = fill(catalogue, 1), dead_worker()
    for _ in range(5):
        assert len(catalogue.claim(["registered"], 1, gone)) == 1
    catalogue.claim(["registered"], 1, make_worker_id())
    row = catalogue.get_asset(asset_id)
    assert (row.deaths, row.deaths_alone, row.state) == (5, 0, AssetState.REGISTERED)


def test_a_worker_takes_back_what_ended_while_the_database_was_out(
    catalogue: Catalogue, clock: Clock
) -> None:
    ids = fill(catalogue, 4)
    catalogue.claim(["registered"], 4, "w", lease_s=60)
    catalogue.start(ids[0], "w")
    clock.now += 61
    other = catalogue.claim(["registered"], 1, "v")  # frees all of w's, takes one
    assert [row.asset_id for row in other] == [ids[0]]
    catalogue.move(ids[3], "rejected", reason="by_hand")  # somebody decided meanwhile
    assert catalogue.renew(ids, "w", lease_s=60) == ids[1:3]
    row = catalogue.get_asset(ids[1])
    assert (row.lease_owner, row.lease_until, row.deaths) == ("w", clock.now + 60, 0)
    assert [row.kind for row in catalogue.list_events(ids[1])][-1] == "taken_back"
    with pytest.raises(LeaseLost, match="held by v"):
        catalogue.move(ids[0], "encoded", worker="w")
    catalogue.move(ids[0], "encoded", worker="v")
    with pytest.raises(LeaseLost, match="nobody"):
        catalogue.move(ids[0], "proposed", worker="w")
    with pytest.raises(LeaseLost):
        catalogue.move(ids[3], "registered", worker="w")
    assert catalogue.move(ids[1], "encoded", worker="w").deaths == 0


def test_a_result_that_comes_before_the_renewal_counts_too(
    catalogue: Catalogue, clock: Clock
) -> None:
    ids = fill(catalogue, 3)
    catalogue.claim(["registered"], 2, "w", lease_s=60)
    catalogue.start(ids[0], "w")
    clock.now += 61
    catalogue.claim(["registered"], 1, "v")
    catalogue.release(catalogue.renew(ids, "v"), "v")
    assert catalogue.get_asset(ids[0]).lease_owner is None
    assert catalogue.move(ids[0], "encoded", worker="w").state is AssetState.ENCODED
    catalogue.start(ids[1], "w")
    assert catalogue.get_asset(ids[1]).lease_owner == "w"


def test_what_was_given_back_unseen_is_not_taken_back(catalogue: Catalogue, clock: Clock) -> None:
    ids = fill(catalogue, 3)
    catalogue.claim(["registered"], 2, "w", lease_s=60)
    clock.now += 61
    catalogue.claim(["registered"], 1, "v")  # frees what w held
    catalogue.release(ids, "w")
    assert catalogue.renew(ids, "w") == []
    with pytest.raises(LeaseLost):
        catalogue.move(ids[1], "encoded", worker="w")


def test_the_same_worker_with_an_older_lease_is_late(catalogue: Catalogue, clock: Clock) -> None:
    """Two threads of one worker: what began under the first lease does not end the second."""
    (asset_id,) = fill(catalogue, 1)
    catalogue.claim(["registered"], 1, "w", lease_s=60)
    clock.now += 61
    other_process = Catalogue(str(catalogue._db.engine.url), clock)
    assert len(other_process.claim(["registered"], 1, "w")) == 1
    with pytest.raises(LeaseLost, match="anew"):
        catalogue.move(asset_id, "encoded", worker="w")
    other_process.move(asset_id, "encoded", worker="w")


@pytest.mark.parametrize("shift_s", [-600.0, 600.0])
def test_a_machine_with_a_wrong_clock_neither_steals_nor_loses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift_s: float
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    right = Catalogue(url)
    first, second = fill(right, 2)
    assert [row.asset_id for row in right.claim(["registered"], 1, "right", 60.0)] == [first]
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + shift_s)
        wrong = Catalogue(url)
        assert [row.asset_id for row in wrong.claim(["registered"], 2, "wrong", 60.0)] == [second]
        assert wrong.renew([second], "wrong", 60.0) == [second]
    assert abs(wrong.get_asset(second).lease_until - 60.0 - real()) < 60.0
    assert right.claim(["registered"], 2, "third") == []
    assert right.get_asset(second).lease_owner == "wrong"
    stamps = [event.at for event in right.list_events()]
    assert stamps == sorted(stamps)


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
