"""`segvigen doctor` of the library alone."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from segvigen_model.checkpoints import native
from segvigen_model.command import options
from segvigen_model.command.doctor import (
    CheckVerdict,
    check_library,
    check_package,
    check_sandbox,
)
from segvigen_model.command.main import make_app
from segvigen_model.mesh.sandbox.parser import LIBRARY_PROGRAM, Parser
from segvigen_model.model.bundle import build_model


def run(*arguments: str):
    return CliRunner().invoke(make_app(), ["doctor", *arguments], env={"COLUMNS": "200"})


def test_a_machine_with_everything_passes(tmp_path):
    native.save_model(build_model("tiny"), tmp_path)
    response = run("--checkpoint", str(tmp_path), "--json")
    assert response.exit_code == options.OK
    checks = {check["name"]: check for check in json.loads(response.stdout)}
    assert checks["torch"]["verdict"] == "ok" and checks["python"]["hint"] == ""
    assert checks[f"checkpoint {tmp_path}"]["found"].startswith("sha256 ")


def test_a_checkpoint_that_is_absent_is_three(tmp_path):
    response = run("--checkpoint", str(tmp_path / "none"))
    assert response.exit_code == options.NOT_READY
    assert "problem" in response.output and "see the model card" in response.output


def test_every_warning_and_problem_reports_what_to_do(tmp_path):
    for check in check_library(str(tmp_path / "none")):
        assert check.verdict is CheckVerdict.OK or check.hint, check


def test_an_optional_package_is_a_warning_only():
    check = check_package("no_such_package", "pip install it", is_needed=False)
    assert check.verdict is CheckVerdict.WARNING and check.hint == "pip install it"
    assert check_package("no_such_package", "pip install it").verdict is CheckVerdict.PROBLEM


def test_what_the_machine_grants_the_parser_is_reported():
    check = check_sandbox(Parser())
    assert check.verdict is not CheckVerdict.PROBLEM and "no_new_privs" in check.found
    nothing = "--without=namespaces,seccomp,landlock"
    check = check_sandbox(Parser((*LIBRARY_PROGRAM, nothing)))
    assert check.verdict is CheckVerdict.PROBLEM and "allow user namespaces" in check.hint
    assert "not granted: own user and network namespace, Landlock, seccomp" in check.found
    check = check_sandbox(Parser((*LIBRARY_PROGRAM, "--without=landlock")))
    assert check.verdict is CheckVerdict.WARNING and "docs/security.md" in check.hint


def test_a_parser_that_does_not_start_is_a_problem():
    check = check_sandbox(Parser(("false",)))
    assert check.verdict is CheckVerdict.PROBLEM and "does not start" in check.found
