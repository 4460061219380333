"""The catalogue's front door: assets, their moves and leases; the other tables hang below it.

`catalogue.raw`, `.reviews`, `.labels`, `.quality` and `.blobs` are the ledgers of raw objects, of
reviews, of label sets, shards and checkpoints, of quality control, and of content hashes. Every
change writes an event in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tasks.catalogue.blobs import BlobLedger
from tasks.catalogue.database import Database
from tasks.catalogue.devices import DeviceLedger
from tasks.catalogue.engine import CatalogueError
from tasks.catalogue.labels import LabelLedger
from tasks.catalogue.leases import LeaseLedger, LeaseTerms
from tasks.catalogue.locks import LockLedger
from tasks.catalogue.moves import CHANGEABLE, AssetMoves, LeaseMemory
from tasks.catalogue.overview import OverviewLedger
from tasks.catalogue.plan import PlanLedger
from tasks.catalogue.quality import QualityLedger
from tasks.catalogue.quarantine import QuarantineLedger
from tasks.catalogue.raw import RawLedger
from tasks.catalogue.reviews import ReviewLedger
from tasks.catalogue.rows import AssetRow, EventRow, ProposalRow
from tasks.catalogue.states import PARKED, AssetState


class Catalogue:
    """State of every asset.

    Args:
        url: "sqlite:///path" or "postgresql://user:password@host/database".
        clock: seconds since the epoch, for tests; None = the database's own clock.
    """

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        self._db = Database(url, clock)
        memory = LeaseMemory()
        self._moves = AssetMoves(self._db, memory)
        self._leases = LeaseLedger(self._db, self._moves, memory)
        self.devices = DeviceLedger(self._db, self._moves, memory)
        self.raw = RawLedger(self._db)
        self.reviews = ReviewLedger(self._db)
        self.labels = LabelLedger(self._db)
        self.quality = QualityLedger(self._db)
        self.overview = OverviewLedger(self._db)
        self.plan = PlanLedger(self._db)
        self.blobs = BlobLedger(self._db)
        self.quarantine = QuarantineLedger(self._db)
        self.locks = LockLedger(self._db)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything changed inside (by this thread) is stored together or not at all."""
        with self._db.begin():
            yield

    # --- assets

    def register(self, asset: AssetRow) -> bool:
        """Add an asset in state registered; False (and no change) when it is there already."""
        with self._db.begin():
            now = self._db.clock()
            row = replace(asset, state=AssetState.REGISTERED, created_at=now, updated_at=now)
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
        return self._moves.lock(asset_id)

    def lock_all(self, state: AssetState) -> list[str]:
        """Ids of the assets in a state, which nobody else can change until the transaction ends."""
        return self._moves.lock_all(state)

    def find_asset(self, asset_id: str) -> AssetRow | None:
        """One asset, or None when unknown."""
        return self._db.load_first(sa.select(AssetRow).where(AssetRow.asset_id == asset_id))

    def list_assets(self, state: AssetState | str | None = None) -> list[AssetRow]:
        """All assets, or those in one state, oldest first."""
        query = sa.select(AssetRow).order_by(AssetRow.created_at, AssetRow.asset_id)
        if state is not None:
            query = query.where(AssetRow.state == AssetState(state))
        return self._db.load(query)

    def list_suspects(self) -> list[AssetRow]:
        """Assets that workers died with and that no attempt has cleared since; not the parked."""
        query = sa.select(AssetRow).where(AssetRow.is_suspect.is_(True))
        query = query.where(AssetRow.state.not_in([str(state) for state in PARKED]))
        return self._db.load(query.order_by(AssetRow.asset_id))

    def count_assets(self) -> dict[AssetState, int]:
        """Number of assets in every state, zeros included."""
        query = sa.select(AssetRow.state, sa.func.count().label("number")).group_by(AssetRow.state)
        found = {row["state"]: int(row["number"]) for row in self._db.mappings(query)}
        return {state: found.get(state, 0) for state in AssetState}

    def update(self, asset_id: str, **fields: Any) -> None:
        """Change facts about an asset (name, licence, priority, ...) without moving it."""
        unknown = set(fields) - CHANGEABLE
        if unknown:
            raise CatalogueError(f"fields {sorted(unknown)} of an asset cannot be changed here")
        with self._db.begin():
            self._moves.change(self.lock_asset(asset_id), fields)
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
            worker: if given, it must still hold the lease that it took (LeaseLost otherwise).
            fields: other facts to store with the move, e.g. encoding_key.

        Raises:
            IllegalMove: the table has no such move.
        """
        return self._moves.move(
            asset_id,
            to_state,
            reason=reason,
            detail=detail,
            round=round,
            worker=worker,
            **fields,
        )

    def move_all(
        self,
        asset_ids: Collection[str],
        from_state: AssetState,
        to_state: AssetState,
        *,
        detail: str | None = None,
    ) -> int:
        """Move many assets that are in one state, each with its event, as `move` would.

        Args:
            asset_ids: which; those in another state are left alone.
            from_state, to_state: a move of ALLOWED_MOVES; not to a parking place.
            detail: one sentence for people, in the events.

        Returns:
            How many were moved.
        """
        return self._moves.move_all(asset_ids, from_state, to_state, detail)

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
        return self._moves.record_failure(
            asset_id,
            error,
            max_attempts=max_attempts,
            retry_after_s=retry_after_s,
            worker=worker,
        )

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
        max_deaths: int = 2,
        where: sa.ColumnElement[bool] | None = None,
    ) -> list[AssetRow]:
        """Lease up to `limit` free assets in `states` to `worker`, highest priority first.

        No asset is ever leased twice at a time. Leases that ran out, or whose process on this
        machine is gone, are free. What a dead worker held is claimed alone from then on, until an
        attempt at it ends; after `max_deaths` deaths alone it is parked as the workers' killer.
        """
        return self._leases.claim(states, limit, worker, LeaseTerms(lease_s, max_deaths), where)

    def start(self, asset_id: str, worker: str) -> None:
        """Record that work on a leased asset begins now; raises LeaseLost if it is not ours."""
        self._leases.start(asset_id, worker)

    def end(self, asset_id: str, worker: str) -> None:
        """Record that work on an asset has ended though it stays leased; a move implies it."""
        self._leases.end(asset_id, worker)

    def renew(self, asset_ids: Collection[str], worker: str, lease_s: float = 600.0) -> list[str]:
        """Prolong leases; returns the ids that `worker` still holds.

        Leases that ended meanwhile, because the database could not be reached, are taken back
        unless another worker has claimed the asset, or anybody has moved it.
        """
        return self._leases.renew(asset_ids, worker, lease_s)

    def release(self, asset_ids: Collection[str], worker: str) -> None:
        """Give leases back; assets of other workers are left alone."""
        self._leases.release(asset_ids, worker)

    # --- proposals

    def add_proposal(self, proposal: ProposalRow) -> None:
        """Record the proposal of a round; the same round again replaces it."""
        with self._db.begin():
            row = replace(proposal, created_at=self._db.clock())
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
        query = sa.select(ProposalRow).where(ProposalRow.asset_id == asset_id).limit(1)
        return self._db.load_first(query.order_by(ProposalRow.round.desc()))

    # --- journal

    def list_events(self, asset_id: str | None = None, kind: str | None = None) -> list[EventRow]:
        """The journal, oldest first, of one asset and one kind if given."""
        query = sa.select(EventRow).order_by(EventRow.event_id)
        if asset_id is not None:
            query = query.where(EventRow.asset_id == asset_id)
        if kind is not None:
            query = query.where(EventRow.kind == kind)
        return self._db.load(query)
