"""Processes whose wall clock is off: `time.time` is shifted before anything else is imported.

This reaches what asks Python's `time` module, as the catalogue, the leases and Label Studio's
client do. libfaketime would reach C code too, but 0.9.10 breaks Python's own `time.sleep` (an
absolute wait on the monotonic clock: EINVAL). Monotonic clocks stay right, as on a machine whose
wall clock is wrong.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

SHIFT_VARIABLE = "CHAOS_CLOCK_S"


def make_clock_environment(shift_s: int) -> Mapping[str, str]:
    """Variables that make a new process believe that it is `shift_s` seconds later."""
    return {SHIFT_VARIABLE: str(shift_s)}


def shift_clock() -> None:
    """Shift this process's clock as its environment says; before any other import."""
    shift_s = float(os.environ.get(SHIFT_VARIABLE, "0"))
    if shift_s:
        right, right_ns = time.time, time.time_ns
        time.time = lambda: right() + shift_s
        time.time_ns = lambda: right_ns() + int(shift_s * 1e9)
