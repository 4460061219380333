"""Ledger of the raw bucket: which objects were seen, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tasks.catalogue.database import Database, values
from tasks.catalogue.rows import RawRow
from tasks.catalogue.tables import awaited_files as W
from tasks.catalogue.tables import cursors as C
from tasks.catalogue.tables import raw_objects as R


class RawLedger:
    """Raw objects by key, and named cursors of anything that reads in steps."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def record(self, raw: RawRow, awaited: Sequence[str] | None = None) -> None:
        """Remember an object as it was seen; a changed object replaces its old row.

        Args:
            raw: the object.
            awaited: keys of files that it lacks; None = it lacks none.
        """
        row = replace(raw, seen_at=self._db.clock())
        with self._db.begin() as connection:
            self._db.upsert(R, values(row))
            if awaited is None:
                connection.execute(sa.delete(W).where(W.c.key == row.key))
            else:
                self._db.upsert(W, {"key": row.key, "awaited": list(awaited)})
            told = {"key": row.key, "reason": row.reason, "size_bytes": row.size_bytes}
            self._db.event("raw_seen", row.asset_id, told)

    def get(self, key: str) -> RawRow | None:
        """What is known of one key, or None."""
        found = self._db.rows(sa.select(R).where(R.c.key == key))
        return RawRow(**found[0]) if found else None

    def etags(self) -> Mapping[str, str]:
        """Key -> etag of everything seen, for an incremental scan."""
        return {row["key"]: row["etag"] for row in self._db.rows(sa.select(R.c.key, R.c.etag))}

    def awaited(self) -> Mapping[str, list[str]]:
        """Key -> keys of files that it lacks, for the objects that lack some."""
        return {row["key"]: list(row["awaited"]) for row in self._db.rows(sa.select(W))}

    def parked_for(self, reason: str) -> set[str]:
        """Keys of the objects that were parked for one reason."""
        return {row["key"] for row in self._db.rows(sa.select(R.c.key).where(R.c.reason == reason))}

    def all(self, asset_id: str | None = None) -> list[RawRow]:
        """Every object seen, or those that hold one asset, by key."""
        query = sa.select(R).order_by(R.c.key)
        if asset_id is not None:
            query = query.where(R.c.asset_id == asset_id)
        return [RawRow(**row) for row in self._db.rows(query)]

    def cursor(self, name: str) -> str | None:
        """Where a reader stopped last time, or None."""
        found = self._db.rows(sa.select(C.c.value).where(C.c.name == name))
        return str(found[0]["value"]) if found else None

    def set_cursor(self, name: str, value: str) -> None:
        """Remember where a reader stopped."""
        row: dict[str, Any] = {"name": name, "value": value, "updated_at": self._db.clock()}
        with self._db.begin():
            self._db.upsert(C, row)
            self._db.event("cursor", None, {"name": name, "value": value})
