"""Versions in order, and healed: the newest holds the last acceptances, damage is made again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.catalogue import AssetState, LockLost
from tasks.labelling.label_sets import accept_asset, write_label_set
from tasks.settings import ShardSettings
from tasks.shards import build as build_module
from tasks.shards.build import build_shards
from tasks.shards.labelled_folder import find_latest_version
from tasks.shards.reader import ShardReader
from tasks.storage import keys

SETTINGS = ShardSettings(num_palettes=1, num_guide_views=1, guide_pixels=32)


def accept(pipeline: Any, count: int, shift: float = 0.0) -> list[str]:
    ids = []
    for number in range(count):
        asset = pipeline.add_proposed(2, shift + number)
        pipeline.add_reviewed(asset, "accept", [])
        accept_asset(pipeline.workspace, asset.asset_id, "ann")
        ids.append(asset.asset_id)
    return sorted(ids)


def build(pipeline: Any, **options: Any) -> Any:
    return build_shards(pipeline.with_settings(shard=SETTINGS), **options)


def folder_of(tmp_path: Path, made: Any) -> Path:
    return tmp_path / "store" / keys.make_shard_folder(made.dataset, made.version)


def newest(pipeline: Any) -> str:
    return str(find_latest_version(pipeline.catalogue, "parts").version)


def hold_up_first_build(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """The first build stops before it publishes; events: it is there, it may go on."""
    is_there, may_go = threading.Event(), threading.Event()
    real = build_module.publish_version

    def publish(*args: Any) -> Any:
        if not is_there.is_set():
            is_there.set()
            may_go.wait()
        return real(*args)

    monkeypatch.setattr(build_module, "publish_version", publish)
    return is_there, may_go


def test_a_build_that_ends_last_with_older_labels_is_not_the_newest(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = accept(pipeline, 1)
    is_there, may_go = hold_up_first_build(monkeypatch)
    errors: list[Exception] = []

    def stalled() -> None:
        try:
            build(pipeline)
        except LockLost as err:
            errors.append(err)

    thread = threading.Thread(target=stalled)
    thread.start()
    is_there.wait()
    every = sorted(first + accept(pipeline, 1, shift=5.0))
    pipeline.catalogue.locks.acquire("shards:parts", "elsewhere/1/2/x", 0.0)  # still held
    row = pipeline.catalogue.locks.get("shards:parts")
    pipeline.catalogue.locks.renew("shards:parts", row.fence, -1.0)  # it stalled: its lease is over
    made = build(pipeline)
    may_go.set()
    thread.join()
    assert len(errors) == 1
    assert newest(pipeline) == made.version
    assert [row.version for row in pipeline.catalogue.labels.list_shard_versions()] == [
        made.version
    ]
    members = pipeline.catalogue.labels.list_shard_members("parts", made.version)
    assert [member.asset_id for member in members] == every


def test_a_second_build_waits_and_takes_what_was_accepted_meanwhile(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(pipeline, 1)
    is_there, may_go = hold_up_first_build(monkeypatch)
    made: list[Any] = []
    threads = [threading.Thread(target=lambda: made.append(build(pipeline))) for _ in range(2)]
    threads[0].start()
    is_there.wait()
    accept(pipeline, 1, shift=5.0)
    threads[1].start()
    may_go.set()
    for thread in threads:
        thread.join()
    assert [each.num_samples for each in made] == [1, 2]
    assert newest(pipeline) == made[1].version


def test_a_version_that_counts_again_is_the_newest_again(pipeline: Any) -> None:
    accept(pipeline, 1)
    small = build(pipeline)
    (other,) = accept(pipeline, 1, shift=5.0)
    large = build(pipeline)
    assert newest(pipeline) == large.version
    pipeline.catalogue.move(other, AssetState.REJECTED, reason="reviewer_rejected")
    again = build(pipeline)
    assert (again.version, again.is_new) == (small.version, False)
    assert newest(pipeline) == small.version
    assert pipeline.catalogue.list_events(kind="shards_confirmed")[0].detail["version"] == (
        small.version
    )


def test_a_correction_while_a_build_records_its_version_is_not_lost(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a4d9af9 the build failed with IllegalMove."""
    corrected, relabelled, plain = accept(pipeline, 3)
    real = build_module.publish_version

    def publish(*args: Any) -> Any:
        pipeline.catalogue.move(corrected, AssetState.REFINING)
        asset = pipeline.catalogue.get_asset(relabelled)
        assert pipeline.catalogue.labels.add(write_label_set(pipeline.workspace, asset, "bob"))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "publish_version", publish)
        build(pipeline)
    states = [pipeline.catalogue.get_asset(each).state for each in (corrected, relabelled, plain)]
    assert states == [AssetState.REFINING, AssetState.ACCEPTED, AssetState.SHARDED]


