"""What the documentation site's hooks do to links, notebooks and scripts."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def hooks():
    name, path = "segvigen_docs_hooks", REPOSITORY / "docs/site/hooks.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "uri", "link", "expected"),
    [
        ("docs/parity.md", "parity.md", "quality.md", "quality.md"),
        ("docs/a/b.md", "a/b.md", "../review.md", "../review.md"),
        ("docs/index.md", "index.md", "../SECURITY.md", "security-policy.md"),
        ("docs/a/b.md", "a/b.md", "../../CHANGELOG.md", "../changelog.md"),
        ("CONTRIBUTING.md", "contributing.md", "docs/decisions/index.md", "decisions/index.md"),
        ("docs/index.md", "index.md", "examples/x.ipynb", "examples/x.md"),
        ("docs/index.md", "index.md", "../flows/ingest.py", "../flows/ingest.py"),
    ],
)
def test_links_lead_to_the_page_of_a_file(hooks, source, uri, link, expected):
    assert hooks._site_link(link, source, uri) == expected


def test_addresses_anchors_and_code_are_no_relative_links(hooks):
    text = "[a](https://x.org/y.md) [b](#top) [c](/root.md) [d](one.md#two) ![e](f.png)"
    assert hooks.LINK.findall(text) == ["one.md", "f.png"]


def test_files_outside_the_documents_exist(hooks):
    for source in hooks.OUTSIDE:
        assert (REPOSITORY / source).is_file(), source


def test_a_notebook_becomes_text_code_and_pictures(hooks, tmp_path):
    picture = {"data": {"image/png": base64.b64encode(PNG).decode(), "text/plain": ["<Figure>"]}}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Words."]},
        {"cell_type": "code", "source": ["1 + 1"], "outputs": [{"data": {"text/plain": ["2"]}}]},
        {"cell_type": "code", "source": ["print(3)"], "outputs": [{"text": ["3\n"]}]},
        {"cell_type": "code", "source": ["draw()"], "outputs": [picture]},
    ]
    path = tmp_path / "example.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    text, images = hooks.convert_notebook(path)
    assert images == {"example-0.png": PNG}
    assert text.split("\n\n") == [
        "# Title\nWords.",
        "```python\n1 + 1\n```",
        "```text\n2\n```",
        "```python\nprint(3)\n```",
        "```text\n3\n```",
        "```python\ndraw()\n```",
        "![figure](example-0.png)\n",
    ]


def test_a_package_with_another_hash_is_refused(hooks, tmp_path, monkeypatch):
    archive = tmp_path / "package.tgz"
    archive.write_bytes(b"other bytes")
    monkeypatch.setattr(hooks, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(hooks, "_pack", lambda package, folder: archive)
    with pytest.raises(hooks.PluginError, match=r"iframe-worker@1\.0\.4 has sha512 .*, not roeaa"):
        hooks.fetch_script(hooks.IFRAME_WORKER)
    assert not (tmp_path / "cache").exists()


def test_scripts_are_pinned_by_version_and_hash(hooks):
    for script in (hooks.MERMAID, hooks.IFRAME_WORKER):
        assert re.fullmatch(r"[\w-]+@\d+\.\d+\.\d+", script.package)
        assert len(base64.b64decode(script.sha512)) == 64
