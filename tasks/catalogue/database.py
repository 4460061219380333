"""Transactions on one catalogue: rows in, rows out.

A write transaction joins the one that its thread already has open, so that several ledgers can
change together. Rows are read in a session of one query: they are values of that moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import TypedReturnsRows

from tasks.catalogue.engine import is_sqlite, open_engine
from tasks.catalogue.mapping import Row, table_of, to_column_values
from tasks.catalogue.rows import EventRow
from tasks.catalogue.schema import prepare_schema

RowT = TypeVar("RowT", bound=Row)
SQLITE_CLOCK = "SELECT (julianday('now') - 2440587.5) * 86400.0"  # 2440587.5: 1970-01-01
POSTGRES_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
POSTGRES_START = "SELECT extract(epoch FROM pg_postmaster_start_time())::float8"
CLOCK_TICK_S = 0.002  # SQLite's own is half of it
CLOCK_STEP_S = 1e-6
_NO_SYNCHRONIZE = {"synchronize_session": False}  # a session holds no older rows


class Database:
    """Opens transactions on one catalogue URL.

    A missing schema is created; an older one is upgraded on SQLite and refused on PostgreSQL.

    Args:
        url: "sqlite:///path" or "postgresql://...".
        clock: seconds since the epoch, for tests; None = the database's own clock.
    """

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._last = 0.0
        self.engine = open_engine(url)
        self.is_sqlite = is_sqlite(self.engine)
        self._open = threading.local()
        prepare_schema(self.engine)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A write transaction; joins the thread's open one."""
        current: sa.Connection | None = getattr(self._open, "connection", None)
        if current is not None:
            yield current
            return
        with self.engine.begin() as connection:
            self._open.connection, self._open.now = connection, None
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

    def clock(self) -> float:
        """Seconds since the epoch by the database's clock: one moment for a whole transaction.

        Machines' clocks differ, so none of them decides what came first or which lease is over.
        """
        if self._clock is not None:
            return self._clock()
        if getattr(self._open, "connection", None) is None:
            with self.read() as connection:
                return self._read_clock(connection)
        if self._open.now is None:
            self._open.now = self._read_clock(self._open.connection)
        return float(self._open.now)

    def read_start_time(self) -> float | None:
        """When the database server was started, by its clock; None on SQLite, which has none."""
        if self.is_sqlite:
            return None
        with self.read() as connection:
            return float(connection.exec_driver_sql(POSTGRES_START).scalar_one())

    def _read_clock(self, connection: sa.Connection) -> float:
        statement = SQLITE_CLOCK if self.is_sqlite else POSTGRES_CLOCK
        now = float(connection.exec_driver_sql(statement).scalar_one())
        # SQLite counts milliseconds: what this process writes in one of them keeps its order.
        if self._last - CLOCK_TICK_S < now <= self._last:
            now = self._last + CLOCK_STEP_S
        self._last = now
        return now

    def add_event(
        self, kind: str, asset_id: str | None, detail: Mapping[str, Any], worker: str | None = None
    ) -> None:
        """Append to the journal inside the open transaction."""
        with self.begin() as connection:
            row = {"at": self.clock(), "asset_id": asset_id, "kind": kind, "worker": worker}
            connection.execute(sa.insert(table_of(EventRow)).values(**row, detail=dict(detail)))

    def add_events(self, kind: str, details: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Append to the journal, inside the open transaction, one event for each asset id."""
        if not details:
            return
        with self.begin() as connection:
            same = {"at": self.clock(), "kind": kind, "worker": None}
            rows = [{**same, "asset_id": name, "detail": dict(detail)} for name, detail in details]
            connection.execute(sa.insert(table_of(EventRow)), rows)

    def insert(self, row: Row) -> bool:
        """Insert a row; False, and no change, when its primary key is there already."""
        statement, keys = self._insert(row)
        statement = statement.on_conflict_do_nothing(index_elements=keys)
        first = table_of(type(row)).c[keys[0]]
        with self.begin() as connection:  # psycopg counts no rows here: return the inserted one
            return connection.execute(statement.returning(first)).first() is not None

    def upsert(self, row: Row) -> None:
        """Insert a row, or replace the one with the same primary key."""
        statement, keys = self._insert(row)
        rest = {
            name: statement.excluded[name] for name in to_column_values(row) if name not in keys
        }
        with self.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))

    def insert_all(self, rows: Sequence[Row]) -> None:
        """Insert rows of one kind that are not there yet."""
        if rows:
            with self.begin() as connection:
                statement = sa.insert(table_of(type(rows[0])))
                connection.execute(statement, [to_column_values(row) for row in rows])

    def load(self, statement: TypedReturnsRows[RowT]) -> list[RowT]:
        """Run a statement that selects, or returns, rows of one class and return those rows."""
        with self.read() as connection, Session(connection) as session:
            return list(session.scalars(statement, execution_options=_NO_SYNCHRONIZE))

    def load_first(self, statement: sa.Select[RowT]) -> RowT | None:
        """Run a select of one row class and return its first row, or None."""
        found = self.load(statement)
        return found[0] if found else None

    def mappings(self, statement: sa.Select[*tuple[Any, ...]]) -> Sequence[Mapping[str, Any]]:
        """Run a select of single columns and return column name -> value for every row."""
        with self.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def _insert(self, row: Row) -> tuple[Any, list[str]]:
        dialect: Any = sqlite if self.is_sqlite else postgresql
        table = table_of(type(row))
        keys = [column.name for column in table.primary_key.columns]
        return dialect.insert(table).values(**to_column_values(row)), keys
