"""Backup and restore: a consistent catalogue, the list of blobs it needs, on request the blobs.

A backup is a folder named by its time, its `backup.json` written last. SQLite is copied by its
online backup, PostgreSQL by `pg_dump`; workers may go on meanwhile. Blobs are copied beside the
backups, each once, so that a second backup copies only what is new.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from segvigen_model.errors import SegvigenError
from tasks.catalogue import Catalogue, CatalogueError, upgrade_catalogue
from tasks.catalogue.engine import open_engine
from tasks.catalogue.schema import list_tables
from tasks.errors import is_transient_error
from tasks.recovery.needs import Need, list_needs
from tasks.storage.canonical import canonical_json
from tasks.storage.local_files import compute_file_sha256
from tasks.storage.store import BlobDamaged, BlobMissing, Store
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

BACKUP_SCHEMA = "segvigen-backup/1"
SQLITE_FILE, POSTGRESQL_FILE = "catalogue.db", "catalogue.dump"
LIST_FILE, INFO_FILE, BLOBS_FOLDER = "blobs.jsonl", "backup.json", "blobs"


class BackupError(SegvigenError):
    """A backup cannot be made or used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup or a restore did.

    Attributes:
        folder: of the backup, below its target.
        num_blobs: that the catalogue needs; num_copied of them were copied now.
        problems: (key, what is wrong) of needed blobs that are missing or damaged.
    """

    folder: str
    num_blobs: int
    num_copied: int
    problems: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "folder": self.folder,
            "blobs": self.num_blobs,
            "copied": self.num_copied,
            "problems": [{"key": key, "problem": problem} for key, problem in self.problems],
        }


def back_up(workspace: Workspace, target: Store, *, has_blobs: bool = False) -> BackupReport:
    """Write a backup.

    Args:
        workspace: what to back up; nothing is changed.
        target: root of all backups, such as a folder on another disk or another bucket.
        has_blobs: also copy the blobs; without them the backup needs the pipeline's bucket.

    Raises:
        BackupError: `pg_dump` is absent or failed.
    """
    url = sa.make_url(workspace.settings.catalogue.url.get_secret_value())
    is_sqlite = url.get_backend_name() == "sqlite"
    name = SQLITE_FILE if is_sqlite else POSTGRESQL_FILE
    folder = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    with tempfile.TemporaryDirectory(prefix="segvigen-backup-") as scratch:
        file = Path(scratch) / name
        if is_sqlite:
            copy_sqlite(Path(str(url.database)), file)
            # The list is that of the copy: the catalogue itself goes on meanwhile.
            held = replace(workspace, catalogue=Catalogue(f"sqlite:///{file}"))
        else:
            _run_postgres("pg_dump", url, ["--format=custom", f"--file={file}"])
            held = workspace
        needs = list_needs(held)
        target.put_file(f"{folder}/{name}", file)
        digest = compute_file_sha256(file)
    copied, problems = _copy_blobs(workspace.store, target, needs) if has_blobs else (0, ())
    lines = [
        {"key": need.key, "sha256": need.sha256, "size": need.size, "kind": need.kind}
        for need in needs
    ]
    text = "".join(canonical_json(line) + "\n" for line in lines)
    blob_list = target.put(f"{folder}/{LIST_FILE}", text.encode(), "application/x-ndjson")
    info = {
        "schema": BACKUP_SCHEMA,
        "backend": url.get_backend_name(),
        "catalogue": {"file": name, "sha256": digest},
        "list": {"file": LIST_FILE, "sha256": blob_list.sha256},
        "store": workspace.store.root_url,
        "has_blobs": has_blobs,
        "num_blobs": len(needs),
        "assets": {str(state): n for state, n in held.catalogue.count_assets().items()},
    }
    target.put_json(f"{folder}/{INFO_FILE}", info)
    counts = (len(needs), copied, len(problems))
    log.warning("backup=%s blobs=%d copied=%d problems=%d", folder, *counts)
    return BackupReport(folder, len(needs), copied, tuple(problems))


def restore(
    workspace_url: str, store: Store, source: Store, folder: str = "", *, is_forced: bool = False
) -> BackupReport:
    """Put a backup's catalogue in the place of the present one, and missing blobs into the store.

    An older schema is upgraded. Stop all workers before.

    Args:
        workspace_url: of the catalogue to fill.
        store: of the pipeline; gets what it lacks, if the backup has blobs.
        source: root of the backups.
        folder: which; "" = the newest that is complete.
        is_forced: also over a catalogue that is not empty.

    Raises:
        BackupError: no such backup, it is damaged, or of another kind of database.
        CatalogueError: the catalogue is not empty.
    """
    folder = folder or find_newest(source)
    info = _read_info(source, folder)
    url = sa.make_url(workspace_url)
    if info["backend"] != url.get_backend_name():
        raise BackupError(
            f"the backup is of {info['backend']}, the settings name {url.get_backend_name()}; set "
            "SEGVIGEN_CATALOGUE_URL to a database of that kind"
        )
    if not is_forced:
        _refuse_filled(workspace_url)
    with tempfile.TemporaryDirectory(prefix="segvigen-restore-") as scratch:
        file = Path(scratch) / info["catalogue"]["file"]
        data = source.get(f"{folder}/{file.name}", info["catalogue"]["sha256"])
        file.write_bytes(data)
        if info["backend"] == "sqlite":
            fill_sqlite(file, Path(str(url.database)))
        else:
            _fill_postgres(url, file)
    upgrade_catalogue(workspace_url)
    text = source.get(f"{folder}/{LIST_FILE}", info["list"]["sha256"])
    lines = [json.loads(line) for line in text.splitlines()]
    copied, problems = _bring_back(store, source, lines)
    return BackupReport(folder, len(lines), copied, tuple(problems))


def find_newest(source: Store) -> str:
    """Folder of the newest complete backup; raises BackupError if there is none."""
    found = [info.key for info in source.list() if info.key.endswith(f"/{INFO_FILE}")]
    names = sorted(key.split("/")[0] for key in found if key.count("/") == 1)
    if not names:
        raise BackupError(f"no complete backup below {source.root_url}; check the address")
    return names[-1]


def copy_sqlite(path: Path, target: Path) -> None:
    """Copy a SQLite database as it is at one moment, with what stands in its log."""
    if not path.is_file():
        raise BackupError(f"no catalogue at {path}; check SEGVIGEN_CATALOGUE_URL")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def fill_sqlite(file: Path, path: Path) -> None:
    """Put the content of a copy into a database, in one transaction of that database."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)


