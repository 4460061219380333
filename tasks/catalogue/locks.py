"""Named locks for work that one process at a time may do, such as building a dataset.

A lock is a row with an owner, an end by the database's clock and a fence: a number that grows
with every owner. A lock that is not renewed, or whose process on this machine is gone, is free
for the next one; the former owner finds another fence and must not publish.
"""

from __future__ import annotations

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.engine import CatalogueError
from tasks.catalogue.rows import LockRow
from tasks.catalogue.workers import is_dead


class LockLost(CatalogueError):
    """Another process holds the lock now; what this one made must not count."""


class LockLedger:
    """Locks by name; they are no history, so nothing is written to the journal."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def acquire(self, name: str, owner: str, lease_s: float) -> int | None:
        """Take a lock that is free, expired, or held by a dead process.

        Args:
            name: what is locked.
            owner: who asks; a name as of `make_worker_id`, and unique to this acquisition.
            lease_s: how long it is held unless it is renewed.

        Returns:
            The fence, higher than any before; None while another owner holds the lock.
        """
        with self._db.begin() as connection:
            self._db.insert(LockRow(name))
            held = self._load(name)
            now = self._db.clock()
            if held.owner is not None and held.until > now and not is_dead(held.owner):
                return None
            fence = held.fence + 1
            change = {"owner": owner, "fence": fence, "until": now + lease_s}
            connection.execute(sa.update(LockRow).where(LockRow.name == name).values(**change))
        return fence

    def renew(self, name: str, fence: int, lease_s: float) -> None:
        """Prolong a lock; raises LockLost if another owner has taken it."""
        with self._db.begin() as connection:
            self.check(name, fence)
            change = sa.update(LockRow).where(LockRow.name == name)
            connection.execute(change.values(until=self._db.clock() + lease_s))

    def check(self, name: str, fence: int) -> None:
        """Raise LockLost unless `fence` is the present one; it stays so until the transaction ends.

        A lock that ran out and that nobody has taken since still counts.
        """
        held = self._load(name)
        if held.fence != fence or held.owner is None:
            holder = held.owner or "nobody"
            raise LockLost(
                f"lock {name!r} was taken over by {holder} (fence {held.fence}, ours {fence}); "
                "nothing was published, start again"
            )

    def release(self, name: str, fence: int) -> None:
        """Give a lock back; that of another owner is left alone."""
        with self._db.begin() as connection:
            mine = (LockRow.name == name, LockRow.fence == fence)
            connection.execute(sa.update(LockRow).where(*mine).values(owner=None, until=0.0))

    def raise_fence(self, name: str, fence: int) -> None:
        """Let the next owner's fence be higher than `fence`, for what is imported."""
        with self._db.begin() as connection:
            self._db.insert(LockRow(name))
            lower = (LockRow.name == name, LockRow.fence < fence)
            connection.execute(sa.update(LockRow).where(*lower).values(fence=fence))

    def get(self, name: str) -> LockRow | None:
        """Who holds a lock, or held it last; None if nobody ever did."""
        return self._db.load_first(sa.select(LockRow).where(LockRow.name == name))

    def _load(self, name: str) -> LockRow:
        query = sa.select(LockRow).where(LockRow.name == name)
        found = self._db.load_first(query if self._db.is_sqlite else query.with_for_update())
        if found is None:
            raise LockLost(f"lock {name!r} is not in the catalogue; start again")
        return found
