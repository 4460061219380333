"""The schema's revision: create a new catalogue, check one, upgrade an older one.

Opening a catalogue costs one query of its revision. A missing schema is created from the row
classes and stamped; an older one is upgraded by the Alembic revisions in `migrations/versions`:
on SQLite when it is opened, after a backup; on PostgreSQL, where other workers may be at work,
only by `segvigen db upgrade`. A newer one is refused.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tasks.catalogue import device_rows, quality_rows  # noqa: F401 - tables of `Row.metadata`
from tasks.catalogue.engine import CatalogueError, is_sqlite, open_engine
from tasks.catalogue.mapping import Row, table_of
from tasks.catalogue.rows import CursorRow

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger(__name__)

HEAD = "0009"  # newest file of migrations/versions
UNSTAMPED = "0001"  # what the code wrote before there were revisions
UNSTAMPED_MARKER = "1"  # its value of the cursor "schema_version"
MARKER_NAME, MARKER_NOW = "schema_version", "alembic"  # makes that code refuse the catalogue
MIGRATIONS = Path(__file__).parent / "migrations"
SCHEMA_LOCK = 0x5E671  # any fixed number: one process changes the schema, the others wait
UPGRADE_WAIT_MS = 3_600_000  # other openers wait for an upgrade of a large SQLite file
_alembic_lock = threading.Lock()  # alembic's `op` and `context` are global


@dataclass(frozen=True, slots=True)
class SchemaUpgrade:
    """What an upgrade did.

    Attributes:
        before: revision that was found, or None for an empty database.
        after: revision now.
        backup: copy of the SQLite file as it was, if the schema was changed.
    """

    before: str | None
    after: str
    backup: Path | None = None


def prepare_schema(engine: sa.Engine) -> None:
    """Create the schema, or upgrade it on SQLite, unless it is the present one.

    Raises:
        CatalogueError: the schema is newer than this code, was written by unknown code, or is
            older and on PostgreSQL.
    """
    with engine.connect().execution_options(is_reading=True) as connection:
        found = read_revision(connection)
    if found == HEAD:
        return
    if found is not None and not is_sqlite(engine):
        _check_known(found)
        raise CatalogueError(
            f"the catalogue has schema revision {found}, this code needs {HEAD}; stop its workers, "
            "make a backup (pg_dump), then run `segvigen db upgrade`"
        )
    upgrade_schema(engine.url)


def upgrade_catalogue(url: str) -> SchemaUpgrade:
    """Bring a catalogue to the newest schema revision; a new one is created.

    Args:
        url: "sqlite:///path", backed up first into a file beside it, or "postgresql://...",
            upgraded in one transaction.
    """
    engine = open_engine(url)
    try:
        return upgrade_schema(engine.url)
    finally:
        engine.dispose()


def upgrade_schema(url: sa.URL) -> SchemaUpgrade:
    """Create or upgrade a schema while nobody else can write; see `upgrade_catalogue`."""
    with _alembic_lock, _exclusive(url) as connection:
        found = read_revision(connection)
        if found == HEAD:
            return SchemaUpgrade(found, HEAD)
        if found is None:
            _create(connection)
            return SchemaUpgrade(None, HEAD)
        _check_known(found)
        backup = None
        if connection.dialect.name == "sqlite":
            backup = _back_up(Path(str(url.database)), found)
        _run_migrations(connection)
    log.warning("catalogue=upgraded from=%s to=%s backup=%s", found, HEAD, backup)
    return SchemaUpgrade(found, HEAD, backup)


def read_revision(connection: sa.Connection) -> str | None:
    """The schema revision of a database; None if it holds no catalogue."""
    tables = sa.inspect(connection)
    if tables.has_table("alembic_version"):
        query = sa.text("SELECT version_num FROM alembic_version")
        revision = connection.execute(query).scalar_one_or_none()
        if revision is not None:
            return str(revision)
    cursors = table_of(CursorRow)
    if not tables.has_table(cursors.name):
        return None
    query_marker = sa.select(cursors.c.value).where(cursors.c.name == MARKER_NAME)
    marker = connection.execute(query_marker).scalar_one_or_none()
    if marker != UNSTAMPED_MARKER:
        raise CatalogueError(
            f"the catalogue has schema {marker!r} and no revision, so it cannot be upgraded; use "
            "the code that made it, or a new catalogue"
        )
    return UNSTAMPED


def list_tables() -> list[str]:
    """Names of all tables of the present and of earlier revisions."""
    return [*Row.metadata.tables, "verbs"]


def migration_config() -> Config:
    """Alembic's configuration; there is no alembic.ini."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _check_known(revision: str) -> None:
    """Raise CatalogueError unless the revision is one of migrations/versions."""
    from alembic.script import ScriptDirectory

    known = [
        each.revision for each in ScriptDirectory.from_config(migration_config()).walk_revisions()
    ]
    if revision not in known:
        raise CatalogueError(
            f"the catalogue has schema revision {revision}, newer than this code's {HEAD}; install "
            "the version of segvigen that upgraded it, or restore the backup made before"
        )


def _create(connection: sa.Connection) -> None:
    """Make all tables of a new catalogue."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    Row.metadata.create_all(connection)
    marker = {"name": MARKER_NAME, "value": MARKER_NOW, "updated_at": time.time()}
    connection.execute(sa.insert(table_of(CursorRow)).values(**marker))
    scripts = ScriptDirectory.from_config(migration_config())
    MigrationContext.configure(connection).stamp(scripts, HEAD)


def _run_migrations(connection: sa.Connection) -> None:
    from alembic import command

    config = migration_config()
    config.attributes["connection"] = connection
    # From the start where nothing was stamped: the first revision makes only what is missing.
    command.upgrade(config, HEAD)


@contextmanager
def _exclusive(url: sa.URL) -> Iterator[sa.Connection]:
    """A transaction that waits for, and then shuts out, others that would change the schema."""
    engine = open_engine(url.render_as_string(hide_password=False), UPGRADE_WAIT_MS)
    try:
        with engine.begin() as connection:  # on SQLite the one writer of the file
            if not is_sqlite(engine):
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
            yield connection
    finally:
        engine.dispose()


def _back_up(path: Path, revision: str) -> Path:
    """Copy a SQLite file, with what stands in its log, to a file beside it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = path.with_name(f"{path.name}.{revision}-{stamp}.bak")
    part = target.with_name(f"{target.name}.part")
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
    except sqlite3.Error as err:
        part.unlink(missing_ok=True)
        raise CatalogueError(
            f"the catalogue {path} could not be backed up ({err}), so it was not upgraded; make "
            f"room for a copy beside it"
        ) from err
    part.replace(target)
    return target
