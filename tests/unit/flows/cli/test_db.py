"""`segvigen db upgrade`."""

from __future__ import annotations

import os
import sqlite3

import pytest
from typer.testing import CliRunner

from flows.cli import main as cli

runner = CliRunner()


@pytest.fixture(autouse=True)
def url(tmp_path, monkeypatch):
    """A catalogue of its own, not made yet."""
    for name in [name for name in os.environ if name.startswith(("SEGVIGEN_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGVIGEN_CATALOGUE_URL", f"sqlite:///{tmp_path}/catalogue.db")


def upgrade():
    return runner.invoke(cli.app, ["db", "upgrade"], env={"COLUMNS": "200"})


def test_an_old_catalogue_is_upgraded_after_a_backup(tmp_path, old_catalogue):
    old_catalogue.write(tmp_path / "catalogue.db")
    answer = upgrade()
    assert answer.exit_code == cli.OK, answer.output
    assert "from schema 0001 to 0002" in answer.output
    (backup,) = tmp_path.glob("*.bak")
    assert f"backup: {backup}" in answer.output
    assert "newest schema, 0002" in upgrade().output


def test_a_new_catalogue_is_made(tmp_path):
    assert "made a new catalogue, schema 0002" in upgrade().output
    assert (tmp_path / "catalogue.db").is_file()


def test_a_newer_catalogue_is_refused_in_one_line(tmp_path):
    upgrade()
    with sqlite3.connect(tmp_path / "catalogue.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
    answer = upgrade()
    assert answer.exit_code == cli.WENT_WRONG
    assert "schema revision 0099, newer than this code's 0002" in answer.output
