"""`segvigen db upgrade`."""

from __future__ import annotations

import sqlite3

from segvigen_model.command import options
from tasks.catalogue.schema import HEAD


def test_an_old_catalogue_is_upgraded_after_a_backup(run, tmp_path, old_catalogue):
    old_catalogue.write(tmp_path / "catalogue.db")
    response = run("db", "upgrade")
    assert response.exit_code == options.OK, response.output
    assert f"from schema 0001 to {HEAD}" in response.output
    (backup,) = tmp_path.glob("*.bak")
    assert f"backup: {backup}" in response.output
    assert f"newest schema, {HEAD}" in run("db", "upgrade").output


def test_a_new_catalogue_is_made(run, tmp_path):
    assert f"made a new catalogue, schema {HEAD}" in run("db", "upgrade").output
    assert (tmp_path / "catalogue.db").is_file()


def test_a_newer_catalogue_is_refused_in_one_line(run, tmp_path):
    run("db", "upgrade")
    with sqlite3.connect(tmp_path / "catalogue.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
    response = run("db", "upgrade")
    assert response.exit_code == options.WENT_WRONG
    assert f"schema revision 0099, newer than this code's {HEAD}" in response.output