def test_a_label_set_is_newer_than_those_before_whatever_the_clock_says(pipeline: Any) -> None:
    (asset_id,) = accept(pipeline, 1)
    old = pipeline.catalogue.labels.get_latest(asset_id)
    pipeline.catalogue._db.clock = lambda: old.created_at - 600.0
    row = write_label_set(pipeline.workspace, pipeline.catalogue.get_asset(asset_id), "bob")
    assert pipeline.catalogue.labels.add(row)
    assert pipeline.catalogue.labels.get_latest(asset_id).label_id == row.label_id


def remove(path: Path) -> None:
    path.unlink()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


@pytest.mark.parametrize("name", ["shard-000000.tar", "index.jsonl", "manifest.json"])
@pytest.mark.parametrize("damage", [remove, flip, truncate])
def test_building_again_heals_a_version(
    pipeline: Any, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    accept(pipeline, 2)
    made = build(pipeline)
    folder, row = folder_of(tmp_path, made), pipeline.catalogue.labels.list_shard_versions()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    damage(folder / name)
    healed = build(pipeline)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert pipeline.catalogue.labels.list_shard_versions() == row
    assert healed.version == made.version
    is_manifest_gone = (name, damage) == ("manifest.json", remove)
    assert [key.rpartition("/")[2] for key, _ in healed.repaired] == (
        [] if is_manifest_gone else [name]
    )
    assert healed.is_new == is_manifest_gone
    assert len(ShardReader(pipeline.store, made.dataset, made.version)) == 2
    assert build(pipeline).repaired == ()


def test_a_quick_build_looks_at_sizes_only(pipeline: Any, tmp_path: Path) -> None:
    accept(pipeline, 1)
    made = build(pipeline)
    tar = folder_of(tmp_path, made) / "shard-000000.tar"
    flip(tar)
    assert build(pipeline, is_thorough=False).repaired == ()
    truncate(tar)
    ((key, fault),) = build(pipeline, is_thorough=False).repaired
    assert key.endswith("shard-000000.tar")
    assert fault == f"{made.size_bytes - 700} bytes instead of {made.size_bytes}"


def test_a_version_that_cannot_be_made_the_same_is_made_anew_and_says_so(
    pipeline: Any, tmp_path: Path
) -> None:
    """What is no part of a version's name may have changed, such as the licence of an asset."""
    (asset_id,) = accept(pipeline, 1)
    made = build(pipeline)
    before = pipeline.catalogue.labels.get_shard_version("parts", made.version)
    pipeline.catalogue.update(asset_id, licence="CC-BY-4.0")  # stands in the manifest
    remove(folder_of(tmp_path, made) / "manifest.json")
    build(pipeline)
    after = pipeline.catalogue.labels.get_shard_version("parts", made.version)
    assert after.sha256 != before.sha256
    assert replace(after, sha256=before.sha256) == before
    assert ShardReader(pipeline.store, "parts", made.version).manifest["licences"] == {
        "CC-BY-4.0": 1
    }
    (event,) = pipeline.catalogue.list_events(kind="shards_confirmed")
    assert event.detail["sha256"] == after.sha256


def test_an_unrecorded_manifest_that_is_not_as_written_is_replaced(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(pipeline, 1)

    def killed(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.catalogue, "move_all", killed)
        with pytest.raises(KeyboardInterrupt):
            build(pipeline)
    (manifest,) = (tmp_path / "store").glob("shards/*/*/manifest.json")
    good = manifest.read_bytes()
    manifest.write_bytes(good.replace(b'"version": "', b'"version":  "'))
    ((_, fault),) = build(pipeline).repaired
    assert "written was" in fault
    assert manifest.read_bytes() == good
