"""Engines for a catalogue URL: SQLite (WAL, BEGIN IMMEDIATE) or PostgreSQL.

SQLite needs a local disk; more than one machine needs PostgreSQL.
"""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from segvigen_model.errors import SegvigenError

SQLITE_BUSY_TIMEOUT_MS = 30_000
WAL_RETRY_S = 0.02


class CatalogueError(SegvigenError):
    """The catalogue cannot be used as requested."""


def open_engine(url: str, busy_timeout_ms: int = SQLITE_BUSY_TIMEOUT_MS) -> sa.Engine:
    """Return an engine for a catalogue URL.

    Args:
        url: "sqlite:///path" or "postgresql://...".
        busy_timeout_ms: how long SQLite waits for the lock of another writer.

    Raises:
        CatalogueError: the URL cannot be parsed, or names another kind of database.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as err:
        raise CatalogueError("catalogue URL cannot be read; use sqlite:///path") from err
    name = parsed.get_backend_name()
    if name == "sqlite":
        engine = _make_sqlite_engine(parsed, busy_timeout_ms)
    elif name == "postgresql":
        engine = sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    else:
        raise CatalogueError(f"catalogue on {name!r} is not supported; use sqlite or postgresql")
    _dispose_after_fork(engine)
    return engine


def is_sqlite(engine: sa.Engine) -> bool:
    """True for SQLite, False for PostgreSQL."""
    return engine.dialect.name == "sqlite"


def _make_sqlite_engine(url: sa.URL, busy_timeout_ms: int) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise CatalogueError("an in-memory catalogue is lost at once; use sqlite:///path/to/file")
    file = Path(url.database)
    file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # SQLite itself says what is wrong with the place
        # Its owner's alone; the log beside it gets the same mode from SQLite.
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    # Pooled: when the last connection closes, SQLite folds its log into the database, which
    # would make every single transaction slow.
    engine = sa.create_engine(url, poolclass=QueuePool)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is emitted below
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
        _switch_to_wal(cursor, busy_timeout_ms)
        # A power cut may take the last moments (never a kill, never consistency): stages that
        # come back to an older state find their blobs and go on.
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # IMMEDIATE takes the write lock first: two claims can never read the same free assets.
        is_reading = connection.get_execution_options().get("is_reading")
        connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")

    return engine


def _switch_to_wal(cursor: Any, busy_timeout_ms: int) -> None:
    """Set WAL mode; SQLite's busy timeout does not cover this switch, so wait here."""
    end = time.monotonic() + busy_timeout_ms / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as err:
            if "locked" not in str(err) or time.monotonic() >= end:
                raise
            time.sleep(WAL_RETRY_S)
        else:
            return


def _dispose_after_fork(engine: sa.Engine) -> None:
    """A forked child opens connections of its own; the parent's stay the parent's."""
    held = weakref.ref(engine)

    def dispose() -> None:
        inherited = held()
        if inherited is not None:
            inherited.dispose(close=False)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=dispose)
