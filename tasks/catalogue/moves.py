"""Moves of assets between states, and the check that a move's worker still holds its lease.

A worker is recognised by its name and by the token of its lease, a number that grows with every
claim, move and release of the asset. So what was made under an older lease never counts, even if
the same worker took the asset again. A lease that ended while its worker could not reach the
database is still good as long as nobody touched the asset since: its token is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.engine import CatalogueError
from tasks.catalogue.rows import AssetRow
from tasks.catalogue.states import PARKED, AssetState, check_move

MAX_ERROR_CHARS = 2000
CHANGEABLE = frozenset(
    [
        "round",
        "encoding_key",
        "num_faces",
        "licence",
        "name",
        "priority",
        "source_key",
        "suffix",
        "size_bytes",
    ]
)
FREE: Mapping[str, Any] = {"lease_owner": None, "lease_until": 0.0, "is_started": False}
# What an asset that has survived a stage is cleared of.
INNOCENT: Mapping[str, Any] = {"is_suspect": False, "deaths": 0, "deaths_alone": 0}


class LeaseLost(CatalogueError):
    """Another worker holds the asset now; what this one made must not count."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease as the process that took it remembers it."""

    token: int
    lease_s: float


class LeaseMemory:
    """The leases that this process took, by worker and asset."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], HeldLease] = {}

    def remember(self, worker: str, asset_id: str, lease: HeldLease) -> None:
        """Keep a lease that was just taken."""
        self._held[worker, asset_id] = lease

    def forget(self, worker: str | None, asset_id: str) -> None:
        """Drop a lease that is over; one that is not known is fine."""
        self._held.pop((worker or "", asset_id), None)

    def get(self, worker: str, asset_id: str) -> HeldLease | None:
        """The lease, or None if another process, or nobody, took it."""
        return self._held.get((worker, asset_id))

    def check(self, asset: AssetRow, worker: str | None) -> None:
        """Raise LeaseLost unless `worker` holds this asset, or nobody has touched it since.

        Args:
            asset: its row, locked.
            worker: None = no lease is needed.
        """
        if worker is None:
            return
        held = self.get(worker, asset.asset_id)
        is_same = held is None or held.token == asset.lease_token
        if asset.lease_owner == worker and is_same:
            return
        if asset.lease_owner is None and held is not None and is_same:
            return
        if asset.lease_owner == worker:
            raise LeaseLost(f"asset {asset.asset_id[:12]} was leased to {worker} anew meanwhile")
        holder = asset.lease_owner or "nobody"
        raise LeaseLost(f"asset {asset.asset_id[:12]} is now held by {holder}")


class AssetMoves:
    """Changes of asset rows, each with its event."""

    def __init__(self, database: Database, memory: LeaseMemory) -> None:
        self._db, self._memory = database, memory

    def lock(self, asset_id: str) -> AssetRow:
        """One asset that nobody else can change until the open transaction ends."""
        query = sa.select(AssetRow).where(AssetRow.asset_id == asset_id)
        found = self._db.load_first(query if self._db.is_sqlite else query.with_for_update())
        if found is None:
            raise CatalogueError(f"unknown asset {asset_id[:64]!r}")
        return found

    def lock_all(self, state: AssetState) -> list[str]:
        """See `Catalogue.lock_all`."""
        query = sa.select(AssetRow.asset_id).where(AssetRow.state == str(state))
        query = query.order_by(AssetRow.asset_id)  # two who lock many do it in one order
        with self._db.begin() as connection:
            locked = query if self._db.is_sqlite else query.with_for_update()
            return list(connection.execute(locked).scalars())

    def change(self, old: AssetRow, changes: Mapping[str, Any]) -> AssetRow:
        """Change columns of a locked asset; returns the row as it is then."""
        with self._db.begin() as connection:
            stamped = {**changes, "updated_at": self._db.clock()}
            change = sa.update(AssetRow).where(AssetRow.asset_id == old.asset_id)
            connection.execute(change.values(**stamped))
        return replace(old, **stamped)

    # More than five parameters: keywords, each a fact that a move may store.
    def move(
        self,
        asset_id: str,
        to_state: AssetState | str,
        *,
        reason: str | None = None,
        detail: str | None = None,
        round: int | None = None,
        worker: str | None = None,
        **fields: Any,
    ) -> AssetRow:
        """See `Catalogue.move`."""
        new = AssetState(to_state)
        with self._db.begin():
            old = self.lock(asset_id)
            self._memory.check(old, worker)
            check_move(asset_id, old.state, new)
            if set(fields) - CHANGEABLE:
                raise CatalogueError(f"unknown fields {sorted(set(fields) - CHANGEABLE)}")
            changes = {**fields, **_make_arrival_columns(old.state, new, reason, detail)}
            changes["lease_token"] = old.lease_token + 1
            if round is not None:
                changes["round"] = round
            moved = self.change(old, changes)
            event_detail = {"from": old.state, "to": new, "round": moved.round}
            self._db.add_event(
                "moved", asset_id, {**event_detail, "reason": reason, "detail": detail}, worker
            )
        self._memory.forget(worker, asset_id)
        return moved

    def move_all(
        self,
        asset_ids: Collection[str],
        from_state: AssetState,
        to_state: AssetState,
        detail: str | None,
    ) -> int:
        """See `Catalogue.move_all`."""
        if not asset_ids:
            return 0
        check_move(min(asset_ids), from_state, to_state)
        arrival = _make_arrival_columns(from_state, to_state, None, detail)
        arrival["lease_token"] = AssetRow.lease_token + 1
        with self._db.begin() as connection:
            stamped = {**arrival, "updated_at": self._db.clock()}
            moved = sa.update(AssetRow).where(
                AssetRow.asset_id.in_(sorted(asset_ids)), AssetRow.state == str(from_state)
            )
            moved = moved.values(**stamped).returning(AssetRow.asset_id, AssetRow.round)
            rows = connection.execute(moved).all()
            about = {"from": from_state, "to": to_state, "reason": None, "detail": detail}
            events = [(row.asset_id, {**about, "round": row.round}) for row in sorted(rows)]
            self._db.add_events("moved", events)
        return len(rows)

    def record_failure(
        self,
        asset_id: str,
        error: str,
        *,
        max_attempts: int = 3,
        retry_after_s: float = 0.0,
        worker: str | None = None,
    ) -> AssetRow:
        """See `Catalogue.record_failure`."""
        text = error[:MAX_ERROR_CHARS]
        with self._db.begin():
            old = self.lock(asset_id)
            self._memory.check(old, worker)
            attempts = old.attempts + 1
            self._db.add_event("attempt_failed", asset_id, {"n": attempts, "error": text}, worker)
            if attempts >= max_attempts and old.state not in PARKED:
                self.change(old, {"attempts": attempts, "last_error": text})
                reason = f"{old.state}_failed"
                return self.move(asset_id, AssetState.FAILED, reason=reason, detail=text)
            pause = self._db.clock() + retry_after_s if retry_after_s else 0.0
            free = {**FREE, "lease_until": pause, "lease_token": old.lease_token + 1}
            self._memory.forget(worker, asset_id)
            counted = {"attempts": attempts, "last_error": text}
            return self.change(old, {**free, **INNOCENT, **counted})


def _make_arrival_columns(
    old_state: AssetState, new: AssetState, reason: str | None, detail: str | None
) -> dict[str, Any]:
    """Columns that any move sets: the lease ends; only parking keeps reason and counts."""
    changes: dict[str, Any] = {"state": new, **FREE}
    if new in PARKED:
        return {**changes, "reason": reason, "detail": detail, "parked_from": str(old_state)}
    clear = {"reason": None, "detail": None, "parked_from": None, "attempts": 0, "last_error": None}
    return {**changes, **clear, **INNOCENT}
