"""The lock of a build: one holder, taken over after its death, and never given up in silence."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from tasks.catalogue import LockLost
from tasks.shards import lock as lock_module
from tasks.shards.lock import LockBusy, hold_lock

SAY_NAME = "from tasks.catalogue import make_worker_id; print(make_worker_id('gone'))"


def test_a_second_holder_waits_for_the_first(pipeline: Any) -> None:
    order: list[str] = []
    is_held, may_end = threading.Event(), threading.Event()

    def first() -> None:
        with hold_lock(pipeline.workspace, "x"):
            is_held.set()
            may_end.wait()
            order.append("first ends")

    thread = threading.Thread(target=first)
    thread.start()
    is_held.wait()
    with (
        pytest.raises(LockBusy, match=r"lock 'x' is held by .* for over 0.1 s; wait for that run"),
        hold_lock(pipeline.with_settings(work={"lock_wait_s": 0.1}), "x"),
    ):
        pass
    with hold_lock(pipeline.workspace, "another name"):
        may_end.set()
    with hold_lock(pipeline.workspace, "x") as held:
        order.append("second begins")
        held.check()
    thread.join()
    assert order == ["first ends", "second begins"]
    row = pipeline.catalogue.locks.get("x")
    assert (row.owner, row.fence) == (None, 2)


def test_the_lock_of_a_dead_process_is_free_at_once(pipeline: Any) -> None:
    argv = [sys.executable, "-c", SAY_NAME]
    gone = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    assert pipeline.catalogue.locks.acquire("x", gone, 1e6) == 1
    with hold_lock(pipeline.with_settings(work={"lock_wait_s": 0.0}), "x") as held:
        assert held.fence == 2


def test_a_lock_that_ran_out_is_taken_over_and_its_former_holder_knows(pipeline: Any) -> None:
    locks = pipeline.catalogue.locks
    first = locks.acquire("x", "elsewhere/1/2/a", 0.0)
    locks.check("x", first)  # ran out, but nobody has taken it
    second = locks.acquire("x", "elsewhere/1/2/b", 100.0)
    assert (first, second) == (1, 2)
    assert locks.acquire("x", "elsewhere/1/2/c", 100.0) is None
    with pytest.raises(LockLost, match=r"taken over by elsewhere/1/2/b \(fence 2, ours 1\)"):
        locks.check("x", first)
    with pytest.raises(LockLost):
        locks.renew("x", first, 100.0)
    locks.release("x", first)
    locks.check("x", second)
    with pytest.raises(LockLost, match="'unknown' is not in the catalogue"):
        locks.check("unknown", 1)


def test_a_holder_is_renewed_while_it_makes_progress(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "MAX_IDLE_LEASES", 1)
    renewed, is_idle = threading.Semaphore(0), threading.Event()
    real = pipeline.catalogue.locks.renew

    def renew(*args: Any) -> None:
        real(*args)
        renewed.release()

    monkeypatch.setattr(pipeline.catalogue.locks, "renew", renew)
    monkeypatch.setattr(lock_module.log, "warning", lambda *_: is_idle.set())
    with hold_lock(pipeline.with_settings(work={"lease_s": 0.06}), "x") as held:
        for _ in range(5):  # more than one lease
            held.step()
            assert renewed.acquire(timeout=30)
        assert not is_idle.is_set()
        assert is_idle.wait(30), "without progress it is given up"
