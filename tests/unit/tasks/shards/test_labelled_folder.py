"""A dataset version comes out as a labelled folder that training and evaluation read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segvigen_model.datasets.labelled_folder import chosen_rows
from segvigen_model.datasets.voxel_samples import load_labelled
from tasks.errors import StageError
from tasks.labelling.label_sets import GATE, accept_asset, load_label_set
from tasks.labelling.loading import load_asset_mesh
from tasks.settings import ShardSettings
from tasks.shards.build import build_shards
from tasks.shards.labelled_folder import latest_version, split_of, write_dataset_folder

SETTINGS = ShardSettings(num_palettes=1, num_guide_views=1, guide_pixels=32)


def dataset(world: Any, decided_by: tuple[str, ...]) -> list[str]:
    """Shards of as many accepted assets."""
    ids = []
    for number, who in enumerate(decided_by):
        asset = world.proposed(2 + number % 2, float(number))
        if who != GATE:
            world.reviewed(asset, "accept", [])
        accept_asset(world.workspace, asset.asset_id, who)
        ids.append(asset.asset_id)
    build_shards(world.with_settings(shard=SETTINGS))
    return ids


def test_labels_come_back_on_the_faces_that_people_labelled(world: Any, tmp_path: Path) -> None:
    ids = dataset(world, ("ann", "bob", "ann"))
    version = latest_version(world.catalogue, SETTINGS.dataset)
    written = write_dataset_folder(world.workspace, version, tmp_path)
    rows = {row["asset_id"]: row for row in chosen_rows(tmp_path, None, None)}
    assert set(rows) == set(ids) and written.left_out == ()
    assert sum(written.splits.values()) == 3
    for asset_id, row in rows.items():
        mesh, labels = load_labelled(tmp_path, row)
        asset = world.catalogue.asset(asset_id)
        held = load_label_set(world.store, world.catalogue.labels.latest(asset_id))
        assert np.array_equal(labels, held.face_labels)
        assert np.allclose(mesh.triangles, load_asset_mesh(world.store, asset).triangles, atol=1e-6)
        assert row["licence"] == asset.licence
        assert row["split"] in written.splits


def test_what_only_the_gate_saw_teaches_nothing(world: Any, tmp_path: Path) -> None:
    seen, unseen = dataset(world, ("ann", GATE))
    version = latest_version(world.catalogue, SETTINGS.dataset)
    written = write_dataset_folder(world.workspace, version, tmp_path)
    assert [row["asset_id"] for row in chosen_rows(tmp_path, None, None)] == [seen]
    assert written.left_out == ((unseen, "accepted by the gate, seen by nobody"),)


def test_an_asset_whose_source_is_gone_is_left_out_and_told(world: Any, tmp_path: Path) -> None:
    lost, kept = dataset(world, ("ann", "ann"))
    source = world.catalogue.asset(lost).source_key
    Path(world.store.uri(source).removeprefix("file://")).unlink()
    version = latest_version(world.catalogue, SETTINGS.dataset)
    written = write_dataset_folder(world.workspace, version, tmp_path)
    assert [row["asset_id"] for row in chosen_rows(tmp_path, None, None)] == [kept]
    ((asset_id, why),) = written.left_out
    assert asset_id == lost and "BlobMissing" in why


def test_a_folder_names_its_own_splits(tmp_path: Path) -> None:
    rows = [{"id": str(fold), "split": split_of(fold)} for fold in range(10)]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {
        split: [row["id"] for row in chosen_rows(tmp_path, split, None)]
        for split in ("heldout", "validation", "train")
    }
    assert found == {"heldout": ["0", "1"], "validation": ["2"], "train": list("3456789")}


def test_a_dataset_without_shards_is_told(world: Any) -> None:
    with pytest.raises(StageError, match=r"'parts' has no shards yet \(there are: none\)"):
        latest_version(world.catalogue, "parts")
