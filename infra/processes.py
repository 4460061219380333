"""Background processes of the local stack: start, identify, wait for, stop.

A process is identified by its pid *and* its start time, so that a reused pid is never signalled.
Each one leads its own session; stopping it also ends its descendants. The output of a service goes
to its log file; a failed start reports the end of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segvigen_model.errors import NotReady

LOG_TAIL_LINES = 25
POLL_S = 0.25
PRIVATE_UMASK = 0o077  # databases and logs of a service are its owner's alone
_PROC = Path("/proc")


class StackError(NotReady):
    """A service of the local stack did not start, answer or stop."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process; a reused pid is another one.

    Attributes:
        pid: process and session id.
        started: start time as the system reports it; opaque.
    """

    pid: int
    started: str


def find_free_port(preferred: int | None = None) -> int:
    """Return `preferred` if nothing listens there, else a port that the system chooses."""
    for candidate in ([preferred] if preferred else []) + [0]:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", candidate))
                return int(probe.getsockname()[1])
    raise StackError("no free port on 127.0.0.1; close some programs and try again")


def spawn_process(argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> ProcessId:
    """Start `argv` detached from this terminal; the previous log is kept beside the new one.

    Files that it makes, its log too, are readable by their owner only.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".old.log"))
    with log.open("wb") as sink:
        log.chmod(0o600)
        process = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=PRIVATE_UMASK,
        )
    # It outlives this program; without this, Popen warns when it is garbage-collected.
    process.returncode = 0
    return ProcessId(process.pid, read_start_time(process.pid) or "gone")


def read_start_time(pid: int) -> str | None:
    """Return when the process started; None if it has ended."""
    if (_PROC / "self/stat").exists():
        return _read_start_time_proc(pid)
    return _read_start_time_ps(pid)


def _read_start_time_proc(pid: int) -> str | None:
    try:
        # The name in brackets may hold spaces and brackets: fields are counted from the last one.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, num_threads, started = fields[0], int(fields[17]), fields[19]
    # A dead leader keeps its sockets while one of its threads still ends.
    if state in {"Z", "X"} and num_threads <= 1:
        with contextlib.suppress(OSError):
            os.waitpid(pid, os.WNOHANG)
        return None
    return started


def _read_start_time_ps(pid: int) -> str | None:
    result = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = result.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def is_running(process: ProcessId) -> bool:
    """Return whether this process, and no other with its pid, runs."""
    return read_start_time(process.pid) == process.started


def wait_until_ready(
    process: ProcessId, is_ready: Callable[[], bool], *, name: str, log: Path, timeout_s: float
) -> None:
    """Wait until `is_ready`.

    Raises:
        StackError: the process has ended, or the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not is_running(process):
            raise StackError(
                f"{name} ended while starting; the end of its log:\n{read_log_tail(log)}"
            )
        if is_ready():
            return
        time.sleep(POLL_S)
    raise StackError(
        f"{name} did not answer within {timeout_s:g} s; the end of its log:\n{read_log_tail(log)}"
    )


def read_log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a log, or a note that there is none."""
    if not log.exists():
        return f"(no log at {log})"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) or "(empty log)"


def stop_process(process: ProcessId, grace_s: float = 10.0) -> bool:
    """End a process and its descendants; False if it did not run any more.

    Nothing is signalled unless pid and start time match.
    """
    if not is_running(process):
        return False
    # The leader first: on SIGTERM a worker ends its own children cleanly.
    family = [process, *_list_descendants(process)]
    for rest in ([process], family):
        _signal_all(rest, signal.SIGTERM)
        if not _wait_gone(rest, grace_s):
            _signal_all(rest, signal.SIGKILL)
            _wait_gone(rest, grace_s)
    return True


def _list_descendants(leader: ProcessId) -> list[ProcessId]:
    """List the descendants of `leader`, in whatever session they are."""
    parents: dict[int, list[int]] = {}
    for entry in _PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = entry.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found: list[ProcessId] = []
    queue = [leader.pid]
    while queue:
        for child in parents.get(queue.pop(), []):
            started = read_start_time(child)
            if started is not None:
                found.append(ProcessId(child, started))
            queue.append(child)
    return found


def _signal_all(processes: Sequence[ProcessId], number: signal.Signals) -> None:
    for process in processes:
        if is_running(process):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def _wait_gone(processes: Sequence[ProcessId], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while any(is_running(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
