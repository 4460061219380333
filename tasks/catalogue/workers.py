"""Names of workers, from which their processes can be found.

A lease ends by itself after its time; a lease whose process on this very machine is gone ends at
once, so that a killed run can be started again without waiting.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def make_worker_id(tag: str = "") -> str:
    """Name this process: machine, process id, start time, and a tag of your own."""
    pid = os.getpid()
    return f"{_get_machine()}/{pid}/{_read_start_time(pid)}/{tag}"


def is_dead(worker: str) -> bool:
    """True if `worker` ran on this machine and its process is gone; False when unknown."""
    here = f"{_get_machine()}/"
    if not worker.startswith(here):
        return False
    pid, _, rest = worker.removeprefix(here).partition("/")
    return pid.isdigit() and _read_start_time(int(pid)) != rest.partition("/")[0]


def _get_machine() -> str:
    # The process ids of two containers on one host mean different things.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        space = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        boot, space = "", ""
    return f"{socket.gethostname()}-{boot}-{space}"


def _read_start_time(pid: int) -> str:
    """Clock ticks after boot at which a process began; "" if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "" if not _is_alive(pid) else "alive"
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]  # a zombie holds nothing any more


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
