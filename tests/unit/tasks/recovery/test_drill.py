"""The restore drill: the catalogue is deleted after twenty accepted assets, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.catalogue import DONE, Catalogue, CatalogueError
from tasks.recovery.backup import BackupError, back_up, restore
from tasks.recovery.bucket_import import import_from_bucket
from tasks.recovery.scrub import scrub
from tasks.shards.labelled_folder import find_latest_version
from tasks.shards.reader import ShardReader
from tasks.storage.store import Store

NUM_ACCEPTED = 20


def read_labels(world: Any) -> dict[str, tuple[Any, ...]]:
    """Label id -> its row without the time, and its bytes."""
    store, labels = world.workspace.store, world.workspace.catalogue.labels
    return {
        row.label_id: (
            replace(row, created_at=0.0),
            store.get(row.key),
            store.get(row.provenance_key),
        )
        for row in labels.list_all()
    }


def delete_catalogue(world: Any) -> None:
    world.workspace.catalogue._db.engine.dispose()
    for path in world.folder.glob("catalogue.db*"):
        path.unlink()


def reopen(world: Any) -> Any:
    return world.with_catalogue(f"sqlite:///{world.folder}/catalogue.db")


def check_everything_is_there(before: Any, labels: dict[str, tuple[Any, ...]], now: Any) -> None:
    """What the issue asks: nothing accepted lost, bytes and ids equal, the next version has all."""
    assert read_labels(now) == labels
    catalogue = now.workspace.catalogue
    done = {row.asset_id for row in catalogue.list_assets() if row.state in DONE}
    assert done == before
    made = now.build()
    assert made.failed == ()
    assert made.num_samples == NUM_ACCEPTED
    assert find_latest_version(catalogue, "parts").version == made.version
    reader = ShardReader(now.workspace.store, "parts", made.version)
    assert {reader.get_line(n)["label_id"] for n in range(len(reader))} == set(labels)
    assert scrub(now.workspace).faults == ()


def list_ids(world: Any) -> set[str]:
    return {row.asset_id for row in world.workspace.catalogue.list_assets()}


def test_from_the_bucket_alone(world: Any) -> None:
    labels, ids = read_labels(world), list_ids(world)
    clicks = {each: world.workspace.catalogue.reviews.list_clicks(each) for each in ids}
    versions = [row.version for row in world.workspace.catalogue.labels.list_shard_versions()]
    expected = open_twin_version(world)
    delete_catalogue(world)
    now = reopen(world)
    report = import_from_bucket(now.workspace)
    assert report.problems == []
    assert (report.assets, report.label_sets, report.versions) == (NUM_ACCEPTED, NUM_ACCEPTED, 1)
    catalogue = now.workspace.catalogue
    assert [row.version for row in catalogue.labels.list_shard_versions()] == versions
    assert {each: catalogue.reviews.list_clicks(each) for each in ids} == clicks
    check_everything_is_there(ids, labels, now)
    assert find_latest_version(catalogue, "parts").version == expected
    assert import_from_bucket(now.workspace, is_adding=True).label_sets == 0
    with pytest.raises(CatalogueError, match="holds 20 assets; import into an empty one"):
        import_from_bucket(now.workspace)


def open_twin_version(world: Any) -> str:
    """Name of the version that the lost catalogue would have built next."""
    from tasks.shards.entries import collect_entries, compute_version

    entries, _ = collect_entries(world.workspace.catalogue)
    return compute_version(entries, world.workspace.settings.shard, None)


def test_from_a_backup_and_then_the_bucket(world: Any, tmp_path: Path) -> None:
    """The backup is two acceptances old; the bucket has those."""
    labels, ids = read_labels(world), list_ids(world)
    target = Store(f"file://{tmp_path}/backups")
    made = back_up(world.workspace, target, has_blobs=True)
    assert made.problems == ()
    assert made.num_copied == made.num_blobs
    late = world.add_accepted(50)
    delete_catalogue(world)
    (tmp_path / "world" / "store" / "labels").rename(tmp_path / "lost")
    url = f"sqlite:///{world.folder}/catalogue.db"
    done = restore(url, Store(f"file://{world.folder}/store"), target)
    assert done.problems == ()
    assert done.num_copied == 2 * NUM_ACCEPTED, "arrays and provenance of every label set"
    now = reopen(world)
    assert list_ids(now) == ids
    assert import_from_bucket(now.workspace, is_adding=True).assets == 1
    catalogue = now.workspace.catalogue
    assert catalogue.get_asset(late).state == "registered", "its label set was moved away"
    check_everything_is_there(ids, labels, now)
    with pytest.raises(CatalogueError, match="holds 21 assets; back it up, then restore with"):
        restore(url, now.workspace.store, target)
    restore(url, now.workspace.store, target, is_forced=True)
    assert list_ids(reopen(world)) == ids


def test_what_was_accepted_since_the_backup_is_added(world: Any, tmp_path: Path) -> None:
    waiting = world.add_proposed(60)
    target = Store(f"file://{tmp_path}/backups")
    back_up(world.workspace, target)
    world.review(waiting, "accept", [])
    from tasks.labelling.label_sets import accept_asset

    accept_asset(world.workspace, waiting.asset_id, "ann@local.test")
    labels = read_labels(world)
    delete_catalogue(world)
    restore(f"sqlite:///{world.folder}/catalogue.db", world.workspace.store, target)
    now = reopen(world)
    assert now.workspace.catalogue.get_asset(waiting.asset_id).state == "proposed"
    assert import_from_bucket(now.workspace, is_adding=True).label_sets == 1
    assert read_labels(now) == labels
    assert now.build().num_samples == NUM_ACCEPTED + 1


def test_an_import_that_was_killed_goes_on(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, ids = read_labels(world), list_ids(world)
    delete_catalogue(world)
    now = reopen(world)
    real, calls = now.workspace.catalogue.labels.add, []

    def killed(row: Any) -> bool:
        calls.append(row)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return bool(real(row))

    with monkeypatch.context() as patch:
        patch.setattr(now.workspace.catalogue.labels, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            import_from_bucket(now.workspace)
    assert len(now.workspace.catalogue.labels.list_all()) == 6
    import_from_bucket(now.workspace)
    check_everything_is_there(ids, labels, now)


def test_a_label_set_that_is_not_what_it_says_is_not_imported(world: Any) -> None:
    row = world.workspace.catalogue.labels.list_all()[0]
    path = world.folder / "store" / row.provenance_key
    text = path.read_text().replace('"decided_by": "ann@local.test"', '"decided_by": "eve"')
    path.unlink()
    path.write_text(text)
    delete_catalogue(world)
    now = reopen(world)
    report = import_from_bucket(now.workspace)
    assert report.label_sets == NUM_ACCEPTED - 1
    ((_, problem),) = [each for each in report.problems if each[0] == row.provenance_key]
    assert "its name is another; not imported" in problem


def test_backups_are_incremental_and_refuse_what_is_not_theirs(world: Any, tmp_path: Path) -> None:
    target = Store(f"file://{tmp_path}/backups")
    with pytest.raises(BackupError, match="no complete backup below"):
        restore("sqlite:///x.db", world.workspace.store, target)
    first = back_up(world.workspace, target, has_blobs=True)
    again = replace_stamp(world, target)
    assert (first.num_copied, again.num_copied) == (first.num_blobs, 0)
    with pytest.raises(BackupError, match="no complete backup 'other' below"):
        restore("sqlite:///x.db", world.workspace.store, target, "other")
    with pytest.raises(BackupError, match="is of sqlite, the settings name postgresql"):
        restore("postgresql://me@127.0.0.1:1/x", world.workspace.store, target)


def replace_stamp(world: Any, target: Store) -> Any:
    """A second backup, which must not have the name of the first."""
    import time

    time.sleep(1.1)  # backups are named by the second
    return back_up(world.workspace, target, has_blobs=True)


def test_an_older_backup_is_upgraded(small_world: Any, tmp_path: Path, old_catalogue: Any) -> None:
    """A catalogue that version 0.1.0 wrote, put into a backup by hand."""
    from tasks.storage.local_files import compute_file_sha256

    old_catalogue.write(tmp_path / "catalogue.db")
    target = Store(f"file://{tmp_path}/backups")
    target.put_file("20260101T000000Z/catalogue.db", tmp_path / "catalogue.db")
    listed = target.put("20260101T000000Z/blobs.jsonl", b"")
    target.put_json(
        "20260101T000000Z/backup.json",
        {
            "schema": "segvigen-backup/1",
            "backend": "sqlite",
            "catalogue": {
                "file": "catalogue.db",
                "sha256": compute_file_sha256(tmp_path / "catalogue.db"),
            },
            "list": {"file": "blobs.jsonl", "sha256": listed.sha256},
        },
    )
    url = f"sqlite:///{tmp_path}/restored.db"
    restore(url, small_world.workspace.store, target)
    assert len(Catalogue(url).list_assets()) == len(old_catalogue.expected()["assets"])
