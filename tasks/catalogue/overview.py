"""What people ask about all assets: numbers, the first of a kind, and one by id or name.

Every query counts in the database or reads a bounded number of rows through an index, so that a
catalogue of a million assets answers like a small one.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.quality_rows import CopyRow
from tasks.catalogue.rows import AssetRow, LabelSetRow, RawRow
from tasks.catalogue.states import AssetState

AFTER_HEX = "z" * 64  # after every continuation of an id, in any collation
_OLDEST_FIRST = (AssetRow.created_at, AssetRow.asset_id)
_IS_COPY = sa.exists(sa.select(CopyRow.asset_id).where(CopyRow.asset_id == AssetRow.asset_id))
_IS_PARKED = (AssetRow.reason.is_not(None), AssetRow.reason != "", ~_IS_COPY)
_IS_FAILING = (
    AssetRow.last_error.is_not(None),
    AssetRow.last_error != "",
    sa.func.coalesce(AssetRow.reason, "") == "",
)


class OverviewLedger:
    """Numbers and short lists of all assets."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def has_assets(self, states: Collection[AssetState]) -> bool:
        """Is any asset in one of these states?"""
        query = sa.select(AssetRow.asset_id)
        query = query.where(AssetRow.state.in_([str(state) for state in states])).limit(1)
        return bool(self._db.mappings(query))

    def count_raw(self) -> int:
        """Objects of the raw bucket that were seen."""
        return self._count(sa.select(sa.func.count().label("number")).select_from(RawRow))

    def count_copies(self) -> int:
        """Copies for quality control."""
        return self._count(sa.select(sa.func.count().label("number")).select_from(CopyRow))

    def count_label_sets(self) -> int:
        """Label sets of the dataset's assets: copies left out."""
        number = sa.func.count().label("number")
        copied = sa.select(number).select_from(LabelSetRow)
        copied = copied.join(CopyRow, CopyRow.asset_id == LabelSetRow.asset_id)
        return self._count(sa.select(number).select_from(LabelSetRow)) - self._count(copied)

    def count_parked(self) -> int:
        """Assets with a reason for being parked; copies left out."""
        return self._count(sa.select(sa.func.count().label("number")).where(*_IS_PARKED))

    def list_parked(self, limit: int) -> list[AssetRow]:
        """The first of `count_parked`, oldest first."""
        query = sa.select(AssetRow).where(*_IS_PARKED)
        return self._db.load(query.order_by(*_OLDEST_FIRST).limit(limit))

    def count_failing(self) -> int:
        """Assets whose last attempt failed and that are tried again."""
        return self._count(sa.select(sa.func.count().label("number")).where(*_IS_FAILING))

    def list_failing(self, limit: int) -> list[AssetRow]:
        """The first of `count_failing`, oldest first."""
        query = sa.select(AssetRow).where(*_IS_FAILING)
        return self._db.load(query.order_by(*_OLDEST_FIRST).limit(limit))

    def find_by_prefix(
        self, prefix: str, limit: int | None = None, state: AssetState | str | None = None
    ) -> list[AssetRow]:
        """Assets whose id begins so, oldest first.

        Args:
            prefix: of the id; "" = every asset.
            limit: at most so many, those of the lowest ids; None = all.
            state: only assets in it.
        """
        # The range uses the primary key; the comparison is exact whatever the collation.
        if not prefix.isascii():
            return []
        is_near = AssetRow.asset_id.between(prefix, prefix + AFTER_HEX)
        is_same = sa.func.substr(AssetRow.asset_id, 1, len(prefix)) == prefix
        query = sa.select(AssetRow).where(*((is_near, is_same) if prefix else ()))
        query = query if state is None else query.where(AssetRow.state == AssetState(state))
        found = self._db.load(query.order_by(AssetRow.asset_id).limit(limit))
        return sorted(found, key=lambda row: (row.created_at, row.asset_id))

    def find_by_name(self, name: str, limit: int) -> list[AssetRow]:
        """Assets whose file has this name, oldest first; at most so many."""
        storable = name.encode("utf-8", "replace").decode()  # as typed it may hold any bytes
        query = sa.select(AssetRow).where(AssetRow.name == storable)
        return self._db.load(query.order_by(*_OLDEST_FIRST).limit(limit))

    def list_dataset_assets(self, limit: int) -> list[AssetRow]:
        """The first assets by id; copies left out."""
        query = sa.select(AssetRow).where(~_IS_COPY)
        return self._db.load(query.order_by(AssetRow.asset_id).limit(limit))

    def _count(self, query: sa.Select[int]) -> int:
        return int(self._db.mappings(query)[0]["number"])
