"""Label sets: what a reviewer (or the sure gate) accepted, with its whole history.

A label set is exclusive (one id per face), exhaustive (no face without) and dense (0..P-1), or it
is not written. Its id is the hash of its content: accepting the same thing twice is once. It holds
coarse and fine levels in one tree (segvigen_model/partition/hierarchy.py), names and categories.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segvigen_model.errors import SegvigenError
from segvigen_model.partition.hierarchy import PartTree, build_part_tree
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import IntArray, Proposal
from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    AssetState,
    Catalogue,
    ClickRow,
    EditCommandRow,
    LabelSetRow,
    ProposalRow,
)
from tasks.labelling.loading import get_current_proposal, load_asset_mesh, load_proposal
from tasks.labelling.rounds import apply_exact_edits, is_command_usable
from tasks.storage import keys
from tasks.storage.canonical import json_document
from tasks.storage.store import Store
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

LABEL_SCHEMA = "segvigen-labels/2"  # /1 had no levels and no categories; it is still read
LABEL_ID_CHARS = 24
GATE = "gate"  # decided_by of label sets that no person reviewed


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


@dataclass(frozen=True, slots=True)
class InterpretedAnnotation:
    """An interpreted annotation that the catalogue does not have yet.

    Attributes:
        row: with verdict, note and problem.
        clicks, commands: of this answer.
    """

    row: AnnotationRow
    clicks: tuple[ClickRow, ...] = ()
    commands: tuple[EditCommandRow, ...] = ()


@dataclass(frozen=True, slots=True)
class _ReviewLog:
    """All reviews of one asset."""

    annotations: list[AnnotationRow]
    clicks: list[ClickRow]
    commands: list[EditCommandRow] = field(default_factory=list)


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
    store, catalogue = workspace.store, workspace.catalogue
    source = get_current_proposal(catalogue, asset)
    proposal = load_proposal(store, source)
    log_rows = _collect_log(catalogue, asset.asset_id, interpreted)
    commands = _select_accepting_commands(log_rows, asset.round, proposal.num_parts)
    final: Proposal = proposal
    part_of_proposal: IntArray = np.arange(proposal.num_parts)
    if commands:
        final = apply_exact_edits(
            proposal, commands, measure_surface(load_asset_mesh(store, asset)).areas
        )
        id_map = final.refinement.id_map
        part_of_proposal = np.array([id_map[part] for part in range(proposal.num_parts)])
    arrays = _pack_arrays(asset, final, part_of_proposal)
    history = _build_history(asset, source, final, log_rows, decided_by)
    digest = hashlib.sha256(arrays + json_document(history)).hexdigest()[:LABEL_ID_CHARS]
    blob = store.put(
        keys.make_label_set_key(asset.asset_id, digest), arrays, "application/octet-stream"
    )
    provenance_json = json_document({**history, "label_id": digest, "labels_sha256": blob.sha256})
    about = store.put(
        keys.make_label_provenance_key(asset.asset_id, digest), provenance_json, "application/json"
    )
    return LabelSetRow(
        label_id=digest,
        asset_id=asset.asset_id,
        key=blob.key,
        sha256=blob.sha256,
        provenance_key=about.key,
        proposal_key=source.key,
        num_parts=final.num_parts,
        num_clicks=len(log_rows.clicks),
        num_rounds=history["num_rounds"],
        seconds=history["seconds"],
        decided_by=decided_by,
    )


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
    """Read a label set of any schema and check it again."""
    with np.load(io.BytesIO(store.get(row.key)), allow_pickle=False) as stored:
        labels, names = stored["face_labels"], tuple(str(name) for name in stored["part_names"])
        not_object = int(stored["not_object_part"])
        held = {name: stored[name] for name in stored.files}
    check_partition(labels, len(labels), len(names))
    categories = tuple(str(each) for each in held.get("part_categories", [""] * len(names)))
    part_of_proposal = held.get("proposal_parts", np.arange(len(names), dtype=np.int32))
    provenance = store.get_json(row.provenance_key)
    return LabelSet(
        face_labels=labels,
        part_names=names,
        not_object_part=not_object,
        decided_by=row.decided_by,
        clicks=tuple(provenance["clicks"]),
        provenance=provenance,
        part_categories=categories,
        tree=_read_tree(held),
        proposal_parts=part_of_proposal,
    )


def _read_tree(held: Mapping[str, Any]) -> PartTree:
    """The levels as stored; a label set of schema 1 has one."""
    if "levels" not in held:
        return build_part_tree(held["face_labels"], None, None)
    tree = PartTree(held["levels"], held["level_offsets"], held["parents"], int(held["part_level"]))
    if not np.array_equal(tree.levels[tree.part_level], held["face_labels"]):
        raise BadLabels(f"level {tree.part_level} of the tree is not the label set's partition")
    return tree


def list_accepting_commands(
    catalogue: Catalogue, asset: AssetRow, num_parts: int
) -> list[EditCommandRow]:
    """Merges, names and categories that came with the acceptance of the present round."""
    return _select_accepting_commands(
        _collect_log(catalogue, asset.asset_id, None), asset.round, num_parts
    )


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


def _collect_log(
    catalogue: Catalogue, asset_id: str, interpreted: InterpretedAnnotation | None
) -> _ReviewLog:
    """The log of an asset, as it will be once `interpreted` is stored."""
    annotations = catalogue.reviews.list_annotations(asset_id)
    clicks, commands = (
        catalogue.reviews.list_clicks(asset_id),
        catalogue.reviews.list_edit_commands(asset_id),
    )
    if interpreted is None:
        return _ReviewLog(annotations, clicks, commands)
    new = interpreted.row
    is_new = [each.unique_id == new.unique_id and not each.is_late for each in annotations]
    annotations = [
        new if replaced else each for replaced, each in zip(is_new, annotations, strict=True)
    ]
    place = {_version(each): number for number, each in enumerate(annotations)}
    clicks = [each for each in clicks if each.unique_id != new.unique_id] + list(interpreted.clicks)
    commands = [each for each in commands if each.unique_id != new.unique_id] + list(
        interpreted.commands
    )
    return _ReviewLog(
        annotations,
        sorted(clicks, key=lambda each: (place[_version(each)], each.number)),
        sorted(commands, key=lambda each: (place[_version(each)], each.number)),
    )


def _select_accepting_commands(
    log_rows: _ReviewLog, round_: int, num_parts: int
) -> list[EditCommandRow]:
    """Usable commands of the annotations that accept a round, without splits."""
    accepting = {_version(each) for each in log_rows.annotations if each.verdict == "accept"}
    return [
        command
        for command in log_rows.commands
        if _version(command) in accepting
        and command.round == round_
        and command.kind != "split"
        and is_command_usable(command, num_parts)
    ]


def _pack_arrays(asset: AssetRow, proposal: Proposal, part_of_proposal: IntArray) -> bytes:
    check_partition(proposal.face_labels, asset.num_faces, proposal.num_parts)
    buffer = io.BytesIO()
    background, parts = proposal.refinement.background_part, proposal.parts
    names = [name or f"part {part}" for part, name in enumerate(parts.names)]
    tree = build_part_tree(proposal.face_labels, proposal.finer, proposal.groups)
    np.savez_compressed(
        buffer,
        face_labels=proposal.face_labels.astype(np.int32),
        part_names=np.array(names),
        part_categories=np.array(parts.categories, np.str_),
        not_object_part=np.array(-1 if background is None else background, np.int32),
        levels=tree.levels,
        level_offsets=tree.offsets,
        parents=tree.parents,
        part_level=np.array(tree.part_level, np.int32),
        proposal_parts=part_of_proposal.astype(np.int32),
    )
    return buffer.getvalue()


def _build_history(
    asset: AssetRow,
    source: ProposalRow,
    proposal: Proposal,
    log_rows: _ReviewLog,
    decided_by: str,
) -> dict[str, Any]:
    return {
        "schema": LABEL_SCHEMA,
        "asset_id": asset.asset_id,
        "asset_name": asset.name,
        "licence": asset.licence,
        "num_faces": asset.num_faces,
        "num_parts": proposal.num_parts,
        "proposal": {"key": source.key, "sha256": source.sha256, "round": source.round},
        "proposal_provenance": dict(proposal.provenance),
        "confidence": source.confidence,
        "checkpoint": source.checkpoint,
        "decided_by": decided_by,
        "num_rounds": 0 if decided_by == GATE else asset.round + 1,
        "seconds": sum(annotation.lead_time_s for annotation in log_rows.annotations),
        "reviews": [_describe_review(annotation) for annotation in log_rows.annotations],
        "clicks": [_describe_click(click, log_rows.annotations) for click in log_rows.clicks],
        "verbs": [  # this key stays: ids of label sets are hashed from it
            _describe_command(command, log_rows.annotations) for command in log_rows.commands
        ],
    }


def _describe_review(annotation: AnnotationRow) -> dict[str, Any]:
    return {
        "round": annotation.round,
        "reviewer": annotation.reviewer,
        "verdict": annotation.verdict,
        "note": annotation.note,
        "seconds": annotation.lead_time_s,
        "updated_at": annotation.updated_at,
        "label_studio": _describe_place(annotation),
        **({"is_late": True} if annotation.is_late else {}),
    }


def _version(row: AnnotationRow | ClickRow | EditCommandRow) -> tuple[str, str]:
    """The version of an annotation that a row is, or belongs to."""
    return row.unique_id, row.updated_at


def _describe_click(click: ClickRow, annotations: list[AnnotationRow]) -> dict[str, Any]:
    annotation = next(a for a in annotations if _version(a) == _version(click))
    return {
        "round": click.round,
        "reviewer": annotation.reviewer,
        "at": annotation.updated_at,
        "source": click.source,
        "view": click.view,
        "pixel": [click.pixel_x, click.pixel_y],
        "label": click.label,
        "kind": click.kind,
        "part": click.part,
        "group": click.group,
        "is_positive": click.is_positive,
        "face": click.face,
        "xyz": [click.x, click.y, click.z],
        "label_studio": {**_describe_place(annotation), "result_id": click.result_id},
    }


def _describe_command(command: EditCommandRow, annotations: list[AnnotationRow]) -> dict[str, Any]:
    annotation = next(a for a in annotations if _version(a) == _version(command))
    return {
        "round": command.round,
        "reviewer": annotation.reviewer,
        "at": annotation.updated_at,
        "kind": command.kind,
        "parts": list(command.parts),
        "text": command.text,
        "count": command.count,
        "label_studio": {**_describe_place(annotation), "result_id": command.result_id},
    }


def _describe_place(annotation: AnnotationRow) -> dict[str, Any]:
    return {
        "annotation_id": annotation.annotation_id,
        "task_id": annotation.task_id,
        "unique_id": annotation.unique_id,
    }
