"""Schema revisions on SQLite: models and migrations agree, old catalogues are upgraded."""

from __future__ import annotations

import io
import multiprocessing as mp
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    AssetState,
    Catalogue,
    CatalogueError,
    CopyRole,
    CopyRow,
    FindingKind,
    FindingRow,
    upgrade_catalogue,
)
from tasks.catalogue.engine import open_engine
from tasks.catalogue.mapping import Row
from tasks.catalogue.schema import HEAD, migration_config

IN_REVIEW, SKIPPED, TWICE = ("07" * 32, "0e" * 32, "11" * 32)


def migrate(path: Path, revision: str) -> str:
    """Run the migrations, and nothing else, on a file."""
    engine = open_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = migration_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    return f"sqlite:///{path}"


def differences(url: str) -> list[Any]:
    """What Alembic would change to make a database equal to the row classes."""
    engine = open_engine(url)
    options = {"compare_type": True, "compare_server_default": True}
    # Alembic reads no directions of SQLite's indexes; test_queries.py shows that this one is used.
    options["include_object"] = lambda _found, name, *_more: name != "assets_by_order"
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts=options), Row.metadata)
    engine.dispose()
    return found


def described(url: str) -> dict[str, Any]:
    """Columns, keys and indexes of every table."""
    engine = open_engine(url)
    crop = sa.inspect(engine)
    tables = {
        name: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"], column["default"])
                for column in crop.get_columns(name)
            },
            "key": crop.get_pk_constraint(name)["constrained_columns"],
            "indexes": sorted(
                (index["name"], tuple(index["column_names"])) for index in crop.get_indexes(name)
            ),
        }
        for name in crop.get_table_names()
        if name != "alembic_version"
    }
    engine.dispose()
    return tables


