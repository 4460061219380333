"""Label sets out of the samples of shards, as the bytes that were stored.

A sample holds the label set's arrays, if in other types, and its provenance word for word. The
caller compares the result with the recorded hash, so a wrong reconstruction is never taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segvigen_model.errors import SegvigenError
from segvigen_model.mesh.source_parts import label_polygons
from segvigen_model.types import AssetMesh, IntArray
from tasks.labelling.label_sets import pack_label_arrays
from tasks.shards.reader import ShardReader
from tasks.shards.samples import TrainingSample, decode_sample
from tasks.workspace import Workspace


def find_sample(workspace: Workspace, label_id: str) -> dict[str, bytes] | None:
    """Members of a label set's sample in the newest readable dataset version that has it."""
    labels = workspace.catalogue.labels
    for version in reversed(labels.list_shard_versions()):
        members = labels.list_shard_members(version.dataset, version.version)
        if not any(member.label_id == label_id for member in members):
            continue
        try:
            reader = ShardReader(workspace.store, version.dataset, version.version)
            for number in range(len(reader)):
                if reader.get_line(number)["label_id"] == label_id:
                    return reader.read_members(number)
        except SegvigenError:  # damaged as well: an older version may be whole
            continue
    return None


def rebuild_provenance(members: dict[str, bytes]) -> bytes:
    """The JSON file of the label set."""
    return members["provenance.json"]


def rebuild_arrays(members: dict[str, bytes], load_mesh: Callable[[], AssetMesh]) -> bytes:
    """The npz file of the label set.

    Args:
        members: of the sample.
        load_mesh: of the asset; asked for where the label set has labels of source polygons.
    """
    sample = decode_sample(members)
    polygons = None
    if sample.source_names is not None:  # both came at once
        polygons = label_polygons(load_mesh(), sample.face_labels).labels
    return pack_label_arrays(
        sample.face_labels,
        sample.part_names,
        sample.part_categories,
        sample.not_object_part,
        sample.tree,
        _find_proposal_parts(sample),
        polygons,
        sample.source_names,
    )


def _find_proposal_parts(sample: TrainingSample) -> IntArray:
    """(P',) part that each part of the accepted proposal became, by the voxels of both."""
    if not len(sample.shown):
        return np.arange(len(sample.part_names), dtype=np.int32)
    shown = sample.shown[-1]
    parts = np.zeros(int(shown.max()) + 1, np.int32)
    parts[shown] = sample.voxel_labels
    return parts
