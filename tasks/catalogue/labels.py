"""Ledger of results: label sets, shard versions and their members, checkpoint aliases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.rows import CheckpointRow, LabelSetRow, ShardMemberRow, ShardVersionRow


class LabelLedger:
    """What the pipeline is for."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, label_set: LabelSetRow) -> bool:
        """Record a label set; False when it is there already (its id is its content's hash)."""
        row = replace(label_set, created_at=self._db.clock())
        with self._db.begin():
            if not self._db.insert(row):
                return False
            event_detail = {
                "label_id": row.label_id,
                "num_parts": row.num_parts,
                "by": row.decided_by,
            }
            self._db.add_event("label_set", row.asset_id, event_detail)
        return True

    def list_all(self, asset_id: str | None = None) -> list[LabelSetRow]:
        """Every label set, or one asset's, oldest first."""
        query = sa.select(LabelSetRow).order_by(LabelSetRow.created_at, LabelSetRow.label_id)
        if asset_id is not None:
            query = query.where(LabelSetRow.asset_id == asset_id)
        return self._db.load(query)

    def get_latest(self, asset_id: str) -> LabelSetRow | None:
        """The label set that counts, or None."""
        found = self.list_all(asset_id)
        return found[-1] if found else None

    def add_shards(self, version: ShardVersionRow, members: Sequence[ShardMemberRow]) -> bool:
        """Record a finished dataset version; False when it is there already."""
        row = replace(version, created_at=self._db.clock())
        with self._db.begin():
            if not self._db.insert(row):
                return False
            self._db.insert_all(members)
            event_detail = {
                "dataset": row.dataset,
                "version": row.version,
                "samples": row.num_samples,
            }
            self._db.add_event("shards", None, event_detail)
        return True

    def list_shard_versions(self, dataset: str | None = None) -> list[ShardVersionRow]:
        """All versions, or one dataset's, oldest first."""
        query = sa.select(ShardVersionRow).order_by(
            ShardVersionRow.created_at, ShardVersionRow.version
        )
        if dataset is not None:
            query = query.where(ShardVersionRow.dataset == dataset)
        return self._db.load(query)

    def list_shard_members(self, dataset: str, version: str) -> list[ShardMemberRow]:
        """Members of one version, by asset."""
        mine = (ShardMemberRow.dataset == dataset, ShardMemberRow.version == version)
        query = sa.select(ShardMemberRow).where(*mine)
        return self._db.load(query.order_by(ShardMemberRow.asset_id))

    def set_checkpoint(self, checkpoint: CheckpointRow) -> None:
        """Point an alias at a checkpoint."""
        row = replace(checkpoint, updated_at=self._db.clock())
        with self._db.begin():
            self._db.upsert(row)
            event_detail = {"alias": row.alias, "sha256": row.sha256, "location": row.location}
            self._db.add_event("checkpoint", None, event_detail)

    def list_checkpoints(self) -> list[CheckpointRow]:
        """Every alias, the one set longest ago first."""
        query = sa.select(CheckpointRow).order_by(CheckpointRow.updated_at, CheckpointRow.alias)
        return self._db.load(query)

    def get_checkpoint(self, alias: str = "current") -> CheckpointRow | None:
        """The checkpoint behind an alias, or None."""
        return self._db.load_first(sa.select(CheckpointRow).where(CheckpointRow.alias == alias))
