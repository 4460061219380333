"""Named calls at which a flow process can be made to kill itself, at once or in so many calls.

Every named function is wrapped when a process starts and counts only once it is armed: SIGUSR1
makes the process read its order, a file named after its pid. A process that kills itself between a
blob and the catalogue's row, or inside a transaction, dies where a killer from outside seldom hits.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ADD_EVENT = "tasks.catalogue.database:Database.add_event"
# module:attribute path -> how often an order names it: what is called seldom is waited for in vain
POINTS = {
    "tasks.storage.store:Store.put": 6,
    "tasks.storage.store:Store.put_file": 1,
    "tasks.catalogue:Catalogue.claim": 3,
    "tasks.catalogue:Catalogue.start": 3,
    "tasks.catalogue:Catalogue.move": 4,
    "tasks.catalogue:Catalogue.add_proposal": 2,
    ADD_EVENT: 4,
    "tasks.catalogue.labels:LabelLedger.add": 2,
    "tasks.catalogue.labels:LabelLedger.add_shards": 1,
    "tasks.catalogue.raw:RawLedger.record": 1,
    "tasks.catalogue.raw:RawLedger.set_cursor": 1,
    "tasks.catalogue.reviews:ReviewLedger.record_annotation": 1,
    "tasks.catalogue.reviews:ReviewLedger.add_task": 1,
    "tasks.review.client:LabelStudioClient.import_tasks": 2,
}


@dataclass(frozen=True, slots=True)
class Order:
    """Kill yourself at the n-th call of a point, before or after it."""

    point: str
    number: int
    is_before: bool

    def write(self, folder: Path, pid: int) -> None:
        """Leave the order for a process, then send it SIGUSR1."""
        path = make_order_path(folder, pid)
        path.write_text(json.dumps(asdict(self)))
        os.kill(pid, signal.SIGUSR1)


def make_order_path(folder: Path, pid: int) -> Path:
    """Where the order for a process is."""
    return folder / f"order-{pid}.json"


class Points:
    """The wrapped calls of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._order: Order | None = None
        self._left = 0

    def install(self) -> None:
        """Wrap every point and listen for orders."""
        for point in POINTS:
            self._wrap(point)
        signal.signal(signal.SIGUSR1, self._read_order)

    def _read_order(self, _number: int, _frame: Any) -> None:
        text = make_order_path(self._folder, os.getpid()).read_text()
        self._order = Order(**json.loads(text))
        self._left = self._order.number

    def _wrap(self, point: str) -> None:
        module_name, _, path = point.partition(":")
        owner: Any = importlib.import_module(module_name)
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            order = self._order
            is_last = False
            if order is not None and order.point == point:
                self._left -= 1
                is_last = self._left == 0
            if is_last and order is not None and order.is_before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **kwargs)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, wrapped)
