"""The command, called in a folder of its own."""

from __future__ import annotations

import os

import pytest
from typer.testing import CliRunner

from flows.cli.main import make_app


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """A home and a catalogue of their own, and no settings of this machine."""
    for name in [name for name in os.environ if name.startswith(("SEGVIGEN_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    kept = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGVIGEN_CATALOGUE_URL", f"sqlite:///{tmp_path}/catalogue.db")
    yield tmp_path
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture
def run():
    """Call the command; wide output, so that nothing is cut."""

    def call(*arguments: str):
        return CliRunner().invoke(make_app(), list(arguments), env={"COLUMNS": "200"})

    return call
