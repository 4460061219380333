"""Ledger of the raw bucket: which objects were seen, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.rows import AwaitedFilesRow, CursorRow, RawRow


@dataclass(frozen=True, slots=True)
class SeenObject:
    """What a scan needs to know of an object that was seen.

    Attributes:
        etag: as it was.
        reason: why it could not be used, or None.
        awaited: keys of files that it lacks; None = it lacks none.
    """

    etag: str
    reason: str | None
    awaited: Sequence[str] | None


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
        with self._db.begin() as connection:
            row = replace(raw, seen_at=self._db.clock())
            self._db.upsert(row)
            if awaited is None:
                connection.execute(sa.delete(AwaitedFilesRow).where(AwaitedFilesRow.key == row.key))
            else:
                self._db.upsert(AwaitedFilesRow(row.key, list(awaited)))
            event_detail = {"key": row.key, "reason": row.reason, "size_bytes": row.size_bytes}
            self._db.add_event("raw_seen", row.asset_id, event_detail)

    def get(self, key: str) -> RawRow | None:
        """What is known of one key, or None."""
        return self._db.load_first(sa.select(RawRow).where(RawRow.key == key))

    def find_seen(self, keys: Sequence[str]) -> Mapping[str, SeenObject]:
        """What is known of some keys, a listing's page; those never seen are left out."""
        query = sa.select(RawRow.key, RawRow.etag, RawRow.reason, AwaitedFilesRow.awaited)
        query = query.outerjoin(AwaitedFilesRow, AwaitedFilesRow.key == RawRow.key)
        with self._db.read() as connection:
            found = connection.execute(query.where(RawRow.key.in_(keys))).all()
        return {key: SeenObject(etag, reason, awaited) for key, etag, reason, awaited in found}

    def list_etags(self) -> Mapping[str, str]:
        """Key -> etag of everything seen, for an incremental scan."""
        query = sa.select(RawRow.key, RawRow.etag)
        return {row["key"]: row["etag"] for row in self._db.mappings(query)}

    def list_awaited(self) -> Mapping[str, list[str]]:
        """Key -> keys of files that it lacks, for the objects that lack some."""
        return {row.key: list(row.awaited) for row in self._db.load(sa.select(AwaitedFilesRow))}

    def list_all(self, asset_id: str | None = None) -> list[RawRow]:
        """Every object seen, or those that hold one asset, by key."""
        query = sa.select(RawRow).order_by(RawRow.key)
        if asset_id is not None:
            query = query.where(RawRow.asset_id == asset_id)
        return self._db.load(query)

    def get_cursor(self, name: str) -> str | None:
        """Where a reader stopped last time, or None."""
        found = self._db.load_first(sa.select(CursorRow).where(CursorRow.name == name))
        return found.value if found else None

    def set_cursor(self, name: str, value: str) -> None:
        """Remember where a reader stopped."""
        with self._db.begin():
            self._db.upsert(CursorRow(name, value, self._db.clock()))
            self._db.add_event("cursor", None, {"name": name, "value": value})
