"""The catalogue's front door: assets, their moves and leases; the other tables hang below it.

`catalogue.raw`, `.reviews`, `.labels`, `.quality` and `.blobs` are the ledgers of raw objects, of
reviews, of label sets, shards and checkpoints, of quality control, and of content hashes. Every
change writes an event in the same transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tasks.catalogue.blobs import BlobLedger
from tasks.catalogue.database import Database
from tasks.catalogue.engine import CatalogueError
from tasks.catalogue.labels import LabelLedger
from tasks.catalogue.leases import is_dead
from tasks.catalogue.locks import LockLedger
from tasks.catalogue.quality import QualityLedger
from tasks.catalogue.raw import RawLedger
from tasks.catalogue.reviews import ReviewLedger
from tasks.catalogue.rows import AssetRow, EventRow, ProposalRow
from tasks.catalogue.states import PARKED, AssetState, check_move

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
        self.blobs = BlobLedger(self._db)
        self.locks = LockLedger(self._db)

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
            if not self._db.insert(row):
                return False
            self._db.add_event("registered", asset.asset_id, {"name": asset.name})
        return True

    def get_asset(self, asset_id: str) -> AssetRow:
        """One asset; raises CatalogueError when unknown."""
        found = self.find_asset(asset_id)
        if found is None:
            raise CatalogueError(f"unknown asset {asset_id[:64]!r}")
        return found

    def lock_asset(self, asset_id: str) -> AssetRow:
        """One asset that nobody else can change until the open transaction ends."""
        query = sa.select(AssetRow).where(AssetRow.asset_id == asset_id)
        found = self._db.load_first(query if self._db.is_sqlite else query.with_for_update())
        if found is None:
            raise CatalogueError(f"unknown asset {asset_id[:64]!r}")
        return found

    def find_asset(self, asset_id: str) -> AssetRow | None:
        """One asset, or None when unknown."""
        return self._db.load_first(sa.select(AssetRow).where(AssetRow.asset_id == asset_id))

    def list_assets(self, state: AssetState | str | None = None) -> list[AssetRow]:
        """All assets, or those in one state, oldest first."""
        query = sa.select(AssetRow).order_by(AssetRow.created_at, AssetRow.asset_id)
        if state is not None:
            query = query.where(AssetRow.state == AssetState(state))
        return self._db.load(query)

    def count_assets(self) -> dict[AssetState, int]:
        """Number of assets in every state, zeros included."""
        query = sa.select(AssetRow.state, sa.func.count().label("number")).group_by(AssetRow.state)
        found = {row["state"]: int(row["number"]) for row in self._db.mappings(query)}
        return {state: found.get(state, 0) for state in AssetState}

    def update(self, asset_id: str, **fields: Any) -> None:
        """Change facts about an asset (name, licence, priority, ...) without moving it."""
        unknown = set(fields) - _CHANGEABLE
        if unknown:
            raise CatalogueError(f"fields {sorted(unknown)} of an asset cannot be changed here")
        with self._db.begin():
            self._change_asset(self.lock_asset(asset_id), fields)
            self._db.add_event("updated", asset_id, fields)

    # --- moves

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
            old = self.lock_asset(asset_id)
            _check_lease(old, worker)
            check_move(asset_id, old.state, new)
            if set(fields) - _CHANGEABLE:
                raise CatalogueError(f"unknown fields {sorted(set(fields) - _CHANGEABLE)}")
            changes = {**fields, **_make_arrival_columns(old, new, reason, detail)}
            if round is not None:
                changes["round"] = round
            moved = self._change_asset(old, changes)
            event_detail = {"from": old.state, "to": new, "round": moved.round}
            self._db.add_event(
                "moved", asset_id, {**event_detail, "reason": reason, "detail": detail}, worker
            )
        return moved

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
            old = self.lock_asset(asset_id)
            _check_lease(old, worker)
            attempts = old.attempts + 1
            self._db.add_event("attempt_failed", asset_id, {"n": attempts, "error": text}, worker)
            if attempts >= max_attempts and old.state not in PARKED:
                self._change_asset(old, {"attempts": attempts, "last_error": text})
                reason = f"{old.state}_failed"
                return self.move(asset_id, AssetState.FAILED, reason=reason, detail=text)
            pause = self._db.clock() + retry_after_s if retry_after_s else 0.0
            free = {"lease_owner": None, "lease_until": pause, "is_started": False}
            return self._change_asset(old, {**free, "attempts": attempts, "last_error": text})

    def retry(self, asset_id: str) -> AssetRow:
        """Take a parked asset back to where it stood before it was parked."""
        old = self.get_asset(asset_id)
        if old.source_key is None:
            raise CatalogueError(f"asset {asset_id[:12]} has no source; ingest its object again")
        if old.state not in PARKED:
            raise CatalogueError(f"asset {asset_id[:12]} is {old.state}, not parked")
        target = AssetState(old.parked_from or AssetState.REGISTERED)
        if old.state is not AssetState.FAILED:  # review it again, from the last proposal on
            has_proposal = self.get_latest_proposal(asset_id) is not None
            target = AssetState.PROPOSED if has_proposal else AssetState.REGISTERED
        return self.move(asset_id, target, reason="retry")

    # --- leases

    # More than five parameters: the terms of a lease are settings of the caller.
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
        is_free = (AssetRow.state.in_(wanted), AssetRow.lease_until <= now)
        first = (AssetRow.priority.desc(), AssetRow.updated_at, AssetRow.asset_id)
        free = sa.select(AssetRow.asset_id).where(*is_free).order_by(*first).limit(limit)
        free = free if where is None else free.where(where)
        with self._db.begin() as connection:
            self._free_lost(now, max_attempts)
            if not self._db.is_sqlite:
                free = free.with_for_update(skip_locked=True)
            ids = list(connection.execute(free).scalars())
            if not ids:
                return []
            lease = sa.update(AssetRow).where(AssetRow.asset_id.in_(ids))
            lease = lease.values(lease_owner=worker, lease_until=now + lease_s)
            leased = {row.asset_id: row for row in self._db.load(lease.returning(AssetRow))}
            self._db.add_event("claimed", None, {"assets": ids, "lease_s": lease_s}, worker)
        return [leased[asset_id] for asset_id in ids]

    def start(self, asset_id: str, worker: str) -> None:
        """Record that work on a leased asset begins now; raises LeaseLost if it is not ours."""
        own_lease = (AssetRow.asset_id == asset_id, AssetRow.lease_owner == worker)
        with self._db.begin() as connection:
            begin = sa.update(AssetRow).where(*own_lease).values(is_started=True)
            if connection.execute(begin).rowcount != 1:
                raise LeaseLost(f"asset {asset_id[:12]} is not leased to {worker}")
            self._db.add_event("started", asset_id, {}, worker)

    def end(self, asset_id: str, worker: str) -> None:
        """Record that work on an asset has ended though it stays leased; a move implies it."""
        own_lease = (
            AssetRow.asset_id == asset_id,
            AssetRow.lease_owner == worker,
            AssetRow.is_started,
        )
        with self._db.begin() as connection:
            over = sa.update(AssetRow).where(*own_lease).values(is_started=False)
            if connection.execute(over).rowcount:
                self._db.add_event("ended", asset_id, {}, worker)

    def renew(self, asset_ids: Collection[str], worker: str, lease_s: float = 600.0) -> list[str]:
        """Prolong leases; returns the ids that `worker` still holds."""
        until = self._db.clock() + lease_s
        own_lease = (AssetRow.asset_id.in_(list(asset_ids)), AssetRow.lease_owner == worker)
        with self._db.begin() as connection:
            connection.execute(sa.update(AssetRow).where(*own_lease).values(lease_until=until))
            held = connection.execute(sa.select(AssetRow.asset_id).where(*own_lease))
            return [str(asset_id) for asset_id in held.scalars()]

    def release(self, asset_ids: Collection[str], worker: str) -> None:
        """Give leases back; assets of other workers are left alone."""
        own_lease = (AssetRow.asset_id.in_(list(asset_ids)), AssetRow.lease_owner == worker)
        with self._db.begin() as connection:
            free = sa.update(AssetRow).where(*own_lease).values(**_FREE)
            if connection.execute(free).rowcount:
                self._db.add_event("released", None, {"assets": sorted(asset_ids)}, worker)

    # --- proposals

    def add_proposal(self, proposal: ProposalRow) -> None:
        """Record the proposal of a round; the same round again replaces it."""
        row = replace(proposal, created_at=self._db.clock())
        with self._db.begin():
            self._db.upsert(row)
            event_detail = {"round": row.round, "key": row.key, "confidence": row.confidence}
            self._db.add_event("proposal", row.asset_id, event_detail)

    def get_proposal(self, asset_id: str, round: int) -> ProposalRow | None:
        """The proposal of one round, or None."""
        query = sa.select(ProposalRow).where(
            ProposalRow.asset_id == asset_id, ProposalRow.round == round
        )
        return self._db.load_first(query)

    def list_proposals(self, asset_id: str) -> list[ProposalRow]:
        """All rounds' proposals, first round first."""
        query = (
            sa.select(ProposalRow)
            .where(ProposalRow.asset_id == asset_id)
            .order_by(ProposalRow.round)
        )
        return self._db.load(query)

    def get_latest_proposal(self, asset_id: str) -> ProposalRow | None:
        """The newest round's proposal, or None."""
        found = self.list_proposals(asset_id)
        return found[-1] if found else None

    # --- journal

    def list_events(self, asset_id: str | None = None, kind: str | None = None) -> list[EventRow]:
        """The journal, oldest first, of one asset and one kind if given."""
        query = sa.select(EventRow).order_by(EventRow.event_id)
        if asset_id is not None:
            query = query.where(EventRow.asset_id == asset_id)
        if kind is not None:
            query = query.where(EventRow.kind == kind)
        return self._db.load(query)

    # --- inner

    def _change_asset(self, old: AssetRow, changes: Mapping[str, Any]) -> AssetRow:
        """Change columns of a locked asset; returns the row as it is then."""
        stamped = {**changes, "updated_at": self._db.clock()}
        change = sa.update(AssetRow).where(AssetRow.asset_id == old.asset_id)
        with self._db.begin() as connection:
            connection.execute(change.values(**stamped))
        return replace(old, **stamped)

    def _free_lost(self, now: float, max_attempts: int) -> None:
        """Free leases of dead workers and old ones; count the attempts that they began."""
        with self._db.begin() as connection:
            is_held = AssetRow.lease_owner.is_not(None)
            first_end = sa.func.min(AssetRow.lease_until)
            leases = sa.select(AssetRow.lease_owner, first_end).where(is_held)
            held = connection.execute(leases.group_by(AssetRow.lease_owner)).all()
            dead = [str(owner) for owner, _ in held if is_dead(str(owner))]
            if not dead and all(end > now for _, end in held):
                return
            is_over = is_held & (AssetRow.lease_until <= now)
            lost = sa.select(AssetRow).where(is_over | AssetRow.lease_owner.in_(dead))
            if not self._db.is_sqlite:
                lost = lost.with_for_update(skip_locked=True)
            rows = self._db.load(lost)
            if not rows:
                return
            ids = [row.asset_id for row in rows]
            those = AssetRow.asset_id.in_(ids)
            connection.execute(sa.update(AssetRow).where(those).values(**_FREE))
            self._db.add_event("leases_lost", None, {"assets": ids, "dead": dead})
            for row in rows:
                if row.is_started:
                    error = f"worker {row.lease_owner} died or stalled at work (killed, no memory?)"
                    self.record_failure(row.asset_id, error, max_attempts=max_attempts)


def _check_lease(asset: AssetRow, worker: str | None) -> None:
    if worker is not None and asset.lease_owner != worker:
        holder = asset.lease_owner or "nobody"
        raise LeaseLost(f"asset {asset.asset_id[:12]} is now held by {holder}")


def _make_arrival_columns(
    old: AssetRow, new: AssetState, reason: str | None, detail: str | None
) -> dict[str, Any]:
    """Columns that any move sets: the lease ends; only parking keeps reason and attempts."""
    changes: dict[str, Any] = {"state": new, **_FREE}
    if new in PARKED:
        return {**changes, "reason": reason, "detail": detail, "parked_from": str(old.state)}
    clear = {"reason": None, "detail": None, "parked_from": None, "attempts": 0, "last_error": None}
    return {**changes, **clear}
