"""Revision 0001: the schema of version 0.1.0, which was written before there were revisions.

Tables and indexes that exist are kept as they are. So this revision also adopts a catalogue of
version 0.1.0, and gives an earlier one the tables that it lacks (verbs, awaited_files and those
of quality control came later).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

INDEXES = (
    ("assets_by_state", "assets", ["state", "lease_until"]),
    ("assets_by_owner", "assets", ["lease_owner"]),
    ("ix_raw_objects_asset_id", "raw_objects", ["asset_id"]),
    ("annotations_by_asset", "annotations", ["asset_id", "round"]),
    ("clicks_by_asset", "clicks", ["asset_id", "round"]),
    ("verbs_by_asset", "verbs", ["asset_id", "round"]),
    ("ix_label_sets_asset_id", "label_sets", ["asset_id"]),
    ("ix_events_asset_id", "events", ["asset_id"]),
    ("ix_review_copies_of_asset", "review_copies", ["of_asset"]),
)


def upgrade() -> None:
    """Make what is missing."""
    _create_asset_tables()
    _create_review_tables()
    _create_click_tables()
    _create_result_tables()
    _create_journal()
    _create_quality_tables()
    for name, table, columns in INDEXES:
        op.create_index(name, table, columns, if_not_exists=True)


def _create(name: str, *columns: sa.Column[Any]) -> None:
    op.create_table(name, *columns, if_not_exists=True)


def _text(name: str, length: int | None = None, *, key: bool = False) -> sa.Column[Any]:
    kind = sa.Text() if length is None else sa.String(length)
    return sa.Column(name, kind, primary_key=key, nullable=False)


def _create_asset_tables() -> None:
    _create(
        "assets",
        _text("asset_id", 64, key=True),
        _text("state", 16),
        sa.Column("round", sa.Integer, nullable=False),
        _text("name"),
        _text("suffix", 16),
        sa.Column("source_key", sa.Text),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("num_faces", sa.BigInteger, nullable=False),
        _text("licence"),
        sa.Column("encoding_key", sa.Text),
        sa.Column("priority", sa.Float, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("parked_from", sa.String(16)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("is_started", sa.Boolean, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", sa.Float, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    _create(
        "raw_objects",
        _text("key", key=True),
        _text("etag"),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("asset_id", sa.String(64)),
        sa.Column("reason", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("seen_at", sa.Float, nullable=False),
    )
    _create("awaited_files", _text("key", key=True), sa.Column("awaited", sa.JSON, nullable=False))


def _create_review_tables() -> None:
    _create(
        "proposals",
        _text("asset_id", 64, key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        _text("key"),
        _text("sha256", 64),
        sa.Column("num_parts", sa.Integer, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        _text("checkpoint"),
        sa.Column("provenance", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    _create(
        "review_tasks",
        _text("asset_id", 64, key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("project_id", sa.Integer, nullable=False),
        sa.Column("task_id", sa.Integer, nullable=False),
        _text("proposal_key"),
        _text("sheet_key"),
        _text("buffers_key"),
        sa.Column("viewer_key", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    _create(
        "annotations",
        _text("unique_id", 64, key=True),
        _text("updated_at", 40, key=True),
        sa.Column("annotation_id", sa.Integer, nullable=False),
        sa.Column("task_id", sa.Integer, nullable=False),
        _text("asset_id", 64),
        sa.Column("round", sa.Integer, nullable=False),
        _text("reviewer"),
        sa.Column("lead_time_s", sa.Float, nullable=False),
        sa.Column("was_cancelled", sa.Boolean, nullable=False),
        sa.Column("verdict", sa.String(16)),
        _text("note"),
        sa.Column("problem", sa.Text),
        sa.Column("is_interpreted", sa.Boolean, nullable=False),
        sa.Column("raw", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )


def _create_click_tables() -> None:
    _create(
        "clicks",
        _text("unique_id", 64, key=True),
        _text("updated_at", 40, key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        _text("asset_id", 64),
        sa.Column("round", sa.Integer, nullable=False),
        _text("result_id"),
        _text("source", 16),
        _text("view"),
        sa.Column("pixel_x", sa.Float, nullable=False),
        sa.Column("pixel_y", sa.Float, nullable=False),
        _text("label"),
        _text("kind", 16),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("group", sa.Integer, nullable=False),
        sa.Column("is_positive", sa.Boolean, nullable=False),
        sa.Column("face", sa.BigInteger, nullable=False),
        sa.Column("x", sa.Float, nullable=False),
        sa.Column("y", sa.Float, nullable=False),
        sa.Column("z", sa.Float, nullable=False),
    )
    _create(
        "verbs",
        _text("unique_id", 64, key=True),
        _text("updated_at", 40, key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        _text("asset_id", 64),
        sa.Column("round", sa.Integer, nullable=False),
        _text("result_id"),
        _text("kind", 16),
        sa.Column("parts", sa.JSON, nullable=False),
        _text("text"),
        sa.Column("count", sa.Integer),
    )


def _create_result_tables() -> None:
    _create(
        "label_sets",
        _text("label_id", 64, key=True),
        _text("asset_id", 64),
        _text("key"),
        _text("sha256", 64),
        _text("provenance_key"),
        _text("proposal_key"),
        sa.Column("num_parts", sa.Integer, nullable=False),
        sa.Column("num_clicks", sa.Integer, nullable=False),
        sa.Column("num_rounds", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        _text("decided_by"),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    _create(
        "shard_versions",
        _text("dataset", 64, key=True),
        _text("version", 64, key=True),
        _text("manifest_key"),
        _text("sha256", 64),
        sa.Column("num_samples", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    _create(
        "shard_members",
        _text("dataset", 64, key=True),
        _text("version", 64, key=True),
        _text("asset_id", 64, key=True),
        _text("label_id", 64),
        _text("shard_key"),
    )


def _create_journal() -> None:
    _create(
        "checkpoints",
        _text("alias", 64, key=True),
        _text("location"),
        _text("sha256", 64),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    _create(
        "cursors",
        _text("name", 128, key=True),
        _text("value"),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    _create(
        "events",
        sa.Column("event_id", number, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("asset_id", sa.String(64)),
        _text("kind", 32),
        sa.Column("worker", sa.Text),
        sa.Column("detail", sa.JSON, nullable=False),
    )


def _create_quality_tables() -> None:
    _create(
        "gate_decisions",
        _text("asset_id", 64, key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        _text("rules", 16),
        sa.Column("is_accepted", sa.Boolean, nullable=False),
        sa.Column("is_audited", sa.Boolean, nullable=False),
        sa.Column("doubts", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    _create(
        "review_copies",
        _text("asset_id", 64, key=True),
        _text("role", 16),
        _text("of_asset", 64),
        sa.Column("truth_key", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    _create(
        "gold_labels",
        _text("label_id", 64, key=True),
        _text("asset_id", 64),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    _create(
        "quality_findings",
        _text("asset_id", 64, key=True),
        _text("kind", 16, key=True),
        _text("subject", 64, key=True),
        _text("reviewer"),
        _text("other"),
        sa.Column("is_good", sa.Boolean, nullable=False),
        sa.Column("iou", sa.Float),
        sa.Column("boundary_f1", sa.Float),
        sa.Column("confidence", sa.Float),
        _text("note"),
        sa.Column("created_at", sa.Float, nullable=False),
    )
