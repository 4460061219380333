"""One process at a time: a catalogue lock that is renewed while the work goes on.

The holder renews it in a thread. A holder that makes no progress for long is no longer renewed,
so that another one can take over; what it would publish then fails at its fence.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError

from tasks.catalogue import Catalogue, LockLost, make_worker_id
from tasks.errors import StageError
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

POLL_S = 0.5  # between two tries to take a lock that is held
RENEWALS_A_LEASE = 3
MAX_IDLE_LEASES = 12  # without progress: the holder has stalled


class LockBusy(StageError):
    """Another process holds the lock and did not give it back in time."""


@dataclass(slots=True)
class HeldLock:
    """A lock that this process holds.

    Attributes:
        fence: grows with every holder; what a later holder publishes is newer.
        num_steps: counts progress.
    """

    catalogue: Catalogue
    name: str
    fence: int
    num_steps: int = field(default=0)

    def check(self) -> None:
        """Raise LockLost if another process has taken over; inside a transaction, until its end."""
        self.catalogue.locks.check(self.name, self.fence)

    def step(self) -> None:
        """Record progress, which keeps the lock alive."""
        self.num_steps += 1


@contextmanager
def hold_lock(workspace: Workspace, name: str) -> Iterator[HeldLock]:
    """Hold a lock during the block; waits for another holder.

    Args:
        workspace: its settings say how long to wait and how long a lease lasts.
        name: what is locked.

    Raises:
        LockBusy: another process held it all the time.
    """
    catalogue, rules = workspace.catalogue, workspace.settings.work
    owner = f"{workspace.worker or make_worker_id('lock')}#{uuid4().hex[:8]}"
    end = time.monotonic() + rules.lock_wait_s
    while (fence := catalogue.locks.acquire(name, owner, rules.lease_s)) is None:
        if time.monotonic() >= end:
            holder = catalogue.locks.get(name)
            raise LockBusy(
                f"lock {name!r} is held by {holder.owner if holder else 'nobody'} for over "
                f"{rules.lock_wait_s:g} s; wait for that run, or raise SEGVIGEN_WORK_LOCK_WAIT_S"
            )
        time.sleep(min(POLL_S, max(0.0, end - time.monotonic())))
    held, is_over = HeldLock(catalogue, name, fence), threading.Event()
    thread = threading.Thread(
        target=_renew, args=(held, rules.lease_s, is_over), name="lock", daemon=True
    )
    thread.start()
    try:
        yield held
    finally:
        is_over.set()
        thread.join()
        catalogue.locks.release(name, fence)


def _renew(held: HeldLock, lease_s: float, is_over: threading.Event) -> None:
    num_idle, before = 0, held.num_steps
    while num_idle < MAX_IDLE_LEASES * RENEWALS_A_LEASE:
        if is_over.wait(lease_s / RENEWALS_A_LEASE):
            return
        num_idle, before = (num_idle + 1 if held.num_steps == before else 0), held.num_steps
        try:
            held.catalogue.locks.renew(held.name, held.fence, lease_s)
        except LockLost as err:
            log.warning("lock=%s lost: %s", held.name, err)
            return
        except SQLAlchemyError as err:  # the next renewal may succeed
            log.warning("lock=%s not renewed: %s", held.name, err)
    log.warning("lock=%s no progress for too long: no longer renewed", held.name)
