"""What the catalogue hands out and takes in: one frozen value per table row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.catalogue.states import AssetState


@dataclass(frozen=True, slots=True)
class AssetRow:
    """One asset and where it stands.

    Attributes:
        round: counts refinements; 0 = first proposal.
        reason, detail, parked_from: of a parking place.
        attempts, last_error: failed tries of the present stage.
        is_started: the lease's owner is working on it right now.
        lease_until: seconds since the epoch; without an owner, "not before".
    """

    asset_id: str
    state: AssetState
    round: int = 0
    name: str = ""
    suffix: str = ""
    source_key: str | None = None
    size_bytes: int = 0
    num_faces: int = 0
    licence: str = "unknown"
    encoding_key: str | None = None
    priority: float = 0.0
    reason: str | None = None
    detail: str | None = None
    parked_from: str | None = None
    attempts: int = 0
    last_error: str | None = None
    is_started: bool = False
    lease_owner: str | None = None
    lease_until: float = 0.0
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class RawRow:
    """One object of the raw bucket as last seen; `asset_id` or `reason` says what became of it."""

    key: str
    etag: str
    size_bytes: int
    asset_id: str | None = None
    reason: str | None = None
    detail: str | None = None
    seen_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ProposalRow:
    """The proposal of one round; `provenance` is a small JSON copy of the blob's own."""

    asset_id: str
    round: int
    key: str
    sha256: str
    num_parts: int
    confidence: float
    checkpoint: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ReviewTaskRow:
    """The desk's task for one round. `task_id` may be reused by the desk: (asset, round) is key."""

    asset_id: str
    round: int
    project_id: int
    task_id: int
    proposal_key: str
    sheet_key: str
    buffers_key: str
    viewer_key: str | None = None
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """One version of a reviewer's answer, raw as it came and as it was understood.

    Attributes:
        unique_id: the desk's id that is never reused; with `updated_at` (its ISO text) the key.
        verdict: "accept", "refine", "reject", "skip" or None (not understood: see `problem`).
        is_interpreted: the clicks are stored and the asset was moved.
        raw: the desk's JSON, untouched.
    """

    unique_id: str
    updated_at: str
    annotation_id: int
    task_id: int
    asset_id: str
    round: int
    reviewer: str
    raw: Mapping[str, Any]
    lead_time_s: float = 0.0
    was_cancelled: bool = False
    verdict: str | None = None
    note: str = ""
    problem: str | None = None
    is_interpreted: bool = False
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ClickRow:
    """One point of an annotation, on the sheet and on the mesh.

    Attributes:
        number: position in the annotation.
        source: "sheet" or "viewer".
        view: name of the view that was clicked.
        pixel_x, pixel_y: sheet pixels, top-left origin.
        label: the text of the label that the reviewer chose.
        kind, part, group, is_positive: as in segvigen_model.types.Click.
        face: index into the mesh's faces; x, y, z: the point, mesh frame.
    """

    unique_id: str
    updated_at: str
    number: int
    asset_id: str
    round: int
    result_id: str
    source: str
    pixel_x: float
    pixel_y: float
    label: str
    kind: str
    part: int
    face: int
    x: float
    y: float
    z: float
    view: str = ""
    group: int = 0
    is_positive: bool = True


@dataclass(frozen=True, slots=True)
class VerbRow:
    """One edit of whole parts that an annotation asks for; fields as in `edit_commands.Verb`.

    Attributes:
        number: position among the annotation's lines.
        parts: ids as shown in that round.
    """

    unique_id: str
    updated_at: str
    number: int
    asset_id: str
    round: int
    result_id: str
    kind: str
    parts: tuple[int, ...]
    text: str = ""
    count: int | None = None


@dataclass(frozen=True, slots=True)
class LabelSetRow:
    """An accepted label set; `decided_by` is a reviewer's name or "gate"."""

    label_id: str
    asset_id: str
    key: str
    sha256: str
    provenance_key: str
    proposal_key: str
    num_parts: int
    num_clicks: int
    num_rounds: int
    seconds: float
    decided_by: str
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ShardVersionRow:
    """One immutable version of a dataset."""

    dataset: str
    version: str
    manifest_key: str
    sha256: str
    num_samples: int
    size_bytes: int
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ShardMemberRow:
    """Which label set of which asset is in which tar."""

    dataset: str
    version: str
    asset_id: str
    label_id: str
    shard_key: str


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """An alias such as "current" and the checkpoint it stands for."""

    alias: str
    location: str
    sha256: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of the append-only journal; `at` in seconds since the epoch."""

    event_id: int
    at: float
    asset_id: str | None
    kind: str
    worker: str | None
    detail: Mapping[str, Any]
