"""Ledger of messages that could not be read: kept, counted, shown, and tried again when asked.

A message is a task, an annotation or an answer. It is known by what it is (`subject`), its version
by a digest of its content, so that a poll that meets the same version again writes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.engine import CatalogueError
from tasks.catalogue.rows import QuarantineRow

MAX_REASON_CHARS = 500
MAX_RAW_CHARS = 16_384


class QuarantineLedger:
    """Unreadable messages by their subject."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, message: QuarantineRow) -> bool:
        """Keep a message that cannot be read; False, and no change, if this version is known.

        Args:
            message: kind, subject, reason and raw text; the rest is filled in. Raw text and
                reason are cut.
        """
        digest = hashlib.sha256(f"{message.reason}\n{message.raw}".encode()).hexdigest()
        with self._db.begin():
            held = self.find(message.message_id)
            is_known = held is not None and held.digest == digest
            if held is not None and is_known and held.is_retrying == message.is_retrying:
                return False
            now = self._db.clock()
            row = replace(
                message,
                reason=message.reason[:MAX_REASON_CHARS],
                raw=message.raw[:MAX_RAW_CHARS],
                digest=digest,
                count=1 if held is None else held.count + 1,
                first_seen=now if held is None else held.first_seen,
                last_seen=now,
            )
            self._db.upsert(row)
            self._db.add_event(
                "quarantined", None, {"message": row.message_id, "reason": row.reason}
            )
        return True

    def resolve(self, message_id: str) -> bool:
        """Take out a message that was read after all; False if it is not here."""
        with self._db.begin() as connection:
            gone = sa.delete(QuarantineRow).where(QuarantineRow.message_id == message_id)
            if not connection.execute(gone).rowcount:
                return False
            self._db.add_event("unquarantined", None, {"message": message_id})
        return True

    def request_retry(self, message_id: str) -> QuarantineRow:
        """Have the next pull fetch a message again; returns its row."""
        return self._mark(message_id, is_retrying=True, is_dropped=False)

    def drop(self, message_id: str) -> QuarantineRow:
        """Give a message up: it is no longer shown as waiting; a new version of it would be."""
        return self._mark(message_id, is_retrying=False, is_dropped=True)

    def find(self, message_id: str) -> QuarantineRow | None:
        """One message, or None."""
        query = sa.select(QuarantineRow).where(QuarantineRow.message_id == message_id)
        return self._db.load_first(query)

    def get(self, beginning: str) -> QuarantineRow:
        """The message whose id begins so; raises CatalogueError for none or several."""
        begins = QuarantineRow.message_id.startswith(beginning, autoescape=True)
        found = self._db.load(sa.select(QuarantineRow).where(begins).limit(2))
        if len(found) != 1 or not beginning:
            raise CatalogueError(
                f"{'several messages begin' if len(found) > 1 else 'no message begins'} with "
                f"{beginning[:64]!a}; `segvigen quarantine list` shows what there is"
            )
        return found[0]

    def list_all(
        self, *, is_dropped: bool | None = False, is_retrying: bool | None = None
    ) -> list[QuarantineRow]:
        """Messages, those seen first first; None = whatever the mark."""
        query = sa.select(QuarantineRow).order_by(
            QuarantineRow.first_seen, QuarantineRow.message_id
        )
        if is_dropped is not None:
            query = query.where(QuarantineRow.is_dropped.is_(is_dropped))
        if is_retrying is not None:
            query = query.where(QuarantineRow.is_retrying.is_(is_retrying))
        return self._db.load(query)

    def list_ids(self) -> frozenset[str]:
        """Ids of all messages, dropped ones included."""
        rows = self._db.mappings(sa.select(QuarantineRow.message_id))
        return frozenset(row["message_id"] for row in rows)

    def count_by_kind(self) -> dict[str, int]:
        """Kind -> number of messages that wait for a decision."""
        query = sa.select(QuarantineRow.kind, sa.func.count().label("number"))
        query = query.where(QuarantineRow.is_dropped.is_(False)).group_by(QuarantineRow.kind)
        return {row["kind"]: int(row["number"]) for row in self._db.mappings(query)}

    def _mark(self, message_id: str, *, is_retrying: bool, is_dropped: bool) -> QuarantineRow:
        with self._db.begin() as connection:
            row = self.get(message_id)
            marks = {"is_retrying": is_retrying, "is_dropped": is_dropped}
            one = sa.update(QuarantineRow).where(QuarantineRow.message_id == row.message_id)
            connection.execute(one.values(**marks))
            event = "quarantine_retry" if is_retrying else "quarantine_dropped"
            self._db.add_event(event, None, {"message": row.message_id})
        return replace(row, is_retrying=is_retrying, is_dropped=is_dropped)