def _refuse_filled(url: str) -> None:
    """Raise CatalogueError if a catalogue, of any schema revision, has assets."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
        return
    engine, num_assets = open_engine(url), 0
    with _closing_engine(engine), engine.connect() as connection:
        if sa.inspect(connection).has_table("assets"):
            query = sa.select(sa.func.count()).select_from(sa.table("assets"))
            num_assets = int(connection.execute(query).scalar_one())
    if num_assets:
        raise CatalogueError(
            f"the catalogue holds {num_assets} assets; back it up, then restore with --force"
        )


def _fill_postgres(url: sa.URL, file: Path) -> None:
    """Replace our tables of a PostgreSQL database; tables of others are left alone."""
    engine = open_engine(url.render_as_string(hide_password=False))
    with _closing_engine(engine), engine.begin() as connection:
        for name in [*list_tables(), "alembic_version"]:
            connection.execute(sa.text(f'DROP TABLE IF EXISTS "{name}" CASCADE'))
    _run_postgres("pg_restore", url, ["--single-transaction", "--no-owner", str(file)])


@contextmanager
def _closing_engine(engine: sa.Engine) -> Iterator[None]:
    """Close an engine's connections at the end."""
    try:
        yield
    finally:
        engine.dispose()


def _run_postgres(program: str, url: sa.URL, options: list[str]) -> None:
    """Run a program of PostgreSQL; the password is in its environment, not among its arguments."""
    found = shutil.which(program)
    if found is None:
        raise BackupError(
            f"{program} is not installed; install PostgreSQL's client programs of the server's "
            "version or newer (Debian: postgresql-client)"
        )
    plain = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    env = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    argv = [found, f"--dbname={plain}", "--no-password", *options]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BackupError(f"{program} failed: {done.stderr.strip()[-500:]}")


def _read_info(source: Store, folder: str) -> dict[str, Any]:
    try:
        info: dict[str, Any] = source.get_json(f"{folder}/{INFO_FILE}")
    except BlobMissing as err:
        raise BackupError(f"no complete backup {folder!r} below {source.root_url}") from err
    if info.get("schema") != BACKUP_SCHEMA:
        raise BackupError(f"backup {folder!r} has schema {info.get('schema')!r}; use newer code")
    return info


def _copy_blobs(
    store: Store, target: Store, needs: list[Need]
) -> tuple[int, list[tuple[str, str]]]:
    """Copy needed blobs, proven; what the target has with the same size and hash is left."""
    copied, problems = 0, []
    for need in needs:
        key = f"{BLOBS_FOLDER}/{need.key}"
        try:
            if need.sha256 and target.exists(key) and target.compute_sha256(key) == need.sha256:
                continue
            data = store.get(need.key, need.sha256)
            target.delete(key)
            target.put(key, data)
            copied += 1
        except (BlobMissing, BlobDamaged) as err:
            problems.append((need.key, str(err)))
    return copied, problems


def _bring_back(
    store: Store, source: Store, lines: list[dict[str, Any]]
) -> tuple[int, list[tuple[str, str]]]:
    """Copy what the store lacks out of the backup; what is right stays."""
    copied, problems = 0, []
    for line in lines:
        key, sha256 = line["key"], line["sha256"]
        if _is_whole(store, key, sha256, line["size"]):
            continue
        try:
            data = source.get(f"{BLOBS_FOLDER}/{key}", sha256)
            store.delete(key)
            store.put(key, data)
            copied += 1
        except (BlobMissing, BlobDamaged) as err:
            if is_transient_error(err) and not isinstance(err, BlobDamaged):
                raise
            problems.append((key, str(err)))
    return copied, problems


def _is_whole(store: Store, key: str, sha256: str | None, size: int | None) -> bool:
    held = store.get_size(key)
    if held is None or (size is not None and held != size):
        return False
    return sha256 is None or store.compute_sha256(key) == sha256
