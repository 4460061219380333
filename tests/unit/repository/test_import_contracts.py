"""The import contracts hold, and a forbidden import breaks the one that it should."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = ("segvigen_model", "tasks", "flows", "infra", "deployments")
LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The contracts and the code that they judge."""
    shutil.copy(REPOSITORY / ".importlinter", tmp_path)
    for name in PACKAGES:
        for source in (REPOSITORY / name).rglob("*.py"):
            if "node_modules" not in source.parts:
                target = tmp_path / source.relative_to(REPOSITORY)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract", "chain"),
    [
        (
            "segvigen_model/types.py",
            "import prefect",
            "segvigen_model is a plain library",
            "segvigen_model.types -> prefect",
        ),
        (
            "segvigen_model/mesh/io.py",
            "from segvigen_model import segmenter",
            "layers of segvigen_model",
            "segvigen_model.mesh.io -> segvigen_model.segmenter",
        ),
        (
            "tasks/settings.py",
            "from flows import console",
            "flows and deployments are built on tasks",
            "tasks.settings -> flows.console",
        ),
        (
            "tasks/stages/encode.py",
            "import prefect",
            "tasks run without an orchestrator",
            "tasks.stages.encode -> prefect",
        ),
        (
            "tasks/storage/keys.py",
            "from tasks.review import push",
            "layers of tasks",
            "tasks.storage.keys -> tasks.review.push",
        ),
        (
            "infra/home.py",
            "from tasks.storage import store",
            "infra knows the settings and errors only",
            "infra.home -> tasks.storage.store",
        ),
    ],
)
def test_a_forbidden_import_is_reported(copy, module, line, contract, chain):
    with (copy / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stderr
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert any(row.startswith(contract) for row in broken), done.stdout
    assert chain in done.stdout


def test_a_new_package_needs_a_layer(copy):
    (copy / "segvigen_model/misc").mkdir()
    (copy / "segvigen_model/misc/__init__.py").write_text('"""New."""\n')
    done = lint(copy)
    assert done.returncode == 1
    assert "layers of segvigen_model BROKEN" in done.stdout and "misc" in done.stdout
