"""Documents name files and make targets that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
# History speaks of files as they were.
HISTORY = {"CHANGELOG.md", "docs/experiments.md"}
DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for path in (*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"))
)
ROOMS = "segvigen_model|tasks|flows|infra|deployments|tests|docs"
NAMED_FILE = re.compile(rf"`((?:{ROOMS})/[\w./-]+\.\w+)`")
NAMED_TARGET = re.compile(r"`(?:[A-Z_]+=\S+ )?make ([a-z-]+)")
BUILT = {"tasks/rendering/static/viewer.bundle.js"}


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in HISTORY])
def test_named_files_and_targets_exist(name):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    files = set(NAMED_FILE.findall(text)) - BUILT
    missing = sorted(file for file in files if not (REPOSITORY / file).exists())
    assert not missing, missing
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(NAMED_TARGET.findall(text)) <= set(targets)


def test_contributing_names_files():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(NAMED_FILE.findall(text)) > 5 and len(NAMED_TARGET.findall(text)) > 5
