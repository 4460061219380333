"""What one asset may cost a stage in memory and time, beside the counts that bound its mesh.

Memory is bound by the kernel (RLIMIT_DATA of this process, above what it has when the stage
begins), so that an allocation fails instead of the machine running out. Time is watched by a
thread: it raises in the stage's thread, and ends the process if that is stuck in a library.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segvigen_model.errors import AssetRejected

log = logging.getLogger(__name__)

GRACE_S = 120.0  # a library call that does not come back within it is stuck
_STATUS = Path("/proc/self/status")
# How numpy, torch and C++ libraries say that they got no memory.
_NO_MEMORY = ("allocate memory", "bad_alloc", "bad alloc", "Cannot allocate", "out of memory")


class _StageTooSlow(BaseException):
    """Raised in the stage's thread from outside; no `except Exception` of a library stops it."""


@contextmanager
def limit_stage(seconds: float, gib: float | None, grace_s: float = GRACE_S) -> Iterator[None]:
    """Bind what runs inside.

    Args:
        seconds: time limit, of the clock.
        gib: memory above what this process has now, GiB; None where a GPU's driver maps more than
            the machine has.
        grace_s: then a stage that does not react takes the process along.

    Raises:
        AssetRejected: "too_much_memory" or "too_slow".
    """
    watch = _Watch(seconds, grace_s)
    try:
        with watch, _limit_memory(gib):
            yield
    except _StageTooSlow:
        raise AssetRejected(
            "too_slow",
            f"the stage took over {seconds:g} s; simplify it or raise work.stage_seconds",
        ) from None
    except (MemoryError, RuntimeError) as err:
        is_memory = isinstance(err, MemoryError) or any(text in str(err) for text in _NO_MEMORY)
        if gib is None or not is_memory:
            raise
        raise AssetRejected(
            "too_much_memory",
            f"the stage needs over {gib:g} GiB; simplify the mesh or raise work.stage_gib",
        ) from err
    finally:
        watch.stop()  # again: time may have been over in the middle of leaving


@contextmanager
def _limit_memory(gib: float | None) -> Iterator[None]:
    used = _read_data_bytes() if gib is not None else None
    if gib is None or used is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used + int(gib * 2**30)
    bounds = [limit for limit in (wanted, *before) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _read_data_bytes() -> int | None:
    """Private writable memory of this process; None where the system does not tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("VmData:")]
    return int(sizes[0]) * 1024 if sizes else None


class _Watch:
    """Raises in the thread that enters it when time is over, as long as it is inside."""

    def __init__(self, seconds: float, grace_s: float) -> None:
        self._seconds, self._grace_s = seconds, grace_s
        self._lock, self._is_over = threading.Lock(), threading.Event()
        self._thread = 0

    def __enter__(self) -> None:
        self._thread = threading.get_ident()
        threading.Thread(target=self._wait, name="stage-watch", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_over.set()
            _raise_in(self._thread, None)  # what was raised and has not arrived yet

    def stop(self) -> None:
        """End the watch without asking whether it has begun to act."""
        self._is_over.set()

    def _wait(self) -> None:
        if self._is_over.wait(self._seconds):
            return
        with self._lock:
            if self._is_over.is_set():
                return
            log.warning("stage over its time of %g s: stopped", self._seconds)
            _raise_in(self._thread, _StageTooSlow)
        if not self._is_over.wait(self._grace_s):
            log.critical("stage does not stop: this worker ends, its leases run out")
            os.kill(os.getpid(), signal.SIGKILL)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    reference = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), reference)
