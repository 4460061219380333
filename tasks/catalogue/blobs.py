"""Ledger of the store's objects: the content hash of everything that was written.

What the store reads is compared with these records (tasks/storage/checked_reads.py). An object of
before there were records is recorded when it is first read.
"""

from __future__ import annotations

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.mapping import table_of
from tasks.catalogue.rows import BlobRow


class BlobLedger:
    """Objects of the pipeline's store by key."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find_sha256(self, key: str) -> str | None:
        """The recorded hash of an object, hex digits; None when there is no record."""
        found = self.find(key)
        return None if found is None else found.sha256

    def find(self, key: str) -> BlobRow | None:
        """The record of one object, or None."""
        return self._db.load_first(sa.select(BlobRow).where(BlobRow.key == key))

    def record(self, key: str, sha256: str, size_bytes: int) -> None:
        """Remember an object; where a record is there already, that one stays.

        Args:
            key: in the store.
            sha256: hex digits of the content's hash.
            size_bytes: of the content.
        """
        with self._db.begin():
            if self._db.insert(BlobRow(key, sha256, size_bytes, self._db.clock())):
                event_detail = {"key": key, "sha256": sha256, "size_bytes": size_bytes}
                self._db.add_event("blob", None, event_detail)

    def forget(self, key: str) -> None:
        """Drop the record of an object that was deleted; nothing there is fine."""
        table = table_of(BlobRow)
        with self._db.begin() as connection:
            if connection.execute(sa.delete(table).where(table.c.key == key)).rowcount:
                self._db.add_event("blob_forgotten", None, {"key": key})

    def list_all(self, prefix: str = "") -> list[BlobRow]:
        """Every record, or those whose key begins with `prefix`, by key."""
        query = sa.select(BlobRow).order_by(BlobRow.key)
        if prefix:
            query = query.where(BlobRow.key.startswith(prefix, autoescape=True))
        return self._db.load(query)
