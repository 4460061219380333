"""Alembic's entry: runs the revisions on the connection that `schema` gives, or as SQL text.

Without a connection (`alembic upgrade --sql`) the option `sqlalchemy.url` names the dialect.
"""

from __future__ import annotations

from alembic import context

from tasks.catalogue import quality_rows  # noqa: F401 - its tables belong to `Row.metadata`
from tasks.catalogue.mapping import Row


def run() -> None:
    """Run the revisions that `context` was asked for."""
    config = context.config
    if context.is_offline_mode():
        url = config.get_main_option("sqlalchemy.url")
        context.configure(url=url, target_metadata=Row.metadata, literal_binds=True)
    else:
        connection = config.attributes["connection"]
        context.configure(connection=connection, target_metadata=Row.metadata)
    with context.begin_transaction():
        context.run_migrations()


run()
