"""A process that has imported everything and forks flow processes: a restart costs nothing.

    python -m tests.chaos.nursery FOLDER

One order a line on its input, one report a line on its output. All children have the nursery's
environment and clock, and die with it. It starts no threads, so that a fork is safe.
"""

from __future__ import annotations

from tests.chaos.clocks import shift_clock

shift_clock()  # before any other import binds time.time

# ruff: noqa: E402
import ctypes
import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

PARENT_DEATH = 1  # PR_SET_PDEATHSIG
POLL_S = 0.2
FAILED = 1
MISUSED = 3  # the harness itself is wrong: the run is ended


def main() -> None:
    """Serve until the input ends; then kill the children."""
    from tests.chaos import flow_process

    flow_process.warm_up()
    folder = Path(sys.argv[1])
    children: dict[int, str] = {}
    _report(event="ready")
    while True:
        if select.select([sys.stdin], [], [], POLL_S)[0]:
            line = sys.stdin.readline()
            if not line:
                break
            order = json.loads(line)
            pid = _fork(order, folder)
            children[pid] = order["name"]
            _report(event="started", name=order["name"], pid=pid)
        for pid in list(children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                name = children.pop(pid)
                code = os.waitstatus_to_exitcode(status)
                _report(event="ended", name=name, pid=pid, code=code)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _report(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _fork(order: dict[str, Any], folder: Path) -> int:
    nursery = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = MISUSED
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PARENT_DEATH, signal.SIGKILL)
        if os.getppid() != nursery:
            os._exit(FAILED)
        os.setpgid(0, 0)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        from tests.chaos import flow_process

        code = flow_process.run(order, folder)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
