"""Leases: which worker works on which asset, until when, and what a worker's death says.

The database's clock decides, so a machine whose clock is wrong neither steals nor loses a lease.
A death is not a failed attempt: spot instances end and machines run out of memory. All assets that
a dead worker held become suspects. A suspect is claimed alone, by a worker that holds nothing
else, until an attempt at it ends; a worker that dies over a suspect has found its killer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.moves import FREE, INNOCENT, AssetMoves, HeldLease, LeaseLost, LeaseMemory
from tasks.catalogue.rows import AssetRow
from tasks.catalogue.states import PARKED, AssetState
from tasks.catalogue.workers import is_dead

KILLED_WORKER = "killed_worker"  # reason of an asset that is parked as its worker's killer


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How an asset is leased.

    Attributes:
        lease_s: seconds until the lease ends, if it is not renewed.
        max_deaths: workers that may die over one asset alone; then it is parked.
    """

    lease_s: float = 600.0
    max_deaths: int = 2


class LeaseLedger:
    """Claims, renewals and ends of leases.

    Args:
        database: of the catalogue.
        moves: parks the killers.
        memory: of the leases that this process took.
    """

    def __init__(self, database: Database, moves: AssetMoves, memory: LeaseMemory) -> None:
        self._db, self._moves, self._memory = database, moves, memory

    # More than five parameters: keywords, what is wanted and on which terms.
    def claim(
        self,
        states: Collection[AssetState | str],
        limit: int,
        worker: str,
        terms: LeaseTerms,
        where: sa.ColumnElement[bool] | None = None,
    ) -> list[AssetRow]:
        """See `Catalogue.claim`."""
        wanted = [str(AssetState(state)) for state in states]
        in_state = AssetRow.state == wanted[0] if len(wanted) == 1 else AssetRow.state.in_(wanted)
        with self._db.begin() as connection:
            now = self._db.clock()
            self._free_lost(now, terms.max_deaths)
            # In the order of the index `assets_by_order`.
            order = (AssetRow.priority.desc(), AssetRow.updated_at, AssetRow.asset_id)
            free = sa.select(AssetRow.asset_id, AssetRow.is_suspect)
            free = free.where(in_state, AssetRow.lease_until <= now).order_by(*order).limit(limit)
            free = free if where is None else free.where(where)
            held = self._list_held(worker)
            if any(is_suspect for _, is_suspect in held):
                return []  # it stays alone until it is done
            free = free.where(AssetRow.is_suspect.is_(False)) if held else free
            if not self._db.is_sqlite:
                free = free.with_for_update(skip_locked=True)
            ids = _choose([(row[0], row[1]) for row in connection.execute(free)])
            if not ids:
                return []
            lease = sa.update(AssetRow).where(AssetRow.asset_id.in_(ids))
            lease = lease.values(
                **_own(worker, now, terms.lease_s),
                is_started=False,
                is_alone=len(ids) == 1 and not held,
                lease_token=AssetRow.lease_token + 1,
            )
            if held:  # a second claim: what is held already is alone no more
                mine = sa.update(AssetRow).where(AssetRow.lease_owner == worker)
                connection.execute(mine.values(is_alone=False))
            leased = {row.asset_id: row for row in self._db.load(lease.returning(AssetRow))}
            event_detail = {"assets": ids, "lease_s": terms.lease_s}
            self._db.add_event("claimed", None, event_detail, worker)
        for row in leased.values():
            lease_taken = HeldLease(row.lease_token, terms.lease_s)
            self._memory.remember(worker, row.asset_id, lease_taken)
        return [leased[asset_id] for asset_id in ids]

    def start(self, asset_id: str, worker: str) -> None:
        """See `Catalogue.start`."""
        with self._db.begin() as connection:
            asset = self._moves.lock(asset_id)
            held = self._memory.get(worker, asset_id)
            if asset.lease_owner is None and held is not None:
                self._take_back([asset_id], worker, held.lease_s)
                asset = self._moves.lock(asset_id)
            if asset.lease_owner != worker:
                raise LeaseLost(f"asset {asset_id[:12]} is not leased to {worker}")
            self._memory.check(asset, worker)
            one = sa.update(AssetRow).where(AssetRow.asset_id == asset_id)
            connection.execute(one.values(is_started=True))
            self._db.add_event("started", asset_id, {}, worker)

    def end(self, asset_id: str, worker: str) -> None:
        """See `Catalogue.end`."""
        own_lease = (
            AssetRow.asset_id == asset_id,
            AssetRow.lease_owner == worker,
            AssetRow.is_started,
        )
        with self._db.begin() as connection:
            over = sa.update(AssetRow).where(*own_lease).values(is_started=False, **INNOCENT)
            if connection.execute(over).rowcount:
                self._db.add_event("ended", asset_id, {}, worker)

    def renew(self, asset_ids: Collection[str], worker: str, lease_s: float) -> list[str]:
        """See `Catalogue.renew`."""
        own_lease = (AssetRow.asset_id.in_(list(asset_ids)), AssetRow.lease_owner == worker)
        with self._db.begin() as connection:
            now = self._db.clock()
            renewed = sa.update(AssetRow).where(*own_lease).values(**_own(worker, now, lease_s))
            connection.execute(renewed)
            held = set(connection.execute(sa.select(AssetRow.asset_id).where(*own_lease)).scalars())
            lost = [asset_id for asset_id in asset_ids if asset_id not in held]
            held |= set(self._take_back(lost, worker, lease_s))
        return [asset_id for asset_id in asset_ids if asset_id in held]

    def release(self, asset_ids: Collection[str], worker: str) -> None:
        """See `Catalogue.release`."""
        own_lease = (AssetRow.asset_id.in_(list(asset_ids)), AssetRow.lease_owner == worker)
        known = {name: held for name in asset_ids if (held := self._memory.get(worker, name))}
        with self._db.begin() as connection:
            free = sa.update(AssetRow).where(*own_lease)
            free = free.values(**FREE, lease_token=AssetRow.lease_token + 1)
            num_freed = connection.execute(free).rowcount
            if num_freed:
                self._db.add_event("released", None, {"assets": sorted(asset_ids)}, worker)
            # A lease that ended unseen is touched, too: nobody takes it back.
            for asset_id, held in known.items() if num_freed < len(known) else ():
                unseen = (AssetRow.lease_owner.is_(None), AssetRow.lease_token == held.token)
                over = sa.update(AssetRow).where(AssetRow.asset_id == asset_id, *unseen)
                connection.execute(over.values(lease_token=AssetRow.lease_token + 1))
        for asset_id in asset_ids:
            self._memory.forget(worker, asset_id)

    def _list_held(self, worker: str) -> list[tuple[str, bool]]:
        """What a worker holds: asset id, whether it is a suspect."""
        query = sa.select(AssetRow.asset_id, AssetRow.is_suspect)
        rows = self._db.mappings(query.where(AssetRow.lease_owner == worker))
        return [(row["asset_id"], bool(row["is_suspect"])) for row in rows]

    def _take_back(self, asset_ids: Sequence[str], worker: str, lease_s: float) -> list[str]:
        """Lease again what ended while its worker could not renew, and nobody touched since.

        The death that was counted then was none.
        """
        taken: list[str] = []
        with self._db.begin() as connection:
            for asset_id in asset_ids:
                held = self._memory.get(worker, asset_id)
                asset = self._moves.lock(asset_id) if held is not None else None
                if held is None or asset is None:
                    continue
                if asset.lease_owner is not None or asset.lease_token != held.token:
                    self._memory.forget(worker, asset_id)  # somebody else's by now
                    continue
                deaths = {"deaths": max(asset.deaths - 1, 0)}
                if asset.is_alone and asset.is_started:
                    deaths["deaths_alone"] = max(asset.deaths_alone - 1, 0)
                own = _own(worker, self._db.clock(), lease_s)
                one = sa.update(AssetRow).where(AssetRow.asset_id == asset_id)
                connection.execute(one.values(**own, **deaths, last_error=None))
                self._db.add_event("taken_back", asset_id, {"token": held.token}, worker)
                taken.append(asset_id)
        return taken

    def _free_lost(self, now: float, max_deaths: int) -> None:
        """Free leases of dead workers and old ones; their assets become suspects."""
        with self._db.begin() as connection:
            is_held = AssetRow.lease_owner.is_not(None)
            first_end = sa.func.min(AssetRow.lease_until)
            leases = sa.select(AssetRow.lease_owner, first_end).where(is_held)
            held = connection.execute(leases.group_by(AssetRow.lease_owner)).all()
            dead = [str(owner) for owner, _ in held if is_dead(str(owner))]
            if not dead and all(end > now for _, end in held):
                return
            is_over = is_held & (AssetRow.lease_until <= now)
            self._prolong_after_restart(now)
            lost = sa.select(AssetRow).where(is_over | AssetRow.lease_owner.in_(dead))
            if not self._db.is_sqlite:
                lost = lost.with_for_update(skip_locked=True)
            for row in self._db.load(lost):
                self._record_death(row, max_deaths)

    def _prolong_after_restart(self, now: float) -> None:
        """Give leases that ended while the database server was down their time once more.

        Nobody could renew them. Only PostgreSQL tells when it was started.
        """
        restarted_at = self._db.read_start_time()
        if restarted_at is None:
            return
        new_end = AssetRow.lease_until - AssetRow.leased_at + restarted_at
        over = (AssetRow.lease_owner.is_not(None), AssetRow.lease_until <= now)
        with self._db.begin() as connection:
            prolonged = sa.update(AssetRow).where(
                *over, AssetRow.leased_at < restarted_at, new_end > now
            )
            connection.execute(prolonged.values(lease_until=new_end, leased_at=restarted_at))

    def _record_death(self, row: AssetRow, max_deaths: int) -> None:
        """Free one asset of a worker that died or stalled; park it if it has killed alone."""
        is_killer = row.is_alone and row.is_started
        deaths_alone = row.deaths_alone + is_killer
        error = f"worker {row.lease_owner} died or stalled (killed, no memory, no heartbeat?)"
        detail: dict[str, Any] = {"alone": row.is_alone, "started": row.is_started}
        self._db.add_event("worker_died", row.asset_id, detail, row.lease_owner)
        # The token, `is_started` and `is_alone` stay: they tell the worker, if it lives, what to
        # take back.
        lost = {"lease_owner": None, "lease_until": 0.0, "is_suspect": True}
        counts = {"deaths": row.deaths + 1, "deaths_alone": deaths_alone}
        self._moves.change(row, {**lost, **counts, "last_error": error})
        if deaths_alone >= max_deaths and row.state not in PARKED:
            text = f"{deaths_alone} workers died or stalled over this asset alone; last: {error}"
            self._moves.move(row.asset_id, AssetState.FAILED, reason=KILLED_WORKER, detail=text)


def _choose(free: Sequence[tuple[str, bool]]) -> list[str]:
    """Of the free assets, in order: the first if it is a suspect, else those that are none."""
    if free and free[0][1]:
        return [free[0][0]]
    return [asset_id for asset_id, is_suspect in free if not is_suspect]


def _own(worker: str, now: float, lease_s: float) -> dict[str, Any]:
    return {"lease_owner": worker, "lease_until": now + lease_s, "leased_at": now}
