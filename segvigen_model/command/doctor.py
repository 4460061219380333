"""`segvigen doctor`: check what this machine has, and how to install what is missing.

A check is quick and neither starts nor changes anything. A checkout's `doctor` runs these too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

import typer

from segvigen_model.command import terminal
from segvigen_model.command.options import NOT_READY, OK, AsJson
from segvigen_model.config.threads import NUM_THREADS, VARIABLES, describe_threads
from segvigen_model.errors import SegvigenError
from segvigen_model.mesh.sandbox.parser import Parser

OLDEST_PYTHON = (3, 11)


class CheckVerdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"  # something optional is missing
    PROBLEM = "problem"  # the model or the pipeline will not work


STYLES = {
    CheckVerdict.OK: "green",
    CheckVerdict.WARNING: "yellow",
    CheckVerdict.PROBLEM: "bold red",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table.

    Attributes:
        name: what was checked.
        verdict: how it ended.
        found: the version, place or error found.
        hint: what to do; empty where all is well.
    """

    name: str
    verdict: CheckVerdict
    found: str
    hint: str = ""


def doctor(checkpoint: str = "default", as_json: AsJson = False) -> None:
    """Check this machine and list what to install."""
    report(check_library(checkpoint), as_json)


def report(checks: Iterable[Check], as_json: bool) -> None:
    """Print checks, and leave with their exit code."""
    done = list(checks)
    if as_json:
        terminal.out.print_json(json.dumps([asdict(check) for check in done]))
    else:
        shown = terminal.make_table("segvigen doctor", "what", "", "found", "what to do")
        for check in done:
            verdict = f"[{STYLES[check.verdict]}]{check.verdict}"
            texts = (terminal.sanitize_text(text) for text in (check.found, check.hint))
            shown.add_row(check.name, verdict, *texts)
        terminal.out.print(shown)
    has_problem = any(check.verdict is CheckVerdict.PROBLEM for check in done)
    raise typer.Exit(NOT_READY if has_problem else OK)


def check_library(checkpoint: str) -> Iterator[Check]:
    """Run the checks of `segvigen_model`, one at a time."""
    yield _check_python()
    yield check_package("torch", "pip install torch")
    yield _check_threads()
    yield _check_cuda()
    gpu = "only needed with CUDA: pip install 'segvigen-pipeline[gpu]'"
    yield check_package("spconv", gpu, is_needed=False)
    yield check_package("trimesh", "pip install trimesh")
    yield check_sandbox(Parser())
    yield _check_checkpoint(checkpoint)


def check_package(name: str, hint: str, *, is_needed: bool = True) -> Check:
    """Import a package and find its version."""
    missing = CheckVerdict.PROBLEM if is_needed else CheckVerdict.WARNING
    try:
        importlib.import_module(name)
    except ImportError as err:
        return Check(name, missing, f"cannot be imported: {err}", hint)
    try:
        return Check(name, CheckVerdict.OK, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, CheckVerdict.OK, "installed")


def check_sandbox(parser: Parser) -> Check:
    """Start the process that parses untrusted meshes, and ask what the machine grants it."""
    name = "parser's sandbox"
    try:
        granted = parser.ask_confinement()
    except SegvigenError as err:
        return Check(name, CheckVerdict.PROBLEM, str(err), "see docs/security.md")
    finally:
        parser.close()
    if not granted.is_offline:
        hint = "allow user namespaces or seccomp; without them no mesh is parsed by the pipeline"
        return Check(name, CheckVerdict.PROBLEM, granted.describe(), hint)
    if not (granted.is_blind and granted.has_seccomp and granted.landlock):
        hint = "works; docs/security.md says what each missing part would stop"
        return Check(name, CheckVerdict.WARNING, granted.describe(), hint)
    return Check(name, CheckVerdict.OK, granted.describe())


def _check_python() -> Check:
    is_new_enough = sys.version_info >= OLDEST_PYTHON
    return Check(
        "python",
        CheckVerdict.OK if is_new_enough else CheckVerdict.PROBLEM,
        platform.python_version(),
        "" if is_new_enough else "install Python 3.11 or newer",
    )


def _check_threads() -> Check:
    """Several threads a process are slower than one on a busy machine."""
    found = describe_threads(os.environ)
    is_one = all(os.environ.get(name) == "1" for name in VARIABLES)
    hint = "" if is_one else f"unset these variables; {NUM_THREADS} sets all of them"
    return Check("threads", CheckVerdict.OK if is_one else CheckVerdict.WARNING, found, hint)


def _check_cuda() -> Check:
    try:
        import torch
    except ImportError:
        return Check("cuda", CheckVerdict.WARNING, "unknown without torch")
    if torch.cuda.is_available():
        return Check("cuda", CheckVerdict.OK, torch.cuda.get_device_name())
    hint = "fine for the default checkpoint; the 1.3B model needs a GPU"
    return Check("cuda", CheckVerdict.WARNING, "no device", hint)


def _check_checkpoint(name: str) -> Check:
    try:
        from segvigen_model.checkpoints.loading import load_model

        sha256 = load_model(name).sha256
    except (SegvigenError, OSError, ImportError) as err:
        return Check(f"checkpoint {name}", CheckVerdict.PROBLEM, str(err), "see the model card")
    return Check(f"checkpoint {name}", CheckVerdict.OK, f"sha256 {sha256[:12]}")
