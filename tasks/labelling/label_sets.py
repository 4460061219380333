"""Label sets: what a reviewer (or the sure gate) accepted, with its whole history.

A label set is exclusive (one id per face), exhaustive (no face without) and dense (0..P-1), or it
is not written. Its id is the hash of its content: accepting the same thing twice is once. It holds
coarse and fine levels in one tree (segvigen_model/partition/hierarchy.py), names and categories.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from segvigen_model.archives import read_npz, take_array, take_ids
from segvigen_model.errors import CorruptBlob, SegvigenError
from segvigen_model.mesh.source_parts import (
    PolygonLabels,
    SourceNames,
    find_source_names,
    label_polygons,
)
from segvigen_model.partition.hierarchy import PartTree, build_part_tree
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import AssetMesh, IntArray, Proposal
from tasks.catalogue import AssetRow, AssetState, Catalogue, EditCommandRow, LabelSetRow
from tasks.labelling.label_history import (
    InterpretedAnnotation,
    build_history,
    collect_log,
    select_accepting_commands,
)
from tasks.labelling.loading import get_current_proposal, load_asset_mesh, load_proposal
from tasks.labelling.rounds import apply_exact_edits
from tasks.storage import keys
from tasks.storage.canonical import json_document
from tasks.storage.store import Store
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

LABEL_ID_CHARS = 24
_LABEL_SET = "a label set"


class BadLabels(SegvigenError):
    """Labels that are not exclusive, exhaustive and dense."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Accepted labels of one asset.

    Attributes:
        face_labels: (F,) int32, 0..P-1; the instance ids.
        part_names: P names; "part k" if part k has no name.
        not_object_part: the part that is support or backdrop, or -1.
        decided_by: the reviewer's name, or GATE.
        clicks: of all rounds, as stored: each with its round, reviewer, face, `xyz`, kind, part.
        provenance: the whole stored history, clicks and reviews included; for people and audits.
        part_categories: P taxonomy ids, "" if none.
        tree: coarse and fine levels; `tree.levels[tree.part_level]` is `face_labels`.
        proposal_parts: (P',) int32 part that each part of the accepted proposal became.
        polygon_labels: (Q,) int32 part of each polygon of the source file, -1 = it has no
            triangle; None in label sets of before.
        source_names: object, group and material that each part mostly was in the source file;
            None in label sets of before.
    """

    face_labels: IntArray
    part_names: tuple[str, ...]
    not_object_part: int
    decided_by: str
    clicks: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Any]
    part_categories: tuple[str, ...]
    tree: PartTree
    proposal_parts: IntArray
    polygon_labels: IntArray | None = None
    source_names: SourceNames | None = None


@dataclass(frozen=True, slots=True)
class LabelSetFiles:
    """A label set as it is stored.

    Attributes:
        row: of the catalogue.
        arrays: bytes of the npz file.
        provenance: bytes of the JSON file.
    """

    row: LabelSetRow
    arrays: bytes
    provenance: bytes


def accept_asset(
    workspace: Workspace, asset_id: str, decided_by: str, *, is_leased: bool = False
) -> LabelSetRow:
    """Make the present round's proposal the asset's label set and move it to accepted.

    Args:
        workspace: gives proposal, answers and clicks; its store gets the label set.
        asset_id: in state proposed (gate) or in_review (reviewer).
        decided_by: the reviewer's name, or GATE.
        is_leased: to the workspace's worker, which must still hold the asset.

    Returns:
        The catalogue's row; the same one when called again for the same decision.
    """
    catalogue = workspace.catalogue
    asset = catalogue.get_asset(asset_id)
    if asset.state in (AssetState.ACCEPTED, AssetState.SHARDED):
        held = catalogue.labels.get_latest(asset_id)
        if held is not None:
            return held
    row = write_label_set(workspace, asset, decided_by)
    record_label_set(catalogue, row, workspace.worker if is_leased else None)
    return row


def write_label_set(
    workspace: Workspace,
    asset: AssetRow,
    decided_by: str,
    interpreted: InterpretedAnnotation | None = None,
) -> LabelSetRow:
    """Write arrays and provenance of the present proposal; their row is not recorded yet.

    Merges, names and categories of the accepting answers are carried out: they are exact.

    Args:
        workspace: has proposal, annotations, clicks and commands; its store gets the label set.
        asset: the asset, in the round that is accepted.
        decided_by: the reviewer's name, or GATE.
        interpreted: an answer that is being interpreted right now.
    """
    made = make_label_set(workspace, asset, decided_by, interpreted)
    workspace.store.put(made.row.key, made.arrays, "application/octet-stream")
    workspace.store.put(made.row.provenance_key, made.provenance, "application/json")
    return made.row


def make_label_set(
    workspace: Workspace,
    asset: AssetRow,
    decided_by: str,
    interpreted: InterpretedAnnotation | None = None,
) -> LabelSetFiles:
    """As `write_label_set`, without writing: the same decision gives the same bytes."""
    store, catalogue = workspace.store, workspace.catalogue
    source = get_current_proposal(catalogue, asset)
    proposal = load_proposal(store, source)
    log_rows = collect_log(catalogue, asset.asset_id, interpreted)
    commands = select_accepting_commands(log_rows, asset.round, proposal.num_parts)
    mesh = load_asset_mesh(store, asset)
    final, part_of_proposal = _apply_commands(mesh, proposal, commands)
    polygons = label_polygons(mesh, final.face_labels)
    names = find_source_names(mesh, final.face_labels, final.num_parts)
    arrays = _pack_arrays(asset, final, part_of_proposal, (polygons, names))
    history = {
        **build_history(asset, source, final, log_rows, decided_by),
        "source_parts": {
            **asdict(names),
            "num_polygons": len(polygons.labels),
            "num_split_polygons": polygons.num_split,
        },
    }
    digest = hashlib.sha256(arrays + json_document(history)).hexdigest()[:LABEL_ID_CHARS]
    sha256 = hashlib.sha256(arrays).hexdigest()
    provenance = json_document({**history, "label_id": digest, "labels_sha256": sha256})
    row = LabelSetRow(
        label_id=digest,
        asset_id=asset.asset_id,
        key=keys.make_label_set_key(asset.asset_id, digest),
        sha256=sha256,
        provenance_key=keys.make_label_provenance_key(asset.asset_id, digest),
        proposal_key=source.key,
        num_parts=final.num_parts,
        num_clicks=len(log_rows.clicks),
        num_rounds=history["num_rounds"],
        seconds=history["seconds"],
        decided_by=decided_by,
    )
    return LabelSetFiles(row, arrays, provenance)


def _apply_commands(
    mesh: AssetMesh, proposal: Proposal, commands: Sequence[EditCommandRow]
) -> tuple[Proposal, IntArray]:
    """The proposal after exact edits, and (P,) the part that each of its parts became."""
    if not commands:
        return proposal, np.arange(proposal.num_parts)
    areas = measure_surface(mesh).areas
    final = apply_exact_edits(proposal, commands, areas)
    id_map = final.refinement.id_map
    return final, np.array([id_map[part] for part in range(proposal.num_parts)])


def record_label_set(catalogue: Catalogue, row: LabelSetRow, worker: str | None = None) -> None:
    """Make a written label set count and move its asset to accepted.

    Args:
        catalogue: gets row and move.
        row: of `write_label_set`.
        worker: the lease's owner, if the asset is leased.
    """
    with catalogue.transaction():
        catalogue.labels.add(row)
        detail = f"by {row.decided_by}"
        catalogue.move(row.asset_id, AssetState.ACCEPTED, worker=worker, detail=detail)
    log_fields = (row.asset_id[:12], row.label_id, row.num_parts)
    log.info("stage=accept asset=%s label=%s parts=%d", *log_fields)


def load_label_set(store: Store, row: LabelSetRow) -> LabelSet:
    """Read a label set of any schema and check it again.

    Raises:
        CorruptBlob, BadDocument, BadLabels: what was written is no label set.
        BlobDamaged: what was read is not what was written.
    """
    provenance = store.get_json(row.provenance_key)
    return label_set_from_bytes(store.get(row.key, row.sha256), provenance, row.decided_by)


def label_set_from_bytes(data: bytes, provenance: Any, decided_by: str) -> LabelSet:
    """Unpack the arrays of a label set of any schema.

    Args:
        data: npz of `write_label_set`.
        provenance: its JSON document, read.
        decided_by: the reviewer's name, or GATE.

    Raises:
        CorruptBlob, BadLabels: the bytes are no label set.
    """
    held = read_npz(data, _LABEL_SET)
    names = tuple(map(str, take_array(held, "part_names", "U", (None,), _LABEL_SET)))
    num_parts = len(names)
    labels = take_ids(held, "face_labels", (None,), (0, max(num_parts, 1)), _LABEL_SET)
    check_partition(labels, len(labels), num_parts)
    categories = ("",) * num_parts
    if "part_categories" in held:
        stored = take_array(held, "part_categories", "U", (num_parts,), _LABEL_SET)
        categories = tuple(map(str, stored))
    part_of_proposal: IntArray = np.arange(num_parts, dtype=np.int32)
    if "proposal_parts" in held:
        span = (0, num_parts)
        part_of_proposal = take_ids(held, "proposal_parts", (None,), span, _LABEL_SET)
    polygons = None
    if "polygon_labels" in held:
        polygons = take_ids(held, "polygon_labels", (None,), (-1, num_parts), _LABEL_SET)
    clicks = provenance.get("clicks") if isinstance(provenance, Mapping) else None
    if not isinstance(clicks, list) or not all(isinstance(each, Mapping) for each in clicks):
        raise CorruptBlob("the provenance of a label set has no list of clicks")
    return LabelSet(
        face_labels=labels,
        part_names=names,
        not_object_part=int(take_ids(held, "not_object_part", (), (-1, num_parts), _LABEL_SET)),
        decided_by=decided_by,
        clicks=tuple(clicks),
        provenance=provenance,
        part_categories=categories,
        tree=read_part_tree(held, labels, _LABEL_SET),
        proposal_parts=part_of_proposal,
        polygon_labels=polygons,
        source_names=read_source_names(held, num_parts, _LABEL_SET),
    )


def read_source_names(held: Mapping[str, Any], num_parts: int, what: str) -> SourceNames | None:
    """Read what the parts were in the source file; None = stored before that was known.

    Args:
        held: arrays of a label set or a sample.
        num_parts: P.
        what: the arrays belong to, for messages.

    Raises:
        CorruptBlob: a column does not fit.
    """
    if "part_objects" not in held:
        return None
    columns = (
        take_array(held, f"part_{kind}", "U", (num_parts,), what)
        for kind in ("objects", "groups", "materials")
    )
    return SourceNames(*(tuple(map(str, column)) for column in columns))


def read_part_tree(held: Mapping[str, Any], labels: IntArray, what: str) -> PartTree:
    """The levels as stored; a label set of schema 1 has one.

    Args:
        held: arrays of a label set or a sample.
        labels: (F,) int32, the reviewed parts.
        what: the arrays belong to, for messages.

    Raises:
        CorruptBlob: levels, offsets and parents do not fit together.
        BadLabels: the reviewed level is another partition than `labels`.
    """
    if "levels" not in held:
        return build_part_tree(labels.astype(np.int32), None, None)
    levels = take_array(held, "levels", "iu", (None, len(labels)), what).astype(np.int32)
    num_levels = len(levels)
    offsets = take_array(held, "level_offsets", "iu", (num_levels + 1,), what)
    level = int(take_ids(held, "part_level", (), (0, num_levels), what))
    parents = take_array(held, "parents", "iu", (None,), what)
    sizes, num_nodes = np.diff(offsets.astype(np.int64)), len(parents)
    is_fitting = offsets[0] == 0 and offsets[-1] == num_nodes and (sizes > 0).all()
    if not is_fitting or (levels.min(axis=1) < 0).any() or (levels.max(axis=1) >= sizes).any():
        raise CorruptBlob(f"the levels of {what} do not fit its {num_nodes} nodes")
    if parents.size and not (int(parents.min()) >= -1 and int(parents.max()) < num_nodes):
        raise CorruptBlob(f"a parent in {what} is none of its {num_nodes} nodes")
    if not np.array_equal(levels[level], labels):
        raise BadLabels(f"level {level} of the tree is not the label set's partition")
    return PartTree(levels, offsets.astype(np.int32), parents.astype(np.int32), level)


def check_partition(face_labels: IntArray, num_faces: int, num_parts: int) -> None:
    """Raise BadLabels unless every face has exactly one id and the ids are 0..num_parts-1."""
    labels = np.asarray(face_labels)
    if labels.shape != (num_faces,) or not np.issubdtype(labels.dtype, np.integer):
        raise BadLabels(f"labels {labels.dtype}{labels.shape} do not fit {num_faces} faces")
    if num_faces == 0:
        raise BadLabels("labels of a mesh without faces")
    if labels.min() < 0:
        raise BadLabels(f"{int((labels < 0).sum())} of {num_faces} faces have no part")
    used = np.unique(labels)
    if len(used) != num_parts or used[-1] != num_parts - 1:
        raise BadLabels(f"{len(used)} ids up to {used[-1]} in use, {num_parts} parts announced")


def _pack_arrays(
    asset: AssetRow,
    proposal: Proposal,
    part_of_proposal: IntArray,
    sources: tuple[PolygonLabels, SourceNames],
) -> bytes:
    check_partition(proposal.face_labels, asset.num_faces, proposal.num_parts)
    background, parts = proposal.refinement.background_part, proposal.parts
    names = [name or f"part {part}" for part, name in enumerate(parts.names)]
    tree = build_part_tree(proposal.face_labels, proposal.finer, proposal.groups)
    not_object_part = -1 if background is None else background
    known = (proposal.face_labels, names, parts.categories, not_object_part, tree)
    return pack_label_arrays(*known, part_of_proposal, sources[0].labels, sources[1])


# More than five parameters: the arrays of the file.
def pack_label_arrays(
    face_labels: IntArray,
    part_names: Sequence[str],
    part_categories: Sequence[str],
    not_object_part: int,
    tree: PartTree,
    proposal_parts: IntArray,
    polygon_labels: IntArray | None,
    source_names: SourceNames | None,
) -> bytes:
    """The npz file of a label set; see `LabelSet`. Equal values give equal bytes."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        "face_labels": face_labels.astype(np.int32),
        "part_names": np.array(part_names),
        "part_categories": np.array(part_categories, np.str_),
        "not_object_part": np.array(not_object_part, np.int32),
        "levels": tree.levels,
        "level_offsets": tree.offsets,
        "parents": tree.parents,
        "part_level": np.array(tree.part_level, np.int32),
        "proposal_parts": proposal_parts.astype(np.int32),
    }
    if polygon_labels is not None:
        arrays["polygon_labels"] = polygon_labels
    if source_names is not None:
        columns = asdict(source_names).items()
        arrays |= {f"part_{kind}": np.array(column, np.str_) for kind, column in columns}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
