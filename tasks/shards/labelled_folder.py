"""A dataset version as a labelled folder: what every training program and `evaluate` read.

`manifest.jsonl`, `objects/*.glb` and `*.parts.npz`, with the split of every object: an asset's fold
is a hash of its id, so what was held out once is never trained on later.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segvigen_model.mesh.io import mesh_to_glb
from tasks.catalogue import Catalogue, ShardVersionRow
from tasks.errors import StageError, is_transient_error
from tasks.labelling.label_history import GATE
from tasks.labelling.loading import load_asset_mesh
from tasks.shards.reader import ShardReader
from tasks.shards.samples import TrainingSample
from tasks.storage.canonical import canonical_json
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

HELD_OUT_FOLDS = (0, 1)  # of the ten that shards know
VALIDATION_FOLDS = (2,)
NAME_CHARS = 16  # of the asset's id


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """What was written.

    Attributes:
        splits: objects by split.
        left_out: (asset id, why).
    """

    splits: Mapping[str, int]
    left_out: tuple[tuple[str, str], ...]


def find_latest_version(catalogue: Catalogue, dataset: str) -> ShardVersionRow:
    """The newest version of a dataset.

    Raises:
        StageError: there is none.
    """
    versions = catalogue.labels.list_shard_versions(dataset)
    if not versions:
        known = sorted({row.dataset for row in catalogue.labels.list_shard_versions()})
        raise StageError(
            f"dataset {dataset!r} has no shards yet (there are: {', '.join(known) or 'none'}); "
            "accept some assets and run `segvigen shards`"
        )
    return versions[-1]


def choose_split(fold: int) -> str:
    """ "heldout", "validation" or "train"."""
    if fold in HELD_OUT_FOLDS:
        return "heldout"
    return "validation" if fold in VALIDATION_FOLDS else "train"


def write_dataset_folder(
    workspace: Workspace, version: ShardVersionRow, folder: Path
) -> DatasetFolder:
    """Write the objects of a dataset version that a person reviewed.

    What the gate let through unseen is left out: a model learns nothing from its own word. So is
    an asset whose blobs make no object. Blobs that are lost or damaged stop it. The manifest is
    written last.

    Args:
        workspace: shards and sources.
        version: of a dataset.
        folder: made when absent.
    """
    reader = ShardReader(workspace.store, version.dataset, version.version)
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    rows, left_out = [], []
    for number in range(len(reader)):
        asset_id = reader.get_key(number)
        try:
            sample = reader[number]
            if sample.decided_by == GATE:
                left_out.append((asset_id, "accepted by the gate, seen by nobody"))
                continue
            line = {**reader.get_line(number), "dataset": version.dataset}
            rows.append(_write_object(workspace, folder, line, sample))
        except Exception as err:
            if is_transient_error(err):
                raise
            log.exception("stage=dataset_folder asset=%s failed", asset_id[:12])
            left_out.append((asset_id, f"{type(err).__name__}: {err}"))
    text = "".join(canonical_json(row) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text(text)
    counts = {"train": 0, "validation": 0, "heldout": 0}
    for row in rows:
        counts[row["split"]] += 1
    return DatasetFolder(counts, tuple(left_out))


def _write_object(
    workspace: Workspace, folder: Path, line: Mapping[str, Any], sample: TrainingSample
) -> dict[str, Any]:
    """Write one object; returns its manifest row."""
    asset = workspace.catalogue.get_asset(str(line["key"]))
    mesh = load_asset_mesh(workspace.store, asset)
    if mesh.num_faces != len(sample.face_labels):
        raise StageError(f"{mesh.num_faces} faces, {len(sample.face_labels)} labels")
    labels = np.where(sample.face_labels == sample.not_object_part, -1, sample.face_labels)
    name = asset.asset_id[:NAME_CHARS]
    (folder / f"objects/{name}.glb").write_bytes(mesh_to_glb(mesh))
    np.savez_compressed(
        folder / f"objects/{name}.parts.npz",
        face_part=labels.astype(np.int32),
        face_inst=labels.astype(np.int32),
        part_names=np.array(sample.part_names),
    )
    return {
        "id": name,
        "asset_id": asset.asset_id,
        "label_id": line["label_id"],
        "source_repo": line["dataset"],
        "source_path": asset.name,
        "licence": line["licence"],
        "category": "",
        "n_faces": mesh.num_faces,
        "n_parts": len(sample.part_names),
        "n_inst": len(sample.part_names),
        "part_source": "label set",
        "textured": mesh.corner_uv is not None,
        "split": choose_split(int(line["fold"])),
        "glb": f"objects/{name}.glb",
        "parts": f"objects/{name}.parts.npz",
    }
