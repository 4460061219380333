"""Revision 0009: indexes for what is asked of a catalogue of a million assets.

- `assets_by_name`, `assets_parked`, `assets_failing`, `assets_suspect`: `segvigen status` and
  `show` read the whole table before.
- `label_sets_by_asset` also orders an asset's label sets, so that the newest is found at once.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Change indexes."""
    op.create_index("assets_by_name", "assets", ["name"])
    _create_partial("assets_parked", "reason IS NOT NULL", "created_at", "asset_id")
    _create_partial("assets_failing", "last_error IS NOT NULL", "created_at", "asset_id")
    _create_partial("assets_suspect", "is_suspect IS true", "asset_id")
    op.create_index("label_sets_by_asset", "label_sets", ["asset_id", "created_at", "label_id"])
    op.drop_index("ix_label_sets_asset_id", "label_sets")


def _create_partial(name: str, condition: str, *columns: str) -> None:
    for_sqlite = sa.text(condition.replace("IS true", "IS 1"))
    for_postgresql = sa.text(condition)
    op.create_index(
        name, "assets", columns, sqlite_where=for_sqlite, postgresql_where=for_postgresql
    )
