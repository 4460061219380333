"""The catalogue's tables. Times are UTC seconds since the epoch; JSON columns hold small values.

Blobs are never in here, only their keys and hashes. `events` is append-only: every change of
another table writes one row there in the same transaction.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

assets = sa.Table(
    "assets",
    metadata,
    sa.Column("asset_id", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("round", sa.Integer, nullable=False, default=0),
    sa.Column("name", sa.Text, nullable=False, default=""),
    sa.Column("suffix", sa.String(16), nullable=False, default=""),
    sa.Column("source_key", sa.Text),
    sa.Column("size_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("num_faces", sa.BigInteger, nullable=False, default=0),
    sa.Column("licence", sa.Text, nullable=False, default="unknown"),
    sa.Column("encoding_key", sa.Text),
    sa.Column("priority", sa.Float, nullable=False, default=0.0),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text),
    sa.Column("parked_from", sa.String(16)),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("last_error", sa.Text),
    sa.Column("is_started", sa.Boolean, nullable=False, default=False),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_until", sa.Float, nullable=False, default=0.0),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Index("assets_by_state", "state", "lease_until"),
    sa.Index("assets_by_owner", "lease_owner"),
)

raw_objects = sa.Table(
    "raw_objects",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("etag", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("asset_id", sa.String(64), index=True),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text),
    sa.Column("seen_at", sa.Float, nullable=False),
)

awaited_files = sa.Table(  # came later, as `verbs`
    "awaited_files",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("awaited", sa.JSON, nullable=False),
)

proposals = sa.Table(
    "proposals",
    metadata,
    sa.Column("asset_id", sa.String(64), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("num_parts", sa.Integer, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("checkpoint", sa.Text, nullable=False),
    sa.Column("provenance", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

review_tasks = sa.Table(
    "review_tasks",
    metadata,
    sa.Column("asset_id", sa.String(64), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("project_id", sa.Integer, nullable=False),
    sa.Column("task_id", sa.Integer, nullable=False),
    sa.Column("proposal_key", sa.Text, nullable=False),
    sa.Column("sheet_key", sa.Text, nullable=False),
    sa.Column("buffers_key", sa.Text, nullable=False),
    sa.Column("viewer_key", sa.Text),
    sa.Column("created_at", sa.Float, nullable=False),
)

review_annotations = sa.Table(  # not `annotations`: the future import has that name
    "annotations",
    metadata,
    sa.Column("unique_id", sa.String(64), primary_key=True),
    sa.Column("updated_at", sa.String(40), primary_key=True),
    sa.Column("annotation_id", sa.Integer, nullable=False),
    sa.Column("task_id", sa.Integer, nullable=False),
    sa.Column("asset_id", sa.String(64), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("reviewer", sa.Text, nullable=False),
    sa.Column("lead_time_s", sa.Float, nullable=False, default=0.0),
    sa.Column("was_cancelled", sa.Boolean, nullable=False, default=False),
    sa.Column("verdict", sa.String(16)),
    sa.Column("note", sa.Text, nullable=False, default=""),
    sa.Column("problem", sa.Text),
    sa.Column("is_interpreted", sa.Boolean, nullable=False, default=False),
    sa.Column("raw", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Index("annotations_by_asset", "asset_id", "round"),
)

clicks = sa.Table(
    "clicks",
    metadata,
    sa.Column("unique_id", sa.String(64), primary_key=True),
    sa.Column("updated_at", sa.String(40), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("asset_id", sa.String(64), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("result_id", sa.Text, nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("view", sa.Text, nullable=False, default=""),
    sa.Column("pixel_x", sa.Float, nullable=False),
    sa.Column("pixel_y", sa.Float, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("group", sa.Integer, nullable=False, default=0),
    sa.Column("is_positive", sa.Boolean, nullable=False, default=True),
    sa.Column("face", sa.BigInteger, nullable=False),
    sa.Column("x", sa.Float, nullable=False),
    sa.Column("y", sa.Float, nullable=False),
    sa.Column("z", sa.Float, nullable=False),
    sa.Index("clicks_by_asset", "asset_id", "round"),
)

verbs = sa.Table(  # came later: made where an older catalogue lacks it
    "verbs",
    metadata,
    sa.Column("unique_id", sa.String(64), primary_key=True),
    sa.Column("updated_at", sa.String(40), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("asset_id", sa.String(64), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("result_id", sa.Text, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("parts", sa.JSON, nullable=False),
    sa.Column("text", sa.Text, nullable=False, default=""),
    sa.Column("count", sa.Integer),
    sa.Index("verbs_by_asset", "asset_id", "round"),
)

label_sets = sa.Table(
    "label_sets",
    metadata,
    sa.Column("label_id", sa.String(64), primary_key=True),
    sa.Column("asset_id", sa.String(64), nullable=False, index=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("provenance_key", sa.Text, nullable=False),
    sa.Column("proposal_key", sa.Text, nullable=False),
    sa.Column("num_parts", sa.Integer, nullable=False),
    sa.Column("num_clicks", sa.Integer, nullable=False),
    sa.Column("num_rounds", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

shard_versions = sa.Table(
    "shard_versions",
    metadata,
    sa.Column("dataset", sa.String(64), primary_key=True),
    sa.Column("version", sa.String(64), primary_key=True),
    sa.Column("manifest_key", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("num_samples", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

shard_members = sa.Table(
    "shard_members",
    metadata,
    sa.Column("dataset", sa.String(64), primary_key=True),
    sa.Column("version", sa.String(64), primary_key=True),
    sa.Column("asset_id", sa.String(64), primary_key=True),
    sa.Column("label_id", sa.String(64), nullable=False),
    sa.Column("shard_key", sa.Text, nullable=False),
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("alias", sa.String(64), primary_key=True),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)

cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("event_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("asset_id", sa.String(64), index=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("detail", sa.JSON, nullable=False),
)
