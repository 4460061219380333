"""A world of twenty accepted assets, made once; every test works on its own copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recovery_world import World, open_world

NUM_ACCEPTED = 20


@pytest.fixture(scope="session")
def filled_folder(tmp_path_factory: pytest.TempPathFactory, segmenter: Any) -> Path:
    folder = tmp_path_factory.mktemp("recovery-world")
    world = open_world(folder, segmenter)
    for number in range(NUM_ACCEPTED - 2):
        world.add_accepted(number, is_refined=number == 0)
    world.build()
    for number in range(NUM_ACCEPTED - 2, NUM_ACCEPTED):  # accepted since the last build
        world.add_accepted(number)
    world.workspace.catalogue._db.engine.dispose()
    return folder


@pytest.fixture
def world(filled_folder: Path, tmp_path: Path, segmenter: Any) -> World:
    """Twenty accepted assets, eighteen of them in a dataset version."""
    shutil.copytree(filled_folder, tmp_path / "world")
    return open_world(tmp_path / "world", segmenter)


@pytest.fixture
def small_world(tmp_path: Path, segmenter: Any) -> World:
    """Nothing yet."""
    (tmp_path / "world").mkdir()
    return open_world(tmp_path / "world", segmenter)


@pytest.fixture
def damage(tmp_path: Path) -> Callable[[str], None]:
    """`damage(key)`: one bit of a stored blob is another."""

    def flip(key: str) -> None:
        path = tmp_path / "world" / "store" / key
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.unlink()
        path.write_bytes(data)

    return flip
