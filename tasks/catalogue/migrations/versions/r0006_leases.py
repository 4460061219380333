"""Revision 0006: a worker's death counts apart; leases have tokens; claims follow an index.

- `assets` gets the token and the time of its lease, and what is known of workers that died with it.
- `assets_by_order` has the order of claims; `assets_by_owner` has the leases' ends.
- `annotations_uninterpreted`: the poll for open answers read the whole table before.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add columns and change indexes."""
    for name in ("deaths", "deaths_alone"):
        op.add_column("assets", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    for name in ("is_alone", "is_suspect"):
        flag = sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())
        op.add_column("assets", flag)
    leased_at = sa.Column("leased_at", sa.Float, nullable=False, server_default="0")
    op.add_column("assets", leased_at)
    token = sa.Column("lease_token", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("assets", token)
    by_priority: sa.ColumnElement[Any] = sa.desc(sa.column("priority"))
    order: list[str | sa.ColumnElement[Any]] = ["state", by_priority, "updated_at", "asset_id"]
    op.create_index("assets_by_order", "assets", order)
    op.drop_index("assets_by_state", "assets")
    op.drop_index("assets_by_owner", "assets")
    op.create_index("assets_by_owner", "assets", ["lease_owner", "lease_until"])
    open_answers = ["is_interpreted", "updated_at", "unique_id"]
    op.create_index("annotations_uninterpreted", "annotations", open_answers)
