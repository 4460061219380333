"""Revision 0002: a column marks late annotations; edit commands and findings.

- `annotations.is_late` instead of "#late" at the end of `unique_id`.
- Table `verbs` is called `edit_commands`; `gate_decisions.doubts` is called `rejection_reasons`.
- An index over the subjects of findings: without it, looking for label sets that nothing was
  compared with takes time quadratic in their number.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

LATE = "#late"


def upgrade() -> None:
    """Change tables, then the rows."""
    is_late = sa.Column("is_late", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("annotations", is_late)
    op.drop_index("verbs_by_asset", "verbs")
    op.rename_table("verbs", "edit_commands")
    op.create_index("edit_commands_by_asset", "edit_commands", ["asset_id", "round"])
    op.alter_column("gate_decisions", "doubts", new_column_name="rejection_reasons")
    op.create_index("quality_findings_by_subject", "quality_findings", ["subject"])
    _move_marker("annotations", "updated_at")
    for table in ("clicks", "edit_commands"):
        _move_marker(table, "updated_at", "number")
    cursors = sa.table("cursors", sa.column("name", sa.Text), sa.column("value", sa.Text))
    marker = sa.update(cursors).where(cursors.c.name == "schema_version")
    op.execute(marker.values(value="alembic"))  # version 0.1.0 refuses any value but its own


def _move_marker(name: str, *rest_of_key: str) -> None:
    """Take the marker out of a table's ids; annotations keep it as a column.

    Two pulls at once could store one version of an annotation under both ids. Then the row
    without the marker stays: it is the one that the clicks belong to.
    """
    columns = [sa.column(column, sa.Text) for column in ("unique_id", *rest_of_key)]
    table = sa.table(name, *columns, sa.column("is_late", sa.Boolean))
    twin = table.alias("twin")
    plain_id = sa.func.replace(table.c.unique_id, LATE, "")
    is_marked = table.c.unique_id.like(f"%{LATE}")
    same = [twin.c[column] == table.c[column] for column in rest_of_key]
    is_double = sa.exists(sa.select(1).select_from(twin).where(twin.c.unique_id == plain_id, *same))
    op.execute(sa.delete(table).where(is_marked, is_double))
    change: dict[str, object] = {"unique_id": plain_id}
    if name == "annotations":
        change["is_late"] = sa.true()
    op.execute(sa.update(table).where(is_marked).values(change))
