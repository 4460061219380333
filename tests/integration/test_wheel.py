"""The wheel: the library and its command, and nothing else in other people's site-packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import trimesh

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "tasks", "infra", "deployments", "segvigen_model")
# As in a fresh clone; what a viewer build leaves behind only costs time here.
LEAVE_OUT = shutil.ignore_patterns("node_modules", "__pycache__")

pytestmark = pytest.mark.slow


def run(command: list[object], folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "200", **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip installed the built wheel."""
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


def segvigen(site: Path, folder: Path, *arguments: object, checkout: Path | None = None):
    """Run the installed command with this environment's packages, without its editable install."""
    packages = sysconfig.get_paths()["purelib"]
    paths = [site, *([checkout] if checkout else []), packages]
    # -S leaves the .pth files out, by which an editable install is found.
    command = [sys.executable, "-S", site / "bin" / "segvigen", *arguments]
    return run(command, folder, PYTHONPATH=os.pathsep.join(map(str, paths)))


def test_the_wheel_holds_one_package_with_its_data(site):
    names = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"bin", "segvigen_model"}
    for name in ("py.typed", "datasets/holdout.json", "weights/default/model.safetensors"):
        assert (site / "segvigen_model" / name).is_file(), name


def test_the_wheel_alone_has_the_subcommands_of_the_library(site, tmp_path):
    done = segvigen(site, tmp_path, "--help")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "evaluate" in done.stdout and "Exit codes" in done.stdout
    assert "ingest" not in done.stdout


def test_a_checkout_beside_the_wheel_adds_the_pipeline(site, tmp_path):
    done = segvigen(site, tmp_path, "--help", checkout=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout and "ingest" in done.stdout


def test_the_wheel_alone_segments_a_mesh(site, tmp_path):
    boxes = [trimesh.creation.box().apply_translation((2 * i, 0, 0)) for i in range(2)]
    trimesh.util.concatenate(boxes).export(tmp_path / "boxes.glb")
    done = segvigen(site, tmp_path, "segment", "boxes.glb", "--labels", "labels.npz")
    assert done.returncode == 0, done.stderr
    assert "boxes.glb: 2 parts, 24 faces" in done.stdout
    labels = np.load(tmp_path / "labels.npz")["face_labels"]
    assert len(set(labels[:12])) == len(set(labels[12:])) == 1 and labels[0] != labels[12]
    assert (tmp_path / "boxes-parts.glb").is_file()
