"""Label sets: what a reviewer (or the sure gate) accepted, with its whole history.

A label set is exclusive (one id per face), exhaustive (no face without) and dense (0..P-1), or it
is not written. Its id is the hash of its content: accepting the same thing twice is once.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segvigen_model.errors import SegvigenError
from segvigen_model.types import IntArray, Proposal
from tasks import keys
from tasks.assets import current_proposal, load_proposal
from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    AssetState,
    Catalogue,
    ClickRow,
    LabelSetRow,
    ProposalRow,
)
from tasks.store import Store

log = logging.getLogger(__name__)

LABEL_SCHEMA = "segvigen-labels/1"
LABEL_ID_CHARS = 24
GATE = "gate"  # decided_by of what no person looked at


class BadLabels(SegvigenError):
    """Labels that are not exclusive, exhaustive and dense."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Accepted labels of one asset.

    Attributes:
        face_labels: (F,) int32, 0..P-1.
        part_names: P names.
        not_object_part: the part that is support or backdrop, or -1.
        provenance: where it came from; see `accept_asset`.
    """

    face_labels: IntArray
    part_names: tuple[str, ...]
    not_object_part: int
    provenance: Mapping[str, Any]


def accept_asset(
    asset_id: str,
    *,
    store: Store,
    catalogue: Catalogue,
    decided_by: str,
    worker: str | None = None,
) -> LabelSetRow:
    """Make the present round's proposal the asset's label set and move it to accepted.

    Args:
        asset_id: in state proposed (gate) or in_review (reviewer).
        store: where the label set goes.
        catalogue: gives proposal, answers and clicks.
        decided_by: the reviewer's name, or GATE.
        worker: the lease's owner, if the asset is leased.

    Returns:
        The catalogue's row; the same one when called again for the same decision.
    """
    asset = catalogue.asset(asset_id)
    if asset.state in (AssetState.ACCEPTED, AssetState.SHARDED):
        held = catalogue.labels.latest(asset_id)
        if held is not None:
            return held
    row = _write(asset, store, catalogue, decided_by)
    with catalogue.transaction():
        catalogue.labels.add(row)
        catalogue.move(asset_id, AssetState.ACCEPTED, worker=worker, detail=f"by {decided_by}")
    log.info("stage=accept asset=%s label=%s parts=%d", asset_id[:12], row.label_id, row.num_parts)
    return row


def load_label_set(store: Store, row: LabelSetRow) -> LabelSet:
    """Read a label set and check it again."""
    with np.load(io.BytesIO(store.get(row.key)), allow_pickle=False) as stored:
        labels, names = stored["face_labels"], tuple(str(name) for name in stored["part_names"])
        not_object = int(stored["not_object_part"])
    check_partition(labels, len(labels), len(names))
    return LabelSet(labels, names, not_object, store.get_json(row.provenance_key))


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


def _write(asset: AssetRow, store: Store, catalogue: Catalogue, decided_by: str) -> LabelSetRow:
    """Write arrays and provenance of the present proposal; their row is not recorded yet."""
    source = current_proposal(catalogue, asset)
    proposal = load_proposal(store, source)
    answers = catalogue.reviews.annotations(asset.asset_id)
    clicks = catalogue.reviews.clicks(asset.asset_id)
    arrays = _pack(asset, proposal, tuple(f"part {part}" for part in range(proposal.num_parts)))
    history = _history(asset, source, proposal, answers, clicks, decided_by)
    digest = hashlib.sha256(arrays + _json(history)).hexdigest()[:LABEL_ID_CHARS]
    blob = store.put(keys.label_set(asset.asset_id, digest), arrays, "application/octet-stream")
    told = _json({**history, "label_id": digest, "labels_sha256": blob.sha256})
    about = store.put(keys.label_provenance(asset.asset_id, digest), told, "application/json")
    return LabelSetRow(
        label_id=digest,
        asset_id=asset.asset_id,
        key=blob.key,
        sha256=blob.sha256,
        provenance_key=about.key,
        proposal_key=source.key,
        num_parts=proposal.num_parts,
        num_clicks=len(clicks),
        num_rounds=history["num_rounds"],
        seconds=history["seconds"],
        decided_by=decided_by,
    )


def _pack(asset: AssetRow, proposal: Proposal, names: tuple[str, ...]) -> bytes:
    check_partition(proposal.face_labels, asset.num_faces, proposal.num_parts)
    buffer = io.BytesIO()
    not_object = proposal.provenance.get("not_object_part")
    np.savez_compressed(
        buffer,
        face_labels=proposal.face_labels.astype(np.int32),
        part_names=np.array(names),
        not_object_part=np.array(-1 if not_object is None else int(not_object), np.int32),
    )
    return buffer.getvalue()


def _history(
    asset: AssetRow,
    source: ProposalRow,
    proposal: Proposal,
    answers: list[AnnotationRow],
    clicks: list[ClickRow],
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
        "seconds": sum(answer.lead_time_s for answer in answers),
        "reviews": [_review(answer) for answer in answers],
        "clicks": [_click(click, answers) for click in clicks],
    }


def _review(answer: AnnotationRow) -> dict[str, Any]:
    return {
        "round": answer.round,
        "reviewer": answer.reviewer,
        "verdict": answer.verdict,
        "note": answer.note,
        "seconds": answer.lead_time_s,
        "updated_at": answer.updated_at,
        "label_studio": {
            "annotation_id": answer.annotation_id,
            "task_id": answer.task_id,
            "unique_id": answer.unique_id,
        },
    }


def _click(click: ClickRow, answers: list[AnnotationRow]) -> dict[str, Any]:
    answer = next(a for a in answers if a.unique_id == click.unique_id)
    return {
        "round": click.round,
        "reviewer": answer.reviewer,
        "at": answer.updated_at,
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
        "label_studio": {
            "annotation_id": answer.annotation_id,
            "task_id": answer.task_id,
            "unique_id": answer.unique_id,
            "result_id": click.result_id,
        },
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"
