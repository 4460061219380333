"""The whole command: help and wrong usage. Flows themselves are tested in tests/integration."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segvigen_model.command import options

COMMANDS = (
    *("up", "down", "deploy", "doctor", "demo", "status", "show", "retry", "db", "weights"),
    *("ingest", "label", "review", "refine", "shards", "evaluate", "parity", "segment"),
    *("finetune", "checkpoints", "use", "export", "report", "gold"),
)


def test_help_names_every_command_and_the_exit_codes(run):
    text = run("--help").output
    assert all(command in text for command in COMMANDS)
    assert "Exit codes" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    response = run(command, "--help")
    assert response.exit_code == 0
    assert len(response.output) > 100


def test_wrong_usage_is_two(run):
    assert run("labell").exit_code == options.USAGE
    assert run("ingest", "--limit", "0").exit_code == options.USAGE
    assert run("demo", "--reviewer", "nobody").exit_code == options.USAGE
    assert run("evaluate", "--data", "nowhere").exit_code == options.USAGE


def test_without_the_extras_the_library_is_left_and_reports_what_to_install(tmp_path):
    call = (
        "import sys; sys.modules['dotenv'] = None; "
        "from segvigen_model.command.main import make_app; "
        "from flows.cli.main import add_commands; "
        "from segvigen_model.errors import MissingExtra\n"
        "try: add_commands(make_app())\n"
        "except MissingExtra as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        "dotenv is not installed; pip install -e '.[pipeline,review]' in the checkout"
    )