def backups(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.bak*"))


def test_row_classes_and_migrations_make_the_same_tables(tmp_path: Path) -> None:
    migrated = migrate(tmp_path / "migrated.db", "head")
    Catalogue(created := f"sqlite:///{tmp_path}/created.db")
    assert differences(migrated) == [] == differences(created)
    assert described(migrated) == described(created)
    assert ScriptDirectory.from_config(migration_config()).get_heads() == [HEAD]


def test_a_difference_is_found(tmp_path: Path) -> None:
    url = migrate(tmp_path / "c.db", "head")
    with sqlite3.connect(tmp_path / "c.db") as connection:
        connection.execute("ALTER TABLE annotations DROP COLUMN is_late")
    assert [found[0] for found in differences(url)] == ["add_column"]


def test_the_first_revision_is_what_version_0_1_wrote(tmp_path: Path, old_catalogue: Any) -> None:
    first = migrate(tmp_path / "first.db", "0001")
    assert described(first) == described(old_catalogue.write(tmp_path / "old.db"))


def test_an_old_catalogue_is_upgraded_when_it_is_opened(tmp_path: Path, old_catalogue: Any) -> None:
    url = old_catalogue.write(tmp_path / "c.db")
    expected = old_catalogue.expected()
    assert all(expected["counts"].values()), "a state without an asset proves nothing"
    read = old_catalogue.read(Catalogue(url))
    for name, rows in expected.items():
        assert read[name] == rows, name
    assert set(read) == set(expected)
    assert differences(url) == []
    (backup,) = backups(tmp_path)
    assert backup.name.startswith("c.db.0001-") and backup.name.endswith("Z.bak")
    with closing(sqlite3.connect(backup)) as kept, closing(sqlite3.connect(":memory:")) as old:
        old.executescript((old_catalogue.folder / "catalogue.sql").read_text(encoding="utf-8"))
        assert sorted(kept.iterdump()) == sorted(old.iterdump())
    Catalogue(url)
    assert backups(tmp_path) == [backup], "only an upgrade makes a backup"


def test_late_annotations_have_a_column(tmp_path: Path, old_catalogue: Any) -> None:
    reviews = Catalogue(old_catalogue.write(tmp_path / "c.db")).reviews
    rows = reviews.list_annotations(IN_REVIEW)
    assert [(row.round, row.is_late, row.verdict) for row in rows] == [
        *[(0, False, "refine"), (0, True, "accept"), (1, False, None)]
    ]
    assert len({row.unique_id for row in rows}) == 2
    assert not any("#" in row.unique_id for row in [*rows, *reviews.list_annotations(TWICE)])
    assert (
        len(reviews.list_clicks(IN_REVIEW)) == 3 and len(reviews.list_edit_commands(IN_REVIEW)) == 2
    )
    # The version that was stored under both ids is the one in the round's history.
    assert [(row.is_late, row.verdict) for row in reviews.list_annotations(TWICE)] == [
        *[(True, "refine"), (False, "accept")]
    ]


def test_copies_and_findings_of_an_old_catalogue_use_the_new_terms(
    tmp_path: Path, old_catalogue: Any
) -> None:
    quality = Catalogue(old_catalogue.write(tmp_path / "c.db")).quality
    assert [len(quality.list_copies(role)) for role in CopyRole] == [2, 1]
    assert {row.kind for row in quality.list_findings()} == set(FindingKind)
    (compared,) = quality.list_findings(FindingKind.DOUBLE)
    assert not quality.is_held(compared.asset_id), "it was compared before the upgrade"
    assert quality.get_double(TWICE) is not None and quality.is_held(TWICE)
    with closing(sqlite3.connect(tmp_path / "c.db")) as connection:
        stored = {row[0] for row in connection.execute("SELECT role FROM review_copies")}
        stored |= {row[0] for row in connection.execute("SELECT kind FROM quality_findings")}
    assert stored == {"double", "gold", "gain", "audit"}


def test_a_catalogue_of_revision_2_is_upgraded(tmp_path: Path) -> None:
    url = migrate(tmp_path / "c.db", "0002")
    with sqlite3.connect(tmp_path / "c.db") as connection:
        connection.execute(
            "INSERT INTO review_copies (asset_id, role, of_asset, created_at) "
            "VALUES ('a', 'second', 'b', 0)"
        )
    assert upgrade_catalogue(url).before == "0002"
    assert Catalogue(url).quality.get_double("b") == CopyRow("a", CopyRole.DOUBLE, "b")


def test_work_goes_on_in_an_upgraded_catalogue(tmp_path: Path, old_catalogue: Any) -> None:
    catalogue = Catalogue(old_catalogue.write(tmp_path / "c.db"))
    num_events = len(catalogue.list_events())
    (claimed,) = catalogue.claim(["registered"], 5, "w")
    assert catalogue.move(claimed.asset_id, "encoded", worker="w").state is AssetState.ENCODED
    assert catalogue.retry(SKIPPED).state is AssetState.PROPOSED
    assert catalogue.register(AssetRow("f" * 64, AssetState.REGISTERED))
    (open_one,) = [
        row for row in catalogue.reviews.list_uninterpreted() if row.asset_id == IN_REVIEW
    ]
    catalogue.reviews.interpret(open_one.unique_id, open_one.updated_at, verdict="accept")
    catalogue.reviews.mark_late(IN_REVIEW, open_one.unique_id)
    late = catalogue.reviews.get_annotation(open_one.unique_id, open_one.updated_at)
    assert late is not None and late.is_late
    again = AnnotationRow(
        *(late.unique_id, late.updated_at, 2, 7, IN_REVIEW, 1, "ann", {"id": 2}), is_late=False
    )
    assert not catalogue.reviews.record_annotation(again), "one version is stored once"
    (label_set, _) = catalogue.quality.list_uncompared("gate")
    catalogue.quality.add_finding(
        FindingRow(label_set.asset_id, FindingKind.GAIN, label_set.label_id, "ann", iou=0.5)
    )
    assert len(catalogue.quality.list_uncompared("gate")) == 1
    events = catalogue.list_events()
    assert len(events) > num_events + 5
    assert events[-1].event_id > events[num_events - 1].event_id


def test_an_earlier_catalogue_gets_the_tables_that_came_later(
    tmp_path: Path, old_catalogue: Any
) -> None:
    url = old_catalogue.write(tmp_path / "c.db")
    later = ("verbs", "awaited_files", "gate_decisions", "review_copies", "gold_labels")
    with sqlite3.connect(tmp_path / "c.db") as connection:
        for table in (*later, "quality_findings"):
            connection.execute(f"DROP TABLE {table}")
    catalogue = Catalogue(url)
    assert catalogue.reviews.list_edit_commands(IN_REVIEW) == [] == catalogue.quality.list_copies()
    assert len(catalogue.reviews.list_annotations(IN_REVIEW)) == 3
    assert differences(url) == []


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE alembic_version SET version_num = '0099'", "revision 0099, newer than this"),
        ("DROP TABLE alembic_version", "schema 'alembic' and no revision"),
        ("DELETE FROM alembic_version", "schema 'alembic' and no revision"),
    ],
)
def test_what_this_code_cannot_know_is_refused(
    tmp_path: Path, statement: str, message: str
) -> None:
    Catalogue(url := f"sqlite:///{tmp_path}/c.db")
    with sqlite3.connect(tmp_path / "c.db") as connection:
        connection.execute(statement)
    for use in (Catalogue, upgrade_catalogue):
        with pytest.raises(CatalogueError, match=message):
            use(url)
    assert backups(tmp_path) == []


