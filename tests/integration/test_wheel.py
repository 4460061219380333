"""What pip installs: enough to build the viewer, and a command that tells what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from infra.viewer import build

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "tasks", "infra", "deployments", "segvigen_model")
# As in a fresh clone; the weights only cost time here.
LEAVE_OUT = shutil.ignore_patterns("weights", "node_modules", "__pycache__", build.BUNDLE.name)

pytestmark = pytest.mark.slow


def run(command: Sequence[str | Path], folder: Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip put the built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, folder / "clone" / name, ignore=LEAVE_OUT)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder / "clone")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    made = run([*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "./clone"], folder)
    assert made.returncode == 0, made.stderr
    (wheel,) = folder.glob("*.whl")
    put = run([*pip, "install", "-q", "--no-deps", "--target", folder / "site", wheel], folder)
    assert put.returncode == 0, put.stderr
    return folder / "site"


def test_the_viewer_can_be_built_from_what_is_installed(installed, tmp_path):
    static = installed / "tasks/rendering/static"
    assert (static / "viewer.css").is_file() and not (static / build.BUNDLE.name).exists()
    # The bundle of this checkout counts as up to date only where all its sources are the same.
    shutil.copy(build.BUNDLE, static)
    told = "from infra.viewer.build import BUNDLE, build; print(build(), BUNDLE)"
    answer = run([sys.executable, "-c", told], tmp_path, PYTHONPATH=str(installed))
    assert answer.stdout.split() == ["False", str(static / build.BUNDLE.name)], answer.stderr


def test_without_the_extras_the_command_says_what_to_install(installed, tmp_path):
    # -S leaves out what is installed beside Python itself.
    begin = "from flows.cli.entry import main; main()"
    answer = run([sys.executable, "-S", "-c", begin], tmp_path, PYTHONPATH=str(installed))
    assert answer.returncode == 3
    assert answer.stderr.startswith("not ready: the command needs typer; pip install")
    assert "[pipeline,review]" in answer.stderr and len(answer.stderr.splitlines()) == 1


def test_the_command_runs_where_the_extras_are(installed, tmp_path):
    begin = "from flows.cli.entry import main; main()"
    answer = run([sys.executable, "-c", begin, "--help"], tmp_path, PYTHONPATH=str(installed))
    assert answer.returncode == 0 and "Exit codes" in answer.stdout
