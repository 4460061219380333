"""Ledger of results: label sets, shard versions and their members, checkpoint aliases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.engine import CatalogueError
from tasks.catalogue.rows import CheckpointRow, LabelSetRow, ShardMemberRow, ShardVersionRow

CLOCK_STEP_S = 1e-3  # between two label sets of an asset, at least


class LabelLedger:
    """What the pipeline is for."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, label_set: LabelSetRow) -> bool:
        """Record a label set; False when it is there already (its id is its content's hash).

        It is newer than all of its asset that are there, whatever this machine's clock says.
        """
        with self._db.begin():
            last = self.get_latest(label_set.asset_id)
            after = last.created_at + CLOCK_STEP_S if last else 0.0
            row = replace(label_set, created_at=max(self._db.clock(), after))
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
        query = sa.select(LabelSetRow).where(LabelSetRow.asset_id == asset_id).limit(1)
        newest_first = (LabelSetRow.created_at.desc(), LabelSetRow.label_id.desc())
        return self._db.load_first(query.order_by(*newest_first))

    def get(self, label_id: str) -> LabelSetRow:
        """One label set; raises CatalogueError when unknown."""
        query = sa.select(LabelSetRow).where(LabelSetRow.label_id == label_id)
        found = self._db.load_first(query)
        if found is None:
            raise CatalogueError(f"unknown label set {label_id[:64]!r}")
        return found

    def find_latest_ids(self, asset_ids: Sequence[str]) -> dict[str, str]:
        """Asset id -> id of the label set that counts, for those that have one."""
        query = sa.select(LabelSetRow.asset_id, LabelSetRow.label_id)
        query = query.where(LabelSetRow.asset_id.in_(asset_ids))
        rows = self._db.mappings(query.order_by(LabelSetRow.created_at, LabelSetRow.label_id))
        return {row["asset_id"]: row["label_id"] for row in rows}

    def add_shards(self, version: ShardVersionRow, members: Sequence[ShardMemberRow]) -> bool:
        """Record a finished dataset version; False when it is there already.

        One that is there becomes the newest again if its build is, and gets the manifest's hash.
        """
        with self._db.begin():
            row = replace(version, created_at=version.created_at or self._db.clock())
            if not self._db.insert(row):
                self._confirm_version(row)
                return False
            self._db.insert_all(members)
            event_detail = {
                "dataset": row.dataset,
                "version": row.version,
                "samples": row.num_samples,
            }
            self._db.add_event("shards", None, event_detail)
        return True

    def get_shard_version(self, dataset: str, version: str) -> ShardVersionRow | None:
        """One version of a dataset, or None."""
        one = (ShardVersionRow.dataset == dataset, ShardVersionRow.version == version)
        return self._db.load_first(sa.select(ShardVersionRow).where(*one))

    def list_shard_versions(self, dataset: str | None = None) -> list[ShardVersionRow]:
        """All versions, or one dataset's, in the order of their builds: the newest is the last.

        A version that a later build found again is as new as that build.
        """
        query = sa.select(ShardVersionRow).order_by(
            ShardVersionRow.build_number, ShardVersionRow.created_at, ShardVersionRow.version
        )
        if dataset is not None:
            query = query.where(ShardVersionRow.dataset == dataset)
        return self._db.load(query)

    def _confirm_version(self, row: ShardVersionRow) -> None:
        """A later build found a version that is there already, or made its blobs again."""
        held = self.get_shard_version(row.dataset, row.version)
        newest = self.list_shard_versions(row.dataset)[-1]
        changes: dict[str, object] = {}
        if newest.version != row.version and row.build_number > newest.build_number:
            changes["build_number"] = row.build_number
        if held is not None and held.sha256 != row.sha256:
            changes |= {"sha256": row.sha256, "size_bytes": row.size_bytes}
        if not changes:
            return
        one = (ShardVersionRow.dataset == row.dataset, ShardVersionRow.version == row.version)
        with self._db.begin() as connection:
            connection.execute(sa.update(ShardVersionRow).where(*one).values(**changes))
            detail = {"dataset": row.dataset, "version": row.version, **changes}
            self._db.add_event("shards_confirmed", None, detail)

    def list_shard_members(self, dataset: str, version: str) -> list[ShardMemberRow]:
        """Members of one version, by asset."""
        mine = (ShardMemberRow.dataset == dataset, ShardMemberRow.version == version)
        query = sa.select(ShardMemberRow).where(*mine)
        return self._db.load(query.order_by(ShardMemberRow.asset_id))

    def set_checkpoint(self, checkpoint: CheckpointRow) -> None:
        """Point an alias at a checkpoint."""
        with self._db.begin():
            row = replace(checkpoint, updated_at=self._db.clock())
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
