"""How many threads a process computes with: one, unless set otherwise.

Work is spread over processes. A second thread in each is worth almost nothing on a quiet machine
and costs a multiple on a busy one, because threads that spin wait for those that do not run.
The libraries read the variables when they are imported, so programs set them first.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

NUM_THREADS = "SEGVIGEN_WORK_NUM_THREADS"
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def set_thread_variables(environment: MutableMapping[str, str]) -> None:
    """Set the libraries' variables where nobody has; the setting decides, else one thread."""
    count = environment.get(NUM_THREADS) or "1"
    for name in VARIABLES:
        environment.setdefault(name, count)


def limit_threads(count: int) -> None:
    """Let torch compute with so many threads, whatever was set before it was imported."""
    import torch

    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def describe_threads(environment: Mapping[str, str]) -> str:
    """Return the libraries' variables as text, e.g. "OMP 1, OPENBLAS 1, MKL unset, NUMBA 1"."""
    values = ((name.partition("_")[0], environment.get(name, "unset")) for name in VARIABLES)
    return ", ".join(f"{name} {value}" for name, value in values)
