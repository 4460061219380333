"""Tables of quality control: gate decisions, copies of assets, gold label sets, findings.

They came after the first catalogues; `QualityLedger` makes them where they are missing.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

gate_decisions = sa.Table(
    "gate_decisions",
    metadata,
    sa.Column("asset_id", sa.String(64), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("rules", sa.String(16), nullable=False),
    sa.Column("is_accepted", sa.Boolean, nullable=False),
    sa.Column("is_audited", sa.Boolean, nullable=False),
    sa.Column("doubts", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

review_copies = sa.Table(
    "review_copies",
    metadata,
    sa.Column("asset_id", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("of_asset", sa.String(64), nullable=False, index=True),
    sa.Column("truth_key", sa.Text),
    sa.Column("created_at", sa.Float, nullable=False),
)

gold_labels = sa.Table(
    "gold_labels",
    metadata,
    sa.Column("label_id", sa.String(64), primary_key=True),
    sa.Column("asset_id", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

findings = sa.Table(
    "quality_findings",
    metadata,
    sa.Column("asset_id", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("subject", sa.String(64), primary_key=True),
    sa.Column("reviewer", sa.Text, nullable=False),
    sa.Column("other", sa.Text, nullable=False),
    sa.Column("is_good", sa.Boolean, nullable=False),
    sa.Column("iou", sa.Float),
    sa.Column("boundary_f1", sa.Float),
    sa.Column("confidence", sa.Float),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)
