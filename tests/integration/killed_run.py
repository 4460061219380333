"""Run one flow and kill this very process (SIGKILL) at a named call. Used by test_kill.py.

Arguments: flow module, flow name, "module:attribute.path" to count calls of, number of the call,
and "before" or "after" it.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from typing import Any


def arm(target: str, number: int, when: str) -> None:
    """Replace the target by one that kills the process at its n-th call."""
    module_name, _, path = target.partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def armed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, armed)


def main() -> None:
    """Arm, then run the flow; coming back from it is a failure of the test."""
    module, flow, target, number, when = sys.argv[1:]
    run = getattr(importlib.import_module(module), flow)
    arm(target, int(number), when)
    run()
    sys.exit(f"the flow ended before call {number} of {target}")


if __name__ == "__main__":
    main()