@pytest.mark.parametrize("is_upgraded", [True, False])
def test_version_0_1_refuses_the_present_schema(
    tmp_path: Path, old_catalogue: Any, is_upgraded: bool
) -> None:
    url = old_catalogue.write(tmp_path / "c.db") if is_upgraded else f"sqlite:///{tmp_path}/c.db"
    # That version works only where this row has the value "1".
    assert Catalogue(url).raw.get_cursor("schema_version") == "alembic"


def test_the_command_reports_what_was_done(tmp_path: Path, old_catalogue: Any) -> None:
    url = old_catalogue.write(tmp_path / "c.db")
    done = upgrade_catalogue(url)
    assert (done.before, done.after) == ("0001", HEAD)
    assert [done.backup] == backups(tmp_path)
    again = upgrade_catalogue(url)
    assert (again.before, again.after, again.backup) == (HEAD, HEAD, None)
    new = upgrade_catalogue(f"sqlite:///{tmp_path}/new.db")
    assert (new.before, new.after, new.backup) == (None, HEAD, None)


def _open(url: str, start: Any, queue: mp.Queue[str]) -> None:
    start.wait(60)
    try:
        queue.put(str(sum(Catalogue(url).count_assets().values())))
    except Exception as err:  # the other process must hear of it
        queue.put(repr(err))


