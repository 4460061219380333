"""MkDocs hooks: pages made of files outside `docs/`, and scripts served by the site itself.

The theme would load two scripts from a public server when a page is opened. Here they come from
npm packages at build time, pinned by hash, so that the finished site fetches nothing from outside.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import posixpath
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from infra.viewer.build import find_node

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / "build" / "docs-scripts"
NPM_TIMEOUT_S = 300
# Files of the repository, outside docs/, that are part of the site.
OUTSIDE = {
    "segvigen_model/weights/default/MODEL_CARD.md": "model-card.md",
    "segvigen_model/weights/default/curves.png": "images/curves.png",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
}
COMMANDS_PAGE = "reference/commands.md"
LINK = re.compile(r"(?<=\]\()(?![a-z][a-z+.-]*:|#|/)([^)\s#]+)(?=[)#\s])")


@dataclass(frozen=True, slots=True)
class Script:
    """A script of the site.

    Attributes:
        package: npm package and version.
        sha512: of the package's archive, base64, as the npm registry publishes it.
        member: the script in the archive.
        uri: its place in the site.
    """

    package: str
    sha512: str
    member: str
    uri: str


MERMAID = Script(
    "mermaid@11.6.0",
    "PE8hGUy1LDlWIHWBP05SFdqUHGmRcCcK4IzpOKPE35eOw+G9zZgcnMpyunJVUEOgb//KBORPjysKndw8bFLuRg==",
    "package/dist/mermaid.min.js",
    "assets/javascripts/mermaid.min.js",
)
# Search without a web server: browsers start no worker from a file.
IFRAME_WORKER = Script(
    "iframe-worker@1.0.4",
    "roeaaI+Lg1LJNfgpCjoRe/+WzEjy9+Z08LoEvu85MCPbBjwm+qXz8Ag5U05lHa6V1CysZyGzE0SOkAtSUA5q7Q==",
    "package/shim/index.js",
    "assets/javascripts/iframe-worker.js",
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the local copy of the search shim before the offline plugin names a public one."""
    config.extra["polyfills"] = [IFRAME_WORKER.uri]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the scripts, the files outside `docs/`, the command reference and the notebooks."""
    for script in (MERMAID, IFRAME_WORKER):
        files.append(File.generated(config, script.uri, content=fetch_script(script)))
    for source, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(REPOSITORY / source)))
    files.append(File.generated(config, COMMANDS_PAGE, content=describe_commands()))
    for notebook in sorted((REPOSITORY / "docs" / "examples").glob("*.ipynb")):
        text, images = convert_notebook(notebook)
        files.append(File.generated(config, f"examples/{notebook.stem}.md", content=text))
        for name, data in images.items():
            files.append(File.generated(config, f"examples/{name}", content=data))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point relative links to the site's page of a file, wherever the file lies."""
    uri = page.file.src_uri
    source = next((path for path, name in OUTSIDE.items() if name == uri), f"docs/{uri}")
    return LINK.sub(lambda found: _site_link(found[1], source, uri), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load the diagram script on pages that have a diagram."""
    if 'class="mermaid"' not in output:
        return output
    uri = posixpath.relpath(MERMAID.uri, posixpath.dirname(page.file.dest_uri) or ".")
    return output.replace("</body>", f'<script src="{uri}"></script></body>')


def fetch_script(script: Script) -> bytes:
    """Give a script's bytes, from the cache or from its npm package.

    Raises:
        PluginError: npm cannot give the package, or the package has another hash.
    """
    cached = CACHE / f"{script.package}.js"
    if cached.is_file():
        return cached.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        archive = _pack(script.package, Path(folder))
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if digest != script.sha512:
            raise PluginError(f"{script.package} has sha512 {digest}, not {script.sha512}")
        with tarfile.open(archive) as packed:
            member = packed.extractfile(script.member)
            if member is None:
                raise PluginError(f"{script.package} has no file {script.member}")
            data = member.read()
    CACHE.mkdir(parents=True, exist_ok=True)
    part = cached.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(cached)
    return data


def describe_commands() -> str:
    """Write the reference of the `segvigen` command from its own help texts."""
    from typer import Context
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from flows.cli.main import make_app

    command = get_command(make_app())
    return get_docs_for_click(obj=command, ctx=Context(command), name="segvigen")


def convert_notebook(path: Path) -> tuple[str, dict[str, bytes]]:
    """Write a notebook of format 4 as Markdown.

    Returns:
        The text, and PNG bytes by the path that the text links to, relative to the page.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    blocks: list[str] = []
    images: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            continue
        blocks.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(images)}.png"
                images[name] = base64.b64decode("".join(data["image/png"]))
                blocks.append(f"![figure]({name})")
            elif text := "".join(output.get("text", data.get("text/plain", []))):
                blocks.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(blocks) + "\n", images


def _site_link(link: str, source: str, uri: str) -> str:
    """Rewrite one relative link of the file `source`, which is the page `uri`."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if target in OUTSIDE:
        place = OUTSIDE[target]
    elif target.startswith("docs/"):
        place = target.removeprefix("docs/")
    else:
        return link  # the strict build reports it
    if place.endswith(".ipynb"):
        place = f"{place.removesuffix('.ipynb')}.md"
    return posixpath.relpath(place, posixpath.dirname(uri) or ".")


def _pack(package: str, folder: Path) -> Path:
    """Download a package's archive into a folder."""
    node = find_node()
    environment = dict(os.environ)
    if node.folder is not None:
        environment["PATH"] = f"{node.folder}{os.pathsep}{environment.get('PATH', '')}"
    command = [*node.npm, "pack", "--silent", "--pack-destination", str(folder), package]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True,
        timeout=NPM_TIMEOUT_S, check=False,
    )  # fmt: skip
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        words = (done.stderr or done.stdout).strip()[-600:]
        raise PluginError(f"npm pack {package} ended with {done.returncode}: {words}")
    return archives[0]
