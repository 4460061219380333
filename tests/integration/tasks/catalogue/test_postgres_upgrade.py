"""The catalogue of version 0.1.0 on a real PostgreSQL: refused, upgraded, continued."""

from __future__ import annotations

import json
import multiprocessing as mp
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from tasks.catalogue import AssetState, Catalogue, CatalogueError, upgrade_catalogue
from tasks.catalogue.engine import open_engine
from tasks.catalogue.mapping import Row
from tasks.catalogue.schema import HEAD, migration_config


@pytest.fixture
def old_url(fresh_url: str, old_catalogue: Any, tmp_path: Path) -> str:
    """A database with the tables that version 0.1.0 makes and the rows that it wrote."""
    old_catalogue.write(tmp_path / "c.db")
    engine = open_engine(fresh_url)
    with engine.begin() as connection, closing(sqlite3.connect(tmp_path / "c.db")) as source:
        connection.exec_driver_sql((old_catalogue.folder / "postgresql.sql").read_text("utf-8"))
        tables = sa.MetaData()
        tables.reflect(connection)
        for table in tables.sorted_tables:
            names = [column.name for column in table.columns]
            text = ", ".join(f'"{name}"' for name in names)
            for row in source.execute(f"SELECT {text} FROM {table.name}"):
                connection.execute(
                    table.insert(), _typed(table, dict(zip(names, row, strict=True)))
                )
        connection.exec_driver_sql(
            "SELECT setval('events_event_id_seq', (SELECT max(event_id) FROM events))"
        )
    engine.dispose()
    return fresh_url


def _typed(table: sa.Table, row: dict[str, Any]) -> dict[str, Any]:
    """SQLite keeps booleans as numbers and JSON as text."""
    for column in table.columns:
        if isinstance(column.type, sa.Boolean):
            row[column.name] = bool(row[column.name])
        elif isinstance(column.type, sa.JSON):
            row[column.name] = json.loads(row[column.name])
    return row


def differences(url: str) -> list[Any]:
    """What Alembic would change to make a database equal to the row classes."""
    engine = open_engine(url)
    options = {"compare_type": True, "compare_server_default": True}
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts=options), Row.metadata)
    engine.dispose()
    return found


def test_row_classes_and_migrations_make_the_same_tables(fresh_url: str) -> None:
    engine = open_engine(fresh_url)
    with engine.begin() as connection:
        config = migration_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
    assert differences(fresh_url) == []


def test_a_new_database_gets_the_newest_tables(fresh_url: str) -> None:
    catalogue = Catalogue(fresh_url)
    assert differences(fresh_url) == []
    assert catalogue.raw.get_cursor("schema_version") == "alembic"
    assert upgrade_catalogue(fresh_url).before == HEAD


def test_an_old_database_is_refused_until_it_is_upgraded(old_url: str, old_catalogue: Any) -> None:
    with pytest.raises(CatalogueError, match=r"revision 0001.*pg_dump.*segvigen db upgrade"):
        Catalogue(old_url)
    done = upgrade_catalogue(old_url)
    assert (done.before, done.after, done.backup) == ("0001", HEAD, None)
    read, expected = old_catalogue.read(Catalogue(old_url)), old_catalogue.expected()
    for name, rows in expected.items():
        assert read[name] == rows, name
    assert differences(old_url) == []


def test_work_goes_on_in_an_upgraded_database(old_url: str) -> None:
    upgrade_catalogue(old_url)
    catalogue = Catalogue(old_url)
    (claimed,) = catalogue.claim(["registered"], 5, "w")
    assert catalogue.move(claimed.asset_id, "encoded", worker="w").state is AssetState.ENCODED
    rows = catalogue.reviews.list_annotations("07" * 32)
    assert [row.is_late for row in rows] == [False, True, False]
    catalogue.reviews.mark_late("07" * 32, rows[-1].unique_id)
    assert [row.is_late for row in catalogue.reviews.list_annotations("07" * 32)] == [
        False,
        True,
        True,
    ]


def test_a_failed_upgrade_changes_nothing(old_url: str) -> None:
    with psycopg.connect(old_url) as connection:  # in the way of a new index
        connection.execute("CREATE TABLE quality_findings_by_subject (a int)")
    with pytest.raises(sa.exc.ProgrammingError, match="already exists"):
        upgrade_catalogue(old_url)
    with psycopg.connect(old_url) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM annotations WHERE unique_id LIKE '%#late'"
        ).fetchone()
        assert count == 4
        connection.execute("DROP TABLE quality_findings_by_subject")
    assert upgrade_catalogue(old_url).before == "0001"


def test_a_newer_database_is_refused(fresh_url: str) -> None:
    Catalogue(fresh_url)
    with psycopg.connect(fresh_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
    for use in (Catalogue, upgrade_catalogue):
        with pytest.raises(CatalogueError, match="revision 0099, newer than this"):
            use(fresh_url)


def _open(url: str, start: Any, queue: mp.Queue[str]) -> None:
    start.wait(60)
    try:
        queue.put(str(upgrade_catalogue(url).before))
    except Exception as err:  # the other process must hear of it
        queue.put(repr(err))


@pytest.mark.parametrize("is_old", [True, False])
def test_processes_that_upgrade_at_once_do_it_once(
    request: pytest.FixtureRequest, is_old: bool
) -> None:
    url = request.getfixturevalue("old_url" if is_old else "fresh_url")
    context = mp.get_context("spawn")
    queue: mp.Queue[str] = context.Queue()
    start = context.Barrier(3)
    processes = [context.Process(target=_open, args=(url, start, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    found = sorted(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert found == sorted([HEAD, HEAD, "0001" if is_old else "None"])
    assert differences(url) == []
