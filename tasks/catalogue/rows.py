"""Tables of assets, raw objects, reviews and results: one frozen row class per table.

Times are UTC seconds since the epoch unless a column states otherwise; JSON columns hold small
values. Blobs are never in here, only their keys and hashes. `events` is append-only: every change
of another table writes one row there in the same transaction. A change of a column needs a new
revision in `migrations/versions` (docs/catalogue.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from tasks.catalogue.mapping import (
    BigInt,
    IntTuple,
    Row,
    Text16,
    Text32,
    Text40,
    Text64,
    Text128,
    enum_column,
    partial_index,
)
from tasks.catalogue.states import AssetState


class AssetRow(Row):
    """One asset and where it stands.

    Attributes:
        round: counts refinements; 0 = first proposal.
        reason, detail, parked_from: of a parking place.
        attempts, last_error: failed tries of the present stage.
        is_started: the lease's owner is working on it right now.
        lease_until: seconds since the epoch; without an owner, "not before".
        leased_at: when the lease was taken or renewed.
        lease_token: grows with every claim, move and release; who holds an older one is late.
        is_alone: the owner holds nothing else.
        is_suspect: a worker died with it; it is claimed alone until an attempt at it ends.
        deaths, deaths_alone: workers that died with it, or over it alone, since then.
    """

    __tablename__ = "assets"
    __table_args__ = (
        # The order of claims: the first free assets are found without sorting.
        sa.Index("assets_by_order", "state", sa.desc("priority"), "updated_at", "asset_id"),
        sa.Index("assets_by_owner", "lease_owner", "lease_until"),
        sa.Index("assets_by_name", "name"),
        # Small ones, of the few assets that `segvigen status` lists.
        partial_index("assets_parked", "reason IS NOT NULL", "created_at", "asset_id"),
        partial_index("assets_failing", "last_error IS NOT NULL", "created_at", "asset_id"),
        partial_index("assets_suspect", "is_suspect IS true", "asset_id"),
    )

    asset_id: Mapped[Text64] = mapped_column(primary_key=True)
    state: Mapped[AssetState] = mapped_column(enum_column(AssetState))
    round: Mapped[int] = mapped_column(default=0)
    name: Mapped[str] = mapped_column(default="")
    suffix: Mapped[Text16] = mapped_column(default="")
    source_key: Mapped[str | None] = mapped_column(default=None)
    size_bytes: Mapped[BigInt] = mapped_column(default=0)
    num_faces: Mapped[BigInt] = mapped_column(default=0)
    licence: Mapped[str] = mapped_column(default="unknown")
    encoding_key: Mapped[str | None] = mapped_column(default=None)
    priority: Mapped[float] = mapped_column(default=0.0)
    reason: Mapped[str | None] = mapped_column(default=None)
    detail: Mapped[str | None] = mapped_column(default=None)
    parked_from: Mapped[Text16 | None] = mapped_column(default=None)
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None] = mapped_column(default=None)
    is_started: Mapped[bool] = mapped_column(default=False)
    lease_owner: Mapped[str | None] = mapped_column(default=None)
    lease_until: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[float] = mapped_column(default=0.0)
    updated_at: Mapped[float] = mapped_column(default=0.0)
    leased_at: Mapped[float] = mapped_column(default=0.0, server_default="0")
    lease_token: Mapped[BigInt] = mapped_column(default=0, server_default="0")
    is_alone: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    is_suspect: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    deaths: Mapped[int] = mapped_column(default=0, server_default="0")
    deaths_alone: Mapped[int] = mapped_column(default=0, server_default="0")


class RawRow(Row):
    """One object of the raw bucket as last seen; `asset_id` or `reason` is its result."""

    __tablename__ = "raw_objects"

    key: Mapped[str] = mapped_column(primary_key=True)
    etag: Mapped[str]
    size_bytes: Mapped[BigInt]
    asset_id: Mapped[Text64 | None] = mapped_column(default=None, index=True)
    reason: Mapped[str | None] = mapped_column(default=None)
    detail: Mapped[str | None] = mapped_column(default=None)
    seen_at: Mapped[float] = mapped_column(default=0.0)


class AwaitedFilesRow(Row):
    """Keys of the files that a raw object lacks."""

    __tablename__ = "awaited_files"

    key: Mapped[str] = mapped_column(primary_key=True)
    awaited: Mapped[Sequence[str]]


class ProposalRow(Row):
    """The proposal of one round; `provenance` is a small JSON copy of the blob's own."""

    __tablename__ = "proposals"

    asset_id: Mapped[Text64] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str]
    sha256: Mapped[Text64]
    num_parts: Mapped[int]
    confidence: Mapped[float]
    checkpoint: Mapped[str]
    provenance: Mapped[Mapping[str, Any]] = mapped_column(default_factory=dict)
    created_at: Mapped[float] = mapped_column(default=0.0)


