"""Revision 0003: roles of copies and kinds of findings use the terms of quality control.

- `review_copies.role` and `quality_findings.kind`: `second` is called `double`, `known` is called
  `gold`.

Events are not changed: the log is append-only and keeps the terms of its time.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TERMS = (("second", "double"), ("known", "gold"))
COLUMNS = (("review_copies", "role"), ("quality_findings", "kind"))


def upgrade() -> None:
    """Change the rows."""
    for name, column in COLUMNS:
        table = sa.table(name, sa.column(column, sa.Text))
        for old, new in TERMS:
            change = sa.update(table).where(table.c[column] == old)
            op.execute(change.values({column: new}))
