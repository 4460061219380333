"""Tuned checkpoints are written once, one is in use, and a damaged one is never loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segvigen_model.checkpoints import native
from segvigen_model.interactive.patch_network import PATCHES_FILE, PatchNetwork, save_patch_network
from segvigen_model.model.bundle import build_model
from segvigen_model.segmenter import Segmenter
from segvigen_model.training.export import write_with_patch_network
from tasks.checkpoints import (
    CURRENT,
    SHIPPED,
    checkpoint_in_use,
    list_published,
    publish_checkpoint,
    use_checkpoint,
)
from tasks.errors import StageError
from tasks.storage import keys
from tasks.storage.errors import BlobDamaged
from tasks.workspace import Workspace


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A checkpoint folder with a patch network of its own."""
    native.save_model(build_model("tiny"), tmp_path / "tiny")
    save_patch_network(PatchNetwork(32, 2, (1, 1), 8), tmp_path / "p.safetensors")
    made = tmp_path / "tuned"
    write_with_patch_network(tmp_path / "tiny", tmp_path / "p.safetensors", made, {})
    return made


@pytest.fixture
def workspace(pipeline: Any, tmp_path: Path) -> Workspace:
    model = {"checkpoint": CURRENT, "checkpoint_cache": tmp_path / "cache"}
    return pipeline.with_settings(model=model)


def test_the_shipped_one_works_until_another_is_used(
    pipeline: Any, tuned: Path, workspace: Workspace
) -> None:
    assert checkpoint_in_use(workspace) == SHIPPED
    row = publish_checkpoint(pipeline.workspace, tuned, {"is_better": True, "reason": "better"})
    assert checkpoint_in_use(workspace) == SHIPPED, "published is not used"
    use_checkpoint(pipeline.catalogue, row.alias[:6])
    folder = Path(checkpoint_in_use(workspace))
    assert (folder / PATCHES_FILE).read_bytes() == (tuned / PATCHES_FILE).read_bytes()
    assert Segmenter.from_checkpoint(folder).weights["patch_network"] == row.sha256
    use_checkpoint(pipeline.catalogue, SHIPPED)
    assert checkpoint_in_use(workspace) == SHIPPED


def test_publishing_again_changes_nothing(pipeline: Any, tuned: Path) -> None:
    first = publish_checkpoint(pipeline.workspace, tuned, {"reason": "a"})
    events = len(pipeline.catalogue.list_events())
    assert publish_checkpoint(pipeline.workspace, tuned, {"reason": "b"}).detail == first.detail
    assert (
        len(pipeline.catalogue.list_events()) == events
        and len(list_published(pipeline.catalogue)) == 1
    )
    assert (
        pipeline.store.get_json(keys.make_checkpoint_file_key(first.alias, "verdict.json"))
        == first.detail
    )


def test_a_named_checkpoint_comes_before_the_one_in_use(
    pipeline: Any, tuned: Path, workspace: Workspace
) -> None:
    use_checkpoint(pipeline.catalogue, publish_checkpoint(pipeline.workspace, tuned, {}).alias)
    named = pipeline.with_settings(model={"checkpoint": str(tuned)})
    assert checkpoint_in_use(named) == str(tuned)


def test_it_is_fetched_once_a_machine(pipeline: Any, tuned: Path, workspace: Workspace) -> None:
    row = publish_checkpoint(pipeline.workspace, tuned, {})
    use_checkpoint(pipeline.catalogue, row.alias)
    first = checkpoint_in_use(workspace)
    Path(
        pipeline.store.get_uri(keys.make_checkpoint_file_key(row.alias, PATCHES_FILE))[7:]
    ).unlink()
    assert checkpoint_in_use(workspace) == first


@pytest.mark.parametrize("file", ["model.safetensors", PATCHES_FILE])
def test_other_bytes_than_were_published_are_refused(
    pipeline: Any, tuned: Path, workspace: Workspace, file: str
) -> None:
    row = publish_checkpoint(pipeline.workspace, tuned, {})
    use_checkpoint(pipeline.catalogue, row.alias)
    held = Path(
        pipeline.store.get_uri(keys.make_checkpoint_file_key(row.alias, file)).removeprefix(
            "file://"
        )
    )
    held.write_bytes(held.read_bytes() + b"\0")
    with pytest.raises(BlobDamaged, match=file):
        checkpoint_in_use(workspace)
    assert not list(workspace.settings.model.checkpoint_cache.iterdir()), "nothing half there"


def test_an_unknown_version_is_reported_with_the_known_ones(pipeline: Any, tuned: Path) -> None:
    with pytest.raises(StageError, match=r"0 checkpoints begin with 'abc'; there are: none"):
        use_checkpoint(pipeline.catalogue, "abc")
    row = publish_checkpoint(pipeline.workspace, tuned, {})
    with pytest.raises(StageError, match=f"there are: {row.alias}, and default"):
        use_checkpoint(pipeline.catalogue, "zzz")
