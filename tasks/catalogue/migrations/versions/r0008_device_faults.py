"""Revision 0008: the table of faults of devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "device_faults",
        sa.Column("device", sa.String(128), primary_key=True, nullable=False),
        sa.Column("asset_id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("is_cleared", sa.Boolean, nullable=False),
    )
