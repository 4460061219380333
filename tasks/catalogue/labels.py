"""Ledger of results: label sets, shard versions and their members, checkpoint aliases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from tasks.catalogue.database import Database, values
from tasks.catalogue.rows import CheckpointRow, LabelSetRow, ShardMemberRow, ShardVersionRow
from tasks.catalogue.tables import checkpoints as C
from tasks.catalogue.tables import label_sets as L
from tasks.catalogue.tables import shard_members as M
from tasks.catalogue.tables import shard_versions as V


class LabelLedger:
    """What the pipeline is for."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, label_set: LabelSetRow) -> bool:
        """Record a label set; False when it is there already (its id is its content's hash)."""
        row = replace(label_set, created_at=self._db.clock())
        with self._db.begin():
            if not self._db.insert(L, values(row)):
                return False
            told = {"label_id": row.label_id, "num_parts": row.num_parts, "by": row.decided_by}
            self._db.event("label_set", row.asset_id, told)
        return True

    def all(self, asset_id: str | None = None) -> list[LabelSetRow]:
        """Every label set, or one asset's, oldest first."""
        query = sa.select(L).order_by(L.c.created_at, L.c.label_id)
        if asset_id is not None:
            query = query.where(L.c.asset_id == asset_id)
        return [LabelSetRow(**row) for row in self._db.rows(query)]

    def latest(self, asset_id: str) -> LabelSetRow | None:
        """The label set that counts, or None."""
        found = self.all(asset_id)
        return found[-1] if found else None

    def add_shards(self, version: ShardVersionRow, members: Sequence[ShardMemberRow]) -> bool:
        """Record a finished dataset version; False when it is there already."""
        row = replace(version, created_at=self._db.clock())
        with self._db.begin() as connection:
            if not self._db.insert(V, values(row)):
                return False
            if members:
                connection.execute(sa.insert(M), [values(member) for member in members])
            told = {"dataset": row.dataset, "version": row.version, "samples": row.num_samples}
            self._db.event("shards", None, told)
        return True

    def shard_versions(self, dataset: str | None = None) -> list[ShardVersionRow]:
        """All versions, or one dataset's, oldest first."""
        query = sa.select(V).order_by(V.c.created_at, V.c.version)
        if dataset is not None:
            query = query.where(V.c.dataset == dataset)
        return [ShardVersionRow(**row) for row in self._db.rows(query)]

    def shard_members(self, dataset: str, version: str) -> list[ShardMemberRow]:
        """Members of one version, by asset."""
        query = sa.select(M).where(M.c.dataset == dataset, M.c.version == version)
        return [ShardMemberRow(**row) for row in self._db.rows(query.order_by(M.c.asset_id))]

    def set_checkpoint(self, checkpoint: CheckpointRow) -> None:
        """Point an alias at a checkpoint."""
        row = replace(checkpoint, updated_at=self._db.clock())
        with self._db.begin():
            self._db.upsert(C, values(row))
            told = {"alias": row.alias, "sha256": row.sha256, "location": row.location}
            self._db.event("checkpoint", None, told)

    def checkpoints(self) -> list[CheckpointRow]:
        """Every alias, the one set longest ago first."""
        query = sa.select(C).order_by(C.c.updated_at, C.c.alias)
        return [CheckpointRow(**row) for row in self._db.rows(query)]

    def checkpoint(self, alias: str = "current") -> CheckpointRow | None:
        """The checkpoint behind an alias, or None."""
        found = self._db.rows(sa.select(C).where(C.c.alias == alias))
        return CheckpointRow(**found[0]) if found else None
