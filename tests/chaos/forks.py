"""The conductor's side of the nurseries: flow processes in slots, started again when they end."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.clocks import make_clock_environment
from tests.chaos.kills import PlannedKill
from tests.faults import VARIABLE

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
READY_S = 180.0


class HarnessError(Exception):
    """The chaos run itself is broken; this is no finding."""


@dataclass
class Slot:
    """A place for one flow process.

    Attributes:
        name: of its log.
        role: "label_dataset" or "stages".
        nursery: which one forks it.
        pid: of the process, None while there is none.
        start_at: monotonic time of the next start.
        kill: an order it has, and until when it may take to carry it out.
    """

    name: str
    role: str
    nursery: Nursery
    pid: int | None = None
    is_starting: bool = False
    start_at: float = 0.0
    kill: PlannedKill | None = None
    kill_until: float = 0.0


class Nursery:
    """A process that forks flow processes with one clock.

    Args:
        folder: of the run.
        clock_s: how far its clock is off.
        env: settings of the flows.
    """

    def __init__(self, folder: Path, clock_s: int, env: Mapping[str, str]) -> None:
        self.clock_s, self._folder = clock_s, folder
        inherited = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("PREFECT_", "SEGVIGEN_"))
        }
        threads = dict.fromkeys(ONE_THREAD, "1")
        full = {**inherited, **threads, **env, **make_clock_environment(clock_s)}
        del full[VARIABLE]  # each process gets a liar of its own, after the fork
        with (folder / "logs" / f"nursery{clock_s:+d}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.nursery", str(folder)],
                env={**full, "PYTHONUNBUFFERED": "1"},
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self) -> None:
        """Wait until it can fork."""
        try:
            first = self.events.get(timeout=READY_S)
        except queue.Empty:
            first = {}
        if first.get("event") != "ready":
            raise HarnessError(f"nursery {self.clock_s:+d} s is not ready; see {self._folder}/logs")

    def start(self, slot: Slot, **order: Any) -> None:
        """Ask for a process; its pid comes as an event."""
        log = self._folder / "logs" / f"{slot.name}.log"
        line = json.dumps({"name": slot.name, "role": slot.role, "log": str(log), **order})
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    @property
    def is_alive(self) -> bool:
        """Does it run?"""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it with its children."""
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.events.put(json.loads(line))
