"""Revision 0005: locks by name, and the number of the build that found a dataset version last.

Versions that were there before have build number 0; among them the order of their making counts.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table and the column."""
    op.create_table(
        "locks",
        sa.Column("name", sa.String(128), primary_key=True, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
    )
    number = sa.Column("build_number", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("shard_versions", number)
