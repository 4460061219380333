"""The files that GitHub and pre-commit read: well formed, pinned, and true to the repository."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
FORMS = sorted((REPOSITORY / ".github/ISSUE_TEMPLATE").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
PINNED = re.compile(r"- uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def load(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def unknown_words(command: str) -> list[str]:
    """Find make targets and files of a shell command that the repository lacks."""
    missing = []
    for line in command.strip().splitlines():
        program, *words = shlex.split(line)
        if program == "make":
            missing += [f"target {word}" for word in words if word not in TARGETS]
        elif not (REPOSITORY / program).is_file():
            missing.append(f"file {program}")
    return missing


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_command_of_a_workflow_exists(path):
    commands = [step["run"] for step in steps(load(path)) if "run" in step]
    assert commands, path.name
    for command in commands:
        assert not unknown_words(command), command


def test_a_missing_target_or_file_is_noticed():
    assert unknown_words("make check") == []
    assert unknown_words("make chekk") == ["target chekk"]
    assert unknown_words("make check\n./ci.sh") == ["file ./ci.sh"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_version(path):
    used = [line.strip() for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert PINNED.match(line), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_only_read_and_end_by_themselves(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 90, name


def test_ci_runs_all_checks_on_the_supported_versions():
    workflow = load(REPOSITORY / ".github/workflows/ci.yml")
    run = {step["run"] for step in steps(workflow) if "run" in step}
    assert run >= {"make check", "make coverage", "make test-integration", "make docs"}
    assert workflow["jobs"]["unit"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"


def test_the_gpu_job_runs_on_its_label_only_and_the_others_not_again():
    jobs = load(REPOSITORY / ".github/workflows/ci.yml")["jobs"]
    condition = jobs.pop("gpu")["if"]
    assert condition == "github.event.action == 'labeled' && github.event.label.name == 'gpu'"
    assert {job["if"] for job in jobs.values()} == {"github.event.action != 'labeled'"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_have_what_github_requires(path):
    form = load(path)
    if path.name == "config.yml":
        assert set(form) == {"blank_issues_enabled"}
        return
    assert form["name"] and form["description"] and form["labels"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "dropdown") and field["attributes"]["label"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_hooks_run_locked_programs_of_the_environment():
    (repository,) = load(REPOSITORY / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    lock = (REPOSITORY / "requirements.lock").read_text()
    programs = {
        "ruff": "ruff", "codespell": "codespell", "mypy": "mypy", "lint-imports": "import-linter",
        "check-toml": "pre-commit-hooks", "check-added-large-files": "pre-commit-hooks",
    }  # fmt: skip
    for hook in repository["hooks"]:
        program = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert re.search(rf"^{programs[program]}==", lock, re.MULTILINE), program


def test_only_weights_and_pictures_may_be_large():
    (repository,) = load(REPOSITORY / ".pre-commit-config.yaml")["repos"]
    (hook,) = [hook for hook in repository["hooks"] if hook["id"] == "check-added-large-files"]
    excluded = re.compile(hook["exclude"])
    assert excluded.search("segvigen_model/weights/default/model.safetensors")
    assert excluded.search("docs/images/loop.png")
    for name in ("segvigen_model/weights/notes.bin", "tests/data/a.safetensors", "a.png"):
        assert not excluded.search(name), name
