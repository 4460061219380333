"""`segvigen weights check` on our own checkpoint and on an empty folder."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from segvigen_model.checkpoints import native
from segvigen_model.command.main import make_app
from segvigen_model.model.bundle import build_model


def run(*arguments):
    return CliRunner().invoke(make_app(), ["weights", "check", *map(str, arguments)])


def test_a_whole_checkpoint_is_shown(tmp_path):
    native.save_model(build_model("tiny"), tmp_path)
    response = run(tmp_path, "--sha256")
    assert response.exit_code == 0, response.output
    assert "ok" in response.output and "sha256" in response.output
    (row,) = json.loads(run(tmp_path, "--json").output)
    assert row["state"] == "ok"


def test_what_is_missing_is_shown_and_fails(tmp_path):
    response = run(tmp_path)
    assert response.exit_code == 3
    assert "interactive_seg.ckpt" in response.output
    assert all(row["licence"] for row in json.loads(run(tmp_path, "--json").output))


def test_no_folder_is_wrong_usage(tmp_path):
    assert run(tmp_path / "absent").exit_code == 2