class ReviewTaskRow(Row):
    """The review task of one round. Label Studio may reuse `task_id`: (asset, round) is the key."""

    __tablename__ = "review_tasks"

    asset_id: Mapped[Text64] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int]
    task_id: Mapped[int]
    proposal_key: Mapped[str]
    sheet_key: Mapped[str]
    buffers_key: Mapped[str]
    viewer_key: Mapped[str | None] = mapped_column(default=None)
    created_at: Mapped[float] = mapped_column(default=0.0)


class AnnotationRow(Row):
    """One version of a reviewer's annotation, raw as it came and as it was interpreted.

    Attributes:
        unique_id: the annotation's id that is never reused; with `updated_at` the key.
        updated_at: when this version was saved, as Label Studio writes it (ISO 8601).
        verdict: "accept", "refine", "reject", "skip" or None (not understood: see `problem`).
        is_interpreted: the clicks are stored and the asset was moved.
        raw: Label Studio's JSON, untouched.
        is_late: for a round that was over; kept, but not part of that round's history.
    """

    __tablename__ = "annotations"
    __table_args__ = (
        sa.Index("annotations_by_asset", "asset_id", "round"),
        sa.Index("annotations_uninterpreted", "is_interpreted", "updated_at", "unique_id"),
    )

    unique_id: Mapped[Text64] = mapped_column(primary_key=True)
    updated_at: Mapped[Text40] = mapped_column(primary_key=True)
    annotation_id: Mapped[int]
    task_id: Mapped[int]
    asset_id: Mapped[Text64]
    round: Mapped[int]
    reviewer: Mapped[str]
    raw: Mapped[Mapping[str, Any]]
    lead_time_s: Mapped[float] = mapped_column(default=0.0)
    was_cancelled: Mapped[bool] = mapped_column(default=False)
    verdict: Mapped[Text16 | None] = mapped_column(default=None)
    note: Mapped[str] = mapped_column(default="")
    problem: Mapped[str | None] = mapped_column(default=None)
    is_interpreted: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float] = mapped_column(default=0.0)
    is_late: Mapped[bool] = mapped_column(default=False, server_default=sa.false())


class ClickRow(Row):
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

    __tablename__ = "clicks"
    __table_args__ = (sa.Index("clicks_by_asset", "asset_id", "round"),)

    unique_id: Mapped[Text64] = mapped_column(primary_key=True)
    updated_at: Mapped[Text40] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    asset_id: Mapped[Text64]
    round: Mapped[int]
    result_id: Mapped[str]
    source: Mapped[Text16]
    pixel_x: Mapped[float]
    pixel_y: Mapped[float]
    label: Mapped[str]
    kind: Mapped[Text16]
    part: Mapped[int]
    face: Mapped[BigInt]
    x: Mapped[float]
    y: Mapped[float]
    z: Mapped[float]
    view: Mapped[str] = mapped_column(default="")
    group: Mapped[int] = mapped_column(default=0)
    is_positive: Mapped[bool] = mapped_column(default=True)


class EditCommandRow(Row):
    """One edit of whole parts that an annotation requests (see `edit_commands`).

    Attributes:
        number: position among the annotation's lines.
        parts: ids as shown in that round.
    """

    __tablename__ = "edit_commands"
    __table_args__ = (sa.Index("edit_commands_by_asset", "asset_id", "round"),)

    unique_id: Mapped[Text64] = mapped_column(primary_key=True)
    updated_at: Mapped[Text40] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    asset_id: Mapped[Text64]
    round: Mapped[int]
    result_id: Mapped[str]
    kind: Mapped[Text16]
    parts: Mapped[tuple[int, ...]] = mapped_column(IntTuple)
    text: Mapped[str] = mapped_column(default="")
    count: Mapped[int | None] = mapped_column(default=None)


class LabelSetRow(Row):
    """An accepted label set; `decided_by` is a reviewer's name or "gate"."""

    __tablename__ = "label_sets"
    __table_args__ = (sa.Index("label_sets_by_asset", "asset_id", "created_at", "label_id"),)

    label_id: Mapped[Text64] = mapped_column(primary_key=True)
    asset_id: Mapped[Text64]
    key: Mapped[str]
    sha256: Mapped[Text64]
    provenance_key: Mapped[str]
    proposal_key: Mapped[str]
    num_parts: Mapped[int]
    num_clicks: Mapped[int]
    num_rounds: Mapped[int]
    seconds: Mapped[float]
    decided_by: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=0.0)


