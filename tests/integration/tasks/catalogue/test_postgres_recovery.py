"""The restore drill on a real PostgreSQL: by pg_dump and pg_restore, and from the bucket alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from segvigen_model.model.bundle import build_model
from segvigen_model.segmenter import Segmenter
from tasks.catalogue import DONE, Catalogue, CatalogueError
from tasks.recovery import backup as backup_module
from tasks.recovery.backup import BackupError, back_up, restore
from tasks.recovery.bucket_import import import_from_bucket
from tasks.storage.store import Store
from tests.recovery_world import World, open_world

NUM_ACCEPTED = 20


@pytest.fixture(scope="module")
def filled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("postgres-recovery")
    world = open_world(folder, Segmenter(build_model("tiny")))
    for number in range(NUM_ACCEPTED):
        world.add_accepted(number, is_refined=number == 0)
    world.workspace.catalogue._db.engine.dispose()
    return folder


@pytest.fixture
def world(filled_folder: Path, tmp_path: Path, fresh_url: str) -> World:
    """The assets, imported from their bucket into PostgreSQL."""
    shutil.copytree(filled_folder, tmp_path / "world")
    made = open_world(tmp_path / "world", Segmenter(build_model("tiny")))
    on_postgres = made.with_catalogue(fresh_url)
    report = import_from_bucket(on_postgres.workspace)
    assert (report.label_sets, report.problems) == (NUM_ACCEPTED, [])
    return on_postgres


def read_rows(world: World) -> dict[str, Any]:
    catalogue = world.workspace.catalogue
    assets = catalogue.list_assets()
    return {
        "assets": [replace(row, updated_at=0.0) for row in assets],
        "labels": catalogue.labels.list_all(),
        "clicks": [catalogue.reviews.list_clicks(row.asset_id) for row in assets],
        "events": catalogue.list_events(),
        "blobs": catalogue.blobs.list_all(),
    }


def test_the_bucket_gives_back_what_was_accepted(world: World) -> None:
    before = open_world(world.folder, world.segmenter).workspace.catalogue.labels.list_all()
    held = world.workspace.catalogue.labels.list_all()
    key = lambda row: row.label_id  # noqa: E731
    assert sorted([replace(row, created_at=0.0) for row in before], key=key) == sorted(
        [replace(row, created_at=0.0) for row in held], key=key
    )
    assert world.build().num_samples == NUM_ACCEPTED
    assert all(row.state in DONE for row in world.workspace.catalogue.list_assets())


def test_a_dump_is_restored_row_by_row(world: World, tmp_path: Path, fresh_url: str) -> None:
    before, target = read_rows(world), Store(f"file://{tmp_path}/backups")
    assert back_up(world.workspace, target).problems == ()
    with pytest.raises(CatalogueError, match="holds 20 assets; back it up, then restore"):
        restore(fresh_url, world.workspace.store, target)
    world.workspace.catalogue._db.engine.dispose()
    with psycopg.connect(fresh_url, autocommit=True) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    Catalogue(fresh_url)  # somebody opened the empty one meanwhile: its tables are there
    assert restore(fresh_url, world.workspace.store, target).problems == ()
    assert read_rows(world.with_catalogue(fresh_url)) == before
    assert world.with_catalogue(fresh_url).build().num_samples == NUM_ACCEPTED


def test_without_the_programs_the_error_says_what_to_install(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module.shutil, "which", lambda _: None)
    with pytest.raises(BackupError, match="pg_dump is not installed; install PostgreSQL's client"):
        back_up(world.workspace, Store(f"file://{tmp_path}/backups"))
