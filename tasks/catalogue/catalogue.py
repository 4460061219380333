"""The catalogue's front door: assets, their moves and leases; the other tables hang below it.

`catalogue.raw`, `.reviews`, `.labels` and `.quality` are the ledgers of raw objects, of the desk,
of label sets, shards and checkpoints, and of quality control. Every change writes an event in the
same transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tasks.catalogue.database import CatalogueError, Database, values
from tasks.catalogue.labels import LabelLedger
from tasks.catalogue.leases import is_dead
from tasks.catalogue.quality import QualityLedger
from tasks.catalogue.raw import RawLedger
from tasks.catalogue.reviews import ReviewLedger
from tasks.catalogue.rows import AssetRow, EventRow, ProposalRow
from tasks.catalogue.states import PARKED, AssetState, check_move
from tasks.catalogue.tables import assets as A
from tasks.catalogue.tables import events as E
from tasks.catalogue.tables import proposals as P

MAX_ERROR_CHARS = 2000
_FREE = {"lease_owner": None, "lease_until": 0.0, "is_started": False}
_CHANGEABLE = frozenset(
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


class LeaseLost(CatalogueError):
    """Another worker holds the asset now; what this one made must not count."""


class Catalogue:
    """State of every asset.

    Args:
        url: "sqlite:///path" or "postgresql://user:password@host/database".
        clock: seconds since the epoch; tests pass their own.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._db = Database(url, clock)
        self.raw = RawLedger(self._db)
        self.reviews = ReviewLedger(self._db)
        self.labels = LabelLedger(self._db)
        self.quality = QualityLedger(self._db)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything changed inside (by this thread) is stored together or not at all."""
        with self._db.begin():
            yield

    # --- assets

    def register(self, asset: AssetRow) -> bool:
        """Add an asset in state registered; False (and no change) when it is there already."""
        now = self._db.clock()
        row = replace(asset, state=AssetState.REGISTERED, created_at=now, updated_at=now)
        with self._db.begin():
            if not self._db.insert(A, values(row)):
                return False
            self._db.event("registered", asset.asset_id, {"name": asset.name})
        return True

    def asset(self, asset_id: str) -> AssetRow:
        """One asset; raises CatalogueError when unknown."""
        found = self._db.rows(sa.select(A).where(A.c.asset_id == asset_id))
        if not found:
            raise CatalogueError(f"unknown asset {asset_id[:64]!r}")
        return _asset(found[0])

    def locked(self, asset_id: str) -> AssetRow:
        """One asset that nobody else can change until the open transaction ends."""
        query = sa.select(A).where(A.c.asset_id == asset_id)
        found = self._db.rows(query if self._db.is_sqlite else query.with_for_update())
        if not found:
            raise CatalogueError(f"unknown asset {asset_id[:64]!r}")
        return _asset(found[0])

    def find_asset(self, asset_id: str) -> AssetRow | None:
        """One asset, or None when unknown."""
        found = self._db.rows(sa.select(A).where(A.c.asset_id == asset_id))
        return _asset(found[0]) if found else None

    def assets(self, state: AssetState | str | None = None) -> list[AssetRow]:
        """All assets, or those in one state, oldest first."""
        query = sa.select(A).order_by(A.c.created_at, A.c.asset_id)
        if state is not None:
            query = query.where(A.c.state == AssetState(state))
        return [_asset(row) for row in self._db.rows(query)]

    def counts(self) -> dict[AssetState, int]:
        """Number of assets in every state, zeros included."""
        query = sa.select(A.c.state, sa.func.count().label("number")).group_by(A.c.state)
        found = {row["state"]: int(row["number"]) for row in self._db.rows(query)}
        return {state: found.get(state, 0) for state in AssetState}

    def update(self, asset_id: str, **fields: Any) -> None:
        """Change facts about an asset (name, licence, priority, ...) without moving it."""
        unknown = set(fields) - _CHANGEABLE
        if unknown:
            raise CatalogueError(f"fields {sorted(unknown)} of an asset cannot be changed here")
        with self._db.begin():
            self._change(asset_id, fields)
            self._db.event("updated", asset_id, fields)

    # --- moves

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
        """Move an asset to another state and end its lease.

        Args:
            asset_id: which.
            to_state: where to; must be in ALLOWED_MOVES.
            reason: short word for parking places, e.g. "no_faces".
            detail: one sentence for people.
            round: new round number, for refinements.
            worker: if given, it must still hold the lease (LeaseLost otherwise).
            fields: other facts to store with the move, e.g. encoding_key.

        Raises:
            IllegalMove: the table has no such move.
        """
        new = AssetState(to_state)
        with self._db.begin():
            old = self.locked(asset_id)
            _check_lease(old, worker)
            check_move(asset_id, old.state, new)
            if set(fields) - _CHANGEABLE:
                raise CatalogueError(f"unknown fields {sorted(set(fields) - _CHANGEABLE)}")
            changes = {**fields, **_arrival(old, new, reason, detail)}
            if round is not None:
                changes["round"] = round
            self._change(asset_id, changes)
            told = {"from": old.state, "to": new, "round": changes.get("round", old.round)}
            self._db.event("moved", asset_id, {**told, "reason": reason, "detail": detail}, worker)
        return self.asset(asset_id)

    def record_failure(
        self,
        asset_id: str,
        error: str,
        *,
        max_attempts: int = 3,
        retry_after_s: float = 0.0,
        worker: str | None = None,
    ) -> AssetRow:
        """Count a failed attempt; after `max_attempts` the asset is parked as failed.

        Until then it stays where it is, free for the next worker after `retry_after_s`.
        """
        text = error[:MAX_ERROR_CHARS]
        with self._db.begin():
            old = self.locked(asset_id)
            _check_lease(old, worker)
            attempts = old.attempts + 1
            self._db.event("attempt_failed", asset_id, {"n": attempts, "error": text}, worker)
            if attempts >= max_attempts and old.state not in PARKED:
                self._change(asset_id, {"attempts": attempts, "last_error": text})
                reason = f"{old.state}_failed"
                return self.move(asset_id, AssetState.FAILED, reason=reason, detail=text)
            pause = self._db.clock() + retry_after_s if retry_after_s else 0.0
            free = {"lease_owner": None, "lease_until": pause, "is_started": False}
            self._change(asset_id, {**free, "attempts": attempts, "last_error": text})
        return self.asset(asset_id)

    def retry(self, asset_id: str) -> AssetRow:
        """Take a parked asset back to where it stood before it was parked."""
        old = self.asset(asset_id)
        if old.source_key is None:
            raise CatalogueError(f"asset {asset_id[:12]} has no source; ingest its object again")
        if old.state not in PARKED:
            raise CatalogueError(f"asset {asset_id[:12]} is {old.state}, not parked")
        target = AssetState(old.parked_from or AssetState.REGISTERED)
        if old.state is not AssetState.FAILED:  # look at it again, from the last proposal on
            has_proposal = self.latest_proposal(asset_id) is not None
            target = AssetState.PROPOSED if has_proposal else AssetState.REGISTERED
        return self.move(asset_id, target, reason="retry")

    # --- leases

    def claim(
        self,
        states: Collection[AssetState | str],
        limit: int,
        worker: str,
        lease_s: float = 600.0,
        max_attempts: int = 3,
        where: sa.ColumnElement[bool] | None = None,
    ) -> list[AssetRow]:
        """Lease up to `limit` free assets in `states` to `worker`, highest priority first.

        No asset is ever leased twice at a time. Leases that ran out, or whose process on this
        machine is gone, are free; the asset that such a worker had begun counts a failed attempt,
        so that one that kills its worker is parked after `max_attempts`.
        """
        wanted = [str(AssetState(state)) for state in states]
        now = self._db.clock()
        free = sa.select(A).where(A.c.state.in_(wanted), A.c.lease_until <= now)
        free = free if where is None else free.where(where)
        free = free.order_by(A.c.priority.desc(), A.c.updated_at, A.c.asset_id).limit(limit)
        with self._db.begin() as connection:
            self._free_lost(now, max_attempts)
            if not self._db.is_sqlite:
                free = free.with_for_update(skip_locked=True)
            found = [_asset(dict(row)) for row in connection.execute(free).mappings()]
            ids = [asset.asset_id for asset in found]
            lease = {"lease_owner": worker, "lease_until": now + lease_s}
            if ids:
                connection.execute(sa.update(A).where(A.c.asset_id.in_(ids)).values(**lease))
                self._db.event("claimed", None, {"assets": ids, "lease_s": lease_s}, worker)
        return [replace(asset, lease_owner=worker, lease_until=now + lease_s) for asset in found]

    def start(self, asset_id: str, worker: str) -> None:
        """Say that work on a leased asset begins now; raises LeaseLost if it is not ours."""
        mine = (A.c.asset_id == asset_id, A.c.lease_owner == worker)
        with self._db.begin() as connection:
            if connection.execute(sa.update(A).where(*mine).values(is_started=True)).rowcount != 1:
                raise LeaseLost(f"asset {asset_id[:12]} is not leased to {worker}")
            self._db.event("started", asset_id, {}, worker)

    def end(self, asset_id: str, worker: str) -> None:
        """Say that work on an asset is over though it stays leased; a move says so by itself."""
        mine = (A.c.asset_id == asset_id, A.c.lease_owner == worker, A.c.is_started)
        with self._db.begin() as connection:
            if connection.execute(sa.update(A).where(*mine).values(is_started=False)).rowcount:
                self._db.event("ended", asset_id, {}, worker)

    def renew(self, asset_ids: Collection[str], worker: str, lease_s: float = 600.0) -> list[str]:
        """Prolong leases; returns the ids that `worker` still holds."""
        until = self._db.clock() + lease_s
        mine = (A.c.asset_id.in_(list(asset_ids)), A.c.lease_owner == worker)
        with self._db.begin() as connection:
            connection.execute(sa.update(A).where(*mine).values(lease_until=until))
            return [row["asset_id"] for row in self._db.rows(sa.select(A.c.asset_id).where(*mine))]

    def release(self, asset_ids: Collection[str], worker: str) -> None:
        """Give leases back; assets of other workers are left alone."""
        mine = (A.c.asset_id.in_(list(asset_ids)), A.c.lease_owner == worker)
        with self._db.begin() as connection:
            free = sa.update(A).where(*mine).values(**_FREE)
            if connection.execute(free).rowcount:
                self._db.event("released", None, {"assets": sorted(asset_ids)}, worker)

    # --- proposals

    def add_proposal(self, proposal: ProposalRow) -> None:
        """Record the proposal of a round; the same round again replaces it."""
        row = replace(proposal, created_at=self._db.clock())
        with self._db.begin():
            self._db.upsert(P, values(row))
            told = {"round": row.round, "key": row.key, "confidence": row.confidence}
            self._db.event("proposal", row.asset_id, told)

    def proposal(self, asset_id: str, round: int) -> ProposalRow | None:
        """The proposal of one round, or None."""
        query = sa.select(P).where(P.c.asset_id == asset_id, P.c.round == round)
        found = self._db.rows(query)
        return ProposalRow(**found[0]) if found else None

    def proposals(self, asset_id: str) -> list[ProposalRow]:
        """All rounds' proposals, first round first."""
        query = sa.select(P).where(P.c.asset_id == asset_id).order_by(P.c.round)
        return [ProposalRow(**row) for row in self._db.rows(query)]

    def latest_proposal(self, asset_id: str) -> ProposalRow | None:
        """The newest round's proposal, or None."""
        found = self.proposals(asset_id)
        return found[-1] if found else None

    # --- journal

    def events(self, asset_id: str | None = None, kind: str | None = None) -> list[EventRow]:
        """The journal, oldest first, of one asset and one kind if given."""
        query = sa.select(E).order_by(E.c.event_id)
        if asset_id is not None:
            query = query.where(E.c.asset_id == asset_id)
        if kind is not None:
            query = query.where(E.c.kind == kind)
        return [EventRow(**row) for row in self._db.rows(query)]

    # --- inner

    def _change(self, asset_id: str, changes: Mapping[str, Any]) -> None:
        stamped = {**changes, "updated_at": self._db.clock()}
        with self._db.begin() as connection:
            done = connection.execute(
                sa.update(A).where(A.c.asset_id == asset_id).values(**stamped)
            )
            if done.rowcount != 1:
                raise CatalogueError(f"unknown asset {asset_id[:64]!r}")

    def _free_lost(self, now: float, max_attempts: int) -> None:
        """Free leases of dead workers and old ones; count the attempts that they began."""
        with self._db.begin() as connection:
            held = sa.select(A.c.lease_owner).where(A.c.lease_owner.is_not(None)).distinct()
            owners = [str(row[0]) for row in connection.execute(held)]
            dead = [owner for owner in owners if is_dead(owner)]
            is_over = A.c.lease_owner.is_not(None) & (A.c.lease_until <= now)
            lost = sa.select(A).where(is_over | A.c.lease_owner.in_(dead))
            if not self._db.is_sqlite:
                lost = lost.with_for_update(skip_locked=True)
            rows = [_asset(dict(row)) for row in connection.execute(lost).mappings()]
            if not rows:
                return
            ids = [row.asset_id for row in rows]
            connection.execute(sa.update(A).where(A.c.asset_id.in_(ids)).values(**_FREE))
            self._db.event("leases_lost", None, {"assets": ids, "dead": dead})
            for row in rows:
                if row.is_started:
                    error = f"worker {row.lease_owner} died or stalled at work (killed, no memory?)"
                    self.record_failure(row.asset_id, error, max_attempts=max_attempts)


def _check_lease(asset: AssetRow, worker: str | None) -> None:
    if worker is not None and asset.lease_owner != worker:
        holder = asset.lease_owner or "nobody"
        raise LeaseLost(f"asset {asset.asset_id[:12]} is now held by {holder}")


def _asset(row: Mapping[str, Any]) -> AssetRow:
    return AssetRow(**{**row, "state": AssetState(row["state"])})


def _arrival(
    old: AssetRow, new: AssetState, reason: str | None, detail: str | None
) -> dict[str, Any]:
    """Columns that any move sets: the lease ends; only parking keeps reason and attempts."""
    changes: dict[str, Any] = {"state": str(new), **_FREE}
    if new in PARKED:
        return {**changes, "reason": reason, "detail": detail, "parked_from": str(old.state)}
    clear = {"reason": None, "detail": None, "parked_from": None, "attempts": 0, "last_error": None}
    return {**changes, **clear}