@pytest.mark.parametrize(("is_old", "num_assets"), [(True, 17), (False, 0)])
def test_processes_that_open_one_file_at_once_upgrade_it_once(
    tmp_path: Path, old_catalogue: Any, is_old: bool, num_assets: int
) -> None:
    url = old_catalogue.write(tmp_path / "c.db") if is_old else f"sqlite:///{tmp_path}/c.db"
    context = mp.get_context("spawn")
    queue: mp.Queue[str] = context.Queue()
    start = context.Barrier(4)
    processes = [context.Process(target=_open, args=(url, start, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=120) for _ in processes] == [str(num_assets)] * 4
    for process in processes:
        process.join()
    assert len(backups(tmp_path)) == int(is_old)
    assert differences(url) == []


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", code, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


KILLED = """
import os, sys
import sqlalchemy as sa
from tasks.catalogue import Catalogue

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def die(connection, cursor, statement, *rest):
    if "quality_findings_by_subject" in statement:
        os._exit(9)

Catalogue(sys.argv[1])
"""


def test_a_killed_upgrade_changes_nothing(tmp_path: Path, old_catalogue: Any) -> None:
    url = old_catalogue.write(tmp_path / "c.db")
    before = described(url)
    assert run(KILLED, url).returncode == 9
    assert described(url) == before
    read = old_catalogue.read(Catalogue(url))
    assert read["annotations"] == old_catalogue.expected()["annotations"]
    assert differences(url) == []


DISK_FULL = """
import resource, sys
from tasks.catalogue import Catalogue, CatalogueError

resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    Catalogue(sys.argv[1])
except CatalogueError as err:
    sys.exit(str(err))
"""


def test_without_a_backup_there_is_no_upgrade(tmp_path: Path, old_catalogue: Any) -> None:
    url = old_catalogue.write(tmp_path / "c.db")
    assert (tmp_path / "c.db").stat().st_size > 65536
    before = described(url)
    done = run(DISK_FULL, url)
    assert "could not be backed up" in done.stderr and "not upgraded" in done.stderr
    assert described(url) == before
    assert backups(tmp_path) == []


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql+psycopg"])
def test_the_migrations_can_be_written_as_sql(dialect: str) -> None:
    config = migration_config()
    config.output_buffer = io.StringIO()
    config.set_main_option("sqlalchemy.url", f"{dialect}://")
    command.upgrade(config, "head", sql=True)
    text = config.output_buffer.getvalue()
    for statement in (
        "CREATE TABLE IF NOT EXISTS assets",
        "ALTER TABLE annotations ADD COLUMN is_late",
        "ALTER TABLE verbs RENAME TO edit_commands",
        "UPDATE annotations SET unique_id=replace(annotations.unique_id, '#late', ''), is_late=",
        "UPDATE alembic_version SET version_num='0002'",
        "UPDATE review_copies SET role='double' WHERE review_copies.role = 'second'",
        "UPDATE quality_findings SET kind='gold' WHERE quality_findings.kind = 'known'",
        "UPDATE alembic_version SET version_num='0003'",
    ):
        assert statement in text, statement


def test_looking_for_unmeasured_label_sets_uses_the_index(tmp_path: Path) -> None:
    Catalogue(f"sqlite:///{tmp_path}/c.db")
    query = (
        "EXPLAIN QUERY PLAN SELECT label_id FROM label_sets WHERE NOT EXISTS (SELECT 1 FROM "
        "quality_findings WHERE quality_findings.subject = label_sets.label_id)"
    )
    with closing(sqlite3.connect(tmp_path / "c.db")) as connection:
        plan = " ".join(str(row) for row in connection.execute(query))
    assert "quality_findings_by_subject" in plan


def test_reading_the_revision_is_all_that_an_open_costs(tmp_path: Path) -> None:
    Catalogue(url := f"sqlite:///{tmp_path}/c.db")
    code = (
        "import sys; from tasks.catalogue import Catalogue; Catalogue(sys.argv[1]);"
        "print('alembic' in sys.modules)"
    )
    assert run(code, url).stdout.strip() == "False"


def test_connections_that_switch_a_new_file_to_wal_at_once_wait_for_each_other(
    tmp_path: Path,
) -> None:
    """SQLite's busy timeout does not cover the switch: of 480 plain ones some fail."""

    def connect(url: str, start: threading.Barrier) -> None:
        engine = open_engine(url)
        start.wait()
        with engine.connect():
            pass
        engine.dispose()

    for number in range(10):
        start = threading.Barrier(8)
        with ThreadPoolExecutor(8) as pool:
            url = f"sqlite:///{tmp_path}/{number}.db"
            for done in [pool.submit(connect, url, start) for _ in range(8)]:
                done.result()


def test_known_hashes_become_records(tmp_path: Path) -> None:
    url = migrate(tmp_path / "c.db", "0003")
    proposal = "INSERT INTO proposals VALUES (?, ?, ?, ?, 1, .5, 'c', '{}', 7.0)"
    version = "INSERT INTO shard_versions VALUES ('parts', 'v', 'shards/m', 'c', 1, 9, 8.0)"
    with sqlite3.connect(tmp_path / "c.db") as connection:
        for row in [("x", 0, "p/x", "a"), ("y", 0, "p/y", "b"), ("z", 0, "p/y", "other")]:
            connection.execute(proposal, row)
        connection.execute(version)
    rows = [(row.key, row.sha256, row.size_bytes) for row in Catalogue(url).blobs.list_all()]
    assert rows == [("p/x", "a", -1), ("shards/m", "c", -1)], "a key with two hashes has no record"
