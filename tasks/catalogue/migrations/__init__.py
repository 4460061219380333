"""Alembic revisions of the catalogue; run by `tasks.catalogue.schema`, without an alembic.ini."""
