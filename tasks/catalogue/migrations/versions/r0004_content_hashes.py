"""Revision 0004: the content hash of every object of the store.

- Table `blobs`: key, sha256, size. Hashes that other tables hold are copied there; the size of
  such an object is not known and is -1. Objects without any hash are recorded at their first read.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# table, column of the key; its hash is in the column `sha256`
HASHED = (("proposals", "key"), ("label_sets", "key"), ("shard_versions", "manifest_key"))


def upgrade() -> None:
    """Make the table and fill it."""
    op.create_table(
        "blobs",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    blobs = sa.table("blobs", *map(sa.column, ("key", "sha256", "size_bytes", "created_at")))
    for name, key_column in HASHED:
        table = sa.table(name, sa.column(key_column), *map(sa.column, ("sha256", "created_at")))
        key = table.c[key_column]
        # One hash only: of a key with two, none can be believed.
        rows = (
            sa.select(
                key, sa.func.min(table.c.sha256), sa.literal(-1), sa.func.min(table.c.created_at)
            )
            .group_by(key)
            .having(sa.func.count(sa.distinct(table.c.sha256)) == 1)
        )
        op.execute(blobs.insert().from_select(list(blobs.c.keys()), rows))
