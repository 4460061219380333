"""What killed processes left behind goes when it is old, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tasks.storage.leftovers import MIN_AGE_S, clean_scratch
from tasks.storage.store import Store


def make_old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (time.time() - MIN_AGE_S - 60,) * 2)


def test_temporary_files_of_killed_writers_go_when_they_are_old(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/root")
    store.put("a/kept", b"1")
    folder = tmp_path / "root" / "a"
    old, young, scratch = folder / ".tmp-old", folder / ".tmp-young", folder / ".tmp-folder"
    (scratch / "deep").mkdir(parents=True)
    for path in (old, young):
        path.write_bytes(b"half")
    make_old(old, scratch, folder / "kept")
    assert store.remove_leftovers() == 2
    assert sorted(path.name for path in folder.iterdir()) == [".tmp-young", "kept"]
    assert store.get("a/kept") == b"1" and [info.key for info in store.list()] == ["a/kept"]
    make_old(young)
    assert store.remove_leftovers() == 0, "the folder was walked just now"
    make_old(tmp_path / "root" / ".tmp-last-cleaned")
    assert store.remove_leftovers() == 1


def test_a_store_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert Store(f"file://{tmp_path}/none").remove_leftovers() == 0
    assert not (tmp_path / "none").exists()


def test_old_scratch_of_ours_goes_and_that_of_others_stays(tmp_path: Path) -> None:
    names = ("segvigen-shards-abcdefg1", "segvigen-shards-abcdefg2", "segvigen-shards-mine")
    for name in names:
        (tmp_path / name / "deep").mkdir(parents=True)
    make_old(tmp_path / names[0], tmp_path / names[2])
    assert clean_scratch(folder=tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
