"""Connections and transactions: SQLite (WAL, BEGIN IMMEDIATE) or PostgreSQL, by URL.

A write transaction joins the one that its thread already has open, so that several ledgers can
change together. SQLite needs a local disk; more than one machine needs PostgreSQL.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import QueuePool

from segvigen_model.errors import SegvigenError
from tasks.catalogue import tables

SQLITE_BUSY_TIMEOUT_MS = 30_000
SCHEMA_VERSION = "1"  # raise it when tables change; old catalogues are then refused, not broken
CREATE_LOCK = 0x5E671  # any fixed number: one process creates the tables, the others wait


class CatalogueError(SegvigenError):
    """The catalogue cannot be used as asked."""


class Database:
    """Opens transactions on one catalogue URL.

    Args:
        url: "sqlite:///path" or "postgresql://...".
        clock: seconds since the epoch; tests pass their own.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.engine = _engine(url)
        _forget_after_fork(self.engine)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._open = threading.local()
        self._create_tables()

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A write transaction; joins the thread's open one."""
        current: sa.Connection | None = getattr(self._open, "connection", None)
        if current is not None:
            yield current
            return
        with self.engine.begin() as connection:
            self._open.connection = connection
            try:
                yield connection
            finally:
                self._open.connection = None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading; sees the thread's open transaction."""
        current: sa.Connection | None = getattr(self._open, "connection", None)
        if current is not None:
            yield current
            return
        with self.engine.connect().execution_options(is_reading=True) as connection:
            yield connection

    def event(
        self, kind: str, asset_id: str | None, detail: Mapping[str, Any], worker: str | None = None
    ) -> None:
        """Append to the journal inside the open transaction."""
        row = {"at": self.clock(), "asset_id": asset_id, "kind": kind, "worker": worker}
        with self.begin() as connection:
            connection.execute(sa.insert(tables.events).values(**row, detail=dict(detail)))

    def insert(self, table: sa.Table, row: Mapping[str, Any]) -> bool:
        """Insert a row; False, and no change, when its primary key is there already."""
        statement, keys = self._insert(table, row)
        statement = statement.on_conflict_do_nothing(index_elements=keys)
        with self.begin() as connection:  # psycopg counts no rows here: ask for the one made
            return connection.execute(statement.returning(table.c[keys[0]])).first() is not None

    def upsert(self, table: sa.Table, row: Mapping[str, Any]) -> None:
        """Insert a row, or replace the one with the same primary key."""
        statement, keys = self._insert(table, row)
        rest = {name: statement.excluded[name] for name in row if name not in keys}
        with self.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))

    def _insert(self, table: sa.Table, row: Mapping[str, Any]) -> tuple[Any, list[str]]:
        dialect: Any = sqlite if self.is_sqlite else postgresql
        keys = [column.name for column in table.primary_key.columns]
        return dialect.insert(table).values(**row), keys

    def rows(self, statement: sa.Select[Any]) -> Sequence[Mapping[str, Any]]:
        """Run a select and return its rows as dictionaries."""
        with self.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def _create_tables(self) -> None:
        added = (tables.verbs, tables.awaited_files)
        if self._schema_version() is None or not all(self._has_table(table) for table in added):
            with self.begin() as connection:
                if not self.is_sqlite:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATE_LOCK)))
                tables.metadata.create_all(connection)
                if self._schema_version() is None:
                    now = {"value": SCHEMA_VERSION, "updated_at": self.clock()}
                    self.upsert(tables.cursors, {"name": "schema_version", **now})
        found = self._schema_version()
        if found != SCHEMA_VERSION:
            raise CatalogueError(
                f"the catalogue has schema {found}, this code needs {SCHEMA_VERSION}; "
                "use the code that made it, or a new catalogue"
            )

    def _has_table(self, table: sa.Table) -> bool:
        with self.read() as connection:
            return bool(sa.inspect(connection).has_table(table.name))

    def _schema_version(self) -> str | None:
        cursors = tables.cursors
        if not self._has_table(cursors):
            return None
        with self.read() as connection:
            query = sa.select(cursors.c.value).where(cursors.c.name == "schema_version")
            return connection.execute(query).scalar_one_or_none()


def values(row: Any) -> dict[str, Any]:
    """Return a row dataclass as a dictionary of column values."""
    return asdict(row)


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as err:
        raise CatalogueError("catalogue URL cannot be read; use sqlite:///path") from err
    name = parsed.get_backend_name()
    if name == "sqlite":
        return _sqlite_engine(parsed)
    if name == "postgresql":
        return sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    raise CatalogueError(f"catalogue on {name!r} is not supported; use sqlite or postgresql")


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise CatalogueError("an in-memory catalogue is lost at once; use sqlite:///path/to/file")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    # Pooled: when the last connection closes, SQLite folds its log into the database, which
    # would make every single transaction slow.
    engine = sa.create_engine(url, poolclass=QueuePool)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
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


def _forget_after_fork(engine: sa.Engine) -> None:
    """A forked child opens connections of its own; the parent's stay the parent's."""
    held = weakref.ref(engine)

    def forget() -> None:
        inherited = held()
        if inherited is not None:
            inherited.dispose(close=False)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)
