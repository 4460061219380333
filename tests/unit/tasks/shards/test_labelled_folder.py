"""A dataset version comes out as a labelled folder that training and evaluation read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segvigen_model.datasets.labelled_folder import choose_rows
from segvigen_model.datasets.voxel_samples import load_labelled
from tasks.errors import BlobLost, StageError
from tasks.labelling.label_history import GATE
from tasks.labelling.label_sets import accept_asset, load_label_set
from tasks.labelling.loading import load_asset_mesh, make_parsed_key
from tasks.settings import ShardSettings
from tasks.shards.build import build_shards
from tasks.shards.labelled_folder import choose_split, find_latest_version, write_dataset_folder

SETTINGS = ShardSettings(num_palettes=1, num_guide_views=1, guide_pixels=32)


def dataset(pipeline: Any, decided_by: tuple[str, ...]) -> list[str]:
    """Shards of as many accepted assets."""
    ids = []
    for number, who in enumerate(decided_by):
        asset = pipeline.add_proposed(2 + number % 2, float(number))
        if who != GATE:
            pipeline.add_reviewed(asset, "accept", [])
        accept_asset(pipeline.workspace, asset.asset_id, who)
        ids.append(asset.asset_id)
    build_shards(pipeline.with_settings(shard=SETTINGS))
    return ids


def test_labels_come_back_on_the_faces_that_people_labelled(pipeline: Any, tmp_path: Path) -> None:
    ids = dataset(pipeline, ("ann", "bob", "ann"))
    version = find_latest_version(pipeline.catalogue, SETTINGS.dataset)
    written = write_dataset_folder(pipeline.workspace, version, tmp_path)
    rows = {row["asset_id"]: row for row in choose_rows(tmp_path, None, None)}
    assert set(rows) == set(ids) and written.left_out == ()
    assert sum(written.splits.values()) == 3
    for asset_id, row in rows.items():
        mesh, labels = load_labelled(tmp_path, row)
        asset = pipeline.catalogue.get_asset(asset_id)
        held = load_label_set(pipeline.store, pipeline.catalogue.labels.get_latest(asset_id))
        assert np.array_equal(labels, held.face_labels)
        assert np.allclose(
            mesh.triangles, load_asset_mesh(pipeline.store, asset).triangles, atol=1e-6
        )
        assert row["licence"] == asset.licence
        assert row["split"] in written.splits


def test_what_only_the_gate_saw_teaches_nothing(pipeline: Any, tmp_path: Path) -> None:
    seen, unseen = dataset(pipeline, ("ann", GATE))
    version = find_latest_version(pipeline.catalogue, SETTINGS.dataset)
    written = write_dataset_folder(pipeline.workspace, version, tmp_path)
    assert [row["asset_id"] for row in choose_rows(tmp_path, None, None)] == [seen]
    assert written.left_out == ((unseen, "accepted by the gate, seen by nobody"),)


def test_a_source_that_is_lost_stops_the_folder(pipeline: Any, tmp_path: Path) -> None:
    lost, _ = dataset(pipeline, ("ann", "ann"))
    source = pipeline.catalogue.get_asset(lost).source_key
    for key in (source, make_parsed_key(source)):  # the mesh alone would be parsed again
        Path(pipeline.store.get_uri(key).removeprefix("file://")).unlink()
    version = find_latest_version(pipeline.catalogue, SETTINGS.dataset)
    with pytest.raises(BlobLost, match=lost):
        write_dataset_folder(pipeline.workspace, version, tmp_path)
    assert not (tmp_path / "manifest.jsonl").exists()


def test_a_folder_names_its_own_splits(tmp_path: Path) -> None:
    rows = [{"id": str(fold), "split": choose_split(fold)} for fold in range(10)]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {
        split: [row["id"] for row in choose_rows(tmp_path, split, None)]
        for split in ("heldout", "validation", "train")
    }
    assert found == {"heldout": ["0", "1"], "validation": ["2"], "train": list("3456789")}


def test_a_dataset_without_shards_is_reported(pipeline: Any) -> None:
    with pytest.raises(StageError, match=r"'parts' has no shards yet \(there are: none\)"):
        find_latest_version(pipeline.catalogue, "parts")
