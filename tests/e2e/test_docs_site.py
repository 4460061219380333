"""The documentation site in a real browser, opened as files: diagrams, search, no other server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

REPOSITORY = Path(__file__).resolve().parents[2]
CHROMIUM = Path(os.environ.get("SEGVIGEN_CHROMIUM", "/usr/bin/chromium"))

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}; set SEGVIGEN_CHROMIUM")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "--site-dir", str(tmp_path / "site")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    return tmp_path / "site"


def test_diagrams_and_search_work_without_a_server(site):
    requested = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.goto((site / "architecture.html").as_uri())
        page.locator("div.mermaid").first.wait_for()
        assert page.locator("pre.mermaid").count() == 0, "a diagram was not drawn"
        page.keyboard.press("/")
        page.keyboard.type("lease")
        page.locator(".md-search-result__item").first.wait_for()
        browser.close()
    assert requested and all(url.startswith(("file:", "data:", "blob:")) for url in requested)
