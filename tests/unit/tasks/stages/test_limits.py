"""A stage that takes too much of memory or time ends, and nothing else with it."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from segvigen_model.errors import AssetRejected
from tasks.stages.limits import limit_stage
from tasks.stages.runner import StageResult, run_stage_safely

BLOCKED = """
import ctypes
from tasks.stages.limits import limit_stage
with limit_stage(0.2, None, grace_s=0.3):
    ctypes.CDLL(None).sleep(600)  # a library that does not return
"""


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: np.ones(2**28),
        lambda: torch.ones(2**28, dtype=torch.float64),
        lambda: bytearray(2**31),
    ],
)
def test_memory_is_bounded_by_the_kernel(allocate: Any) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    message = r"over 0.5 GiB; .* raise work.stage_gib"
    with pytest.raises(AssetRejected, match=message) as caught, limit_stage(60, 0.5):
        allocate()
    assert caught.value.reason == "too_much_memory"
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with limit_stage(60, 8.0):
        assert len(bytearray(2**27)) == 2**27


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), limit_stage(60, 1.0):
        raise RuntimeError("a wrong shape")
    with pytest.raises(MemoryError), limit_stage(60, None):
        raise MemoryError


def test_time_is_bounded_even_against_those_who_catch_everything() -> None:
    def work() -> None:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    message = r"over 0.2 s; .* raise work.stage_seconds"
    with pytest.raises(AssetRejected, match=message) as caught, limit_stage(0.2, None):
        work()
    assert caught.value.reason == "too_slow"


def test_nothing_is_raised_after_the_stage() -> None:
    for _ in range(200):
        try:
            with limit_stage(0.001, None):
                time.sleep(0.001)
        except AssetRejected as err:
            assert err.reason == "too_slow"
        sum(range(2000))


def test_threads_are_watched_apart() -> None:
    seen: dict[str, str] = {}

    def work(name: str, seconds: float) -> None:
        try:
            with limit_stage(seconds, None):
                for _ in range(100):
                    time.sleep(0.01)
            seen[name] = "done"
        except AssetRejected as err:
            seen[name] = err.reason

    threads = [threading.Thread(target=work, args=pair) for pair in (("a", 0.1), ("b", 60))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": "too_slow", "b": "done"}


@pytest.mark.skipif(sys.platform != "linux", reason="signals a process")
def test_a_stage_that_is_stuck_takes_its_process_along() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], timeout=120, stderr=subprocess.PIPE)
    assert done.returncode == -9 and b"this worker ends" in done.stderr


def test_an_asset_that_is_too_slow_is_rejected_at_once(pipeline: Any, make_boxes: Any) -> None:
    pipeline.raw.put("a.glb", make_boxes(1))
    pipeline.ingest()
    (asset,) = pipeline.catalogue.list_assets()
    workspace = pipeline.with_settings("w", work={"stage_seconds": 0.2})
    workspace.catalogue.claim(["registered"], 1, "w")

    def work() -> StageResult:
        while True:
            time.sleep(0.01)

    result = run_stage_safely(workspace, "encode", asset.asset_id, work)
    assert (result.state, result.is_done) == ("rejected", False)
    assert pipeline.catalogue.get_asset(asset.asset_id).reason == "too_slow"
