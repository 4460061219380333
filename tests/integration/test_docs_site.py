"""The documentation site: every link leads somewhere, and a page asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=["']([^"']+)""")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; the build is strict."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_load_files_of_the_site_only(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for address in LOADED.findall(page.read_text(encoding="utf-8")):
            if address.startswith("data:"):
                continue
            assert "://" not in address and not address.startswith("//"), f"{page.name}: {address}"
            if page.name != "404.html":
                assert (page.parent / address.partition("#")[0]).exists(), f"{page}: {address}"


def test_pages_with_a_diagram_bring_the_script_that_draws_it(site):
    with_diagram = {p.name for p in site.rglob("*.html") if 'class="mermaid"' in p.read_text()}
    assert {"architecture.html", "live.html"} <= with_diagram
    for page in site.rglob("*.html"):
        assert ("mermaid.min.js" in page.read_text()) == (page.name in with_diagram), page.name


def test_the_reference_is_made_of_the_code(site):
    commands = (site / "reference/commands.html").read_text()
    assert "segvigen ingest" in commands and "segvigen doctor" in commands
    library = (site / "reference/library.html").read_text()
    for name in ("Segmenter.open", "Session.propose", "mesh.io.mesh_from_bytes", "types.Click"):
        assert f"{name}" in library, name
    assert "SEGVIGEN_STORE_ROOT_URL" in (site / "reference/settings.html").read_text()