class ShardVersionRow(Row):
    """One immutable version of a dataset.

    Attributes:
        build_number: of the last build that found this version to hold all that was accepted;
            the highest of a dataset is its newest version.
    """

    __tablename__ = "shard_versions"

    dataset: Mapped[Text64] = mapped_column(primary_key=True)
    version: Mapped[Text64] = mapped_column(primary_key=True)
    manifest_key: Mapped[str]
    sha256: Mapped[Text64]
    num_samples: Mapped[int]
    size_bytes: Mapped[BigInt]
    created_at: Mapped[float] = mapped_column(default=0.0)
    build_number: Mapped[BigInt] = mapped_column(default=0, server_default="0")


class ShardMemberRow(Row):
    """Which label set of which asset is in which tar."""

    __tablename__ = "shard_members"

    dataset: Mapped[Text64] = mapped_column(primary_key=True)
    version: Mapped[Text64] = mapped_column(primary_key=True)
    asset_id: Mapped[Text64] = mapped_column(primary_key=True)
    label_id: Mapped[Text64]
    shard_key: Mapped[str]


class CheckpointRow(Row):
    """An alias such as "current" and the checkpoint it stands for."""

    __tablename__ = "checkpoints"

    alias: Mapped[Text64] = mapped_column(primary_key=True)
    location: Mapped[str]
    sha256: Mapped[Text64]
    detail: Mapped[Mapping[str, Any]] = mapped_column(default_factory=dict)
    updated_at: Mapped[float] = mapped_column(default=0.0)


class BlobRow(Row):
    """One object of the store and the hash of its content, recorded when it was written.

    `size_bytes` is -1 where the record was made by an upgrade from rows that hold a hash alone.
    """

    __tablename__ = "blobs"

    key: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[Text64]
    size_bytes: Mapped[BigInt]
    created_at: Mapped[float] = mapped_column(default=0.0)


class QuarantineRow(Row):
    """A message of Label Studio that cannot be read.

    Attributes:
        message_id: "task-P-T" or "annotation-P-T-A": project, task and annotation by their ids.
        kind: "task", "annotation", or "answer" (stored, but not to be interpreted).
        reason: why, for people.
        raw: the message as ASCII text, cut.
        task_id: of Label Studio, to fetch it again; 0 if it is not known.
        unique_id, updated_at: of an "answer": its annotation's key.
        digest: sha256 of reason and raw text; a message that says something new has another.
        count: versions seen.
        is_retrying: the next pull fetches it again.
        is_dropped: given up by a person.
    """

    __tablename__ = "quarantine"

    message_id: Mapped[Text128] = mapped_column(primary_key=True)
    kind: Mapped[Text16]
    reason: Mapped[str]
    raw: Mapped[str]
    project_id: Mapped[int] = mapped_column(default=0)
    task_id: Mapped[int] = mapped_column(default=0)
    unique_id: Mapped[Text64] = mapped_column(default="")
    updated_at: Mapped[Text40] = mapped_column(default="")
    digest: Mapped[Text64] = mapped_column(default="")
    count: Mapped[int] = mapped_column(default=1)
    first_seen: Mapped[float] = mapped_column(default=0.0)
    last_seen: Mapped[float] = mapped_column(default=0.0)
    is_retrying: Mapped[bool] = mapped_column(default=False)
    is_dropped: Mapped[bool] = mapped_column(default=False)


class CursorRow(Row):
    """Where a reader that works in steps stopped last time."""

    __tablename__ = "cursors"

    name: Mapped[Text128] = mapped_column(primary_key=True)
    value: Mapped[str]
    updated_at: Mapped[float]


class LockRow(Row):
    """What one process at a time may do.

    Attributes:
        owner: who holds the lock; None if it is free.
        fence: grows by one with every owner.
        until: seconds since the epoch by the database's clock.
    """

    __tablename__ = "locks"

    name: Mapped[Text128] = mapped_column(primary_key=True)
    owner: Mapped[str | None] = mapped_column(default=None)
    fence: Mapped[BigInt] = mapped_column(default=0)
    until: Mapped[float] = mapped_column(default=0.0)


class EventRow(Row):
    """One line of the append-only journal; `at` in seconds since the epoch."""

    __tablename__ = "events"

    event_id: Mapped[BigInt] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True
    )
    at: Mapped[float]
    asset_id: Mapped[Text64 | None] = mapped_column(index=True)
    kind: Mapped[Text32]
    worker: Mapped[str | None]
    detail: Mapped[Mapping[str, Any]]
