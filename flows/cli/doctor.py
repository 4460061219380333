"""`segvigen doctor`: is everything here that the pipeline needs, and if not, what to do.

Each check looks at one thing, quickly, without starting or changing anything.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.console import Check, Verdict
from infra.local import LocalStack
from infra.processes import StackError, free_port
from infra.services import label_studio_program

MIN_FREE_BYTES = 5 * 2**30  # Label Studio's and our environment and a small dataset
OLDEST_PYTHON = (3, 11)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def examine(home: Path, checkpoint: str = "default") -> Iterator[Check]:
    """Run every check, each as soon as it is asked for."""
    yield _python()
    yield _package("torch", "pip install -r requirements.lock")
    yield _cuda()
    yield _package("spconv", "only needed with CUDA: pip install 'segvigen-pipeline[gpu]'", False)
    yield _package("trimesh", "pip install -r requirements.lock")
    yield _package("embreex", "pip install 'segvigen-pipeline[review]'")
    yield _package("prefect", "pip install 'segvigen-pipeline[pipeline]'")
    yield _package("webdataset", "pip install webdataset, to read shards with it", False)
    yield _program(("rclone",), "pip install 'segvigen-pipeline[local]'", True)
    yield _program(BROWSERS, "only browser tests need it: apt-get install chromium", False)
    yield _label_studio()
    yield _checkpoint(checkpoint)
    yield _disk(home)
    yield from _services(home)


def _python() -> Check:
    is_new_enough = sys.version_info >= OLDEST_PYTHON
    return Check(
        "python",
        Verdict.OK if is_new_enough else Verdict.PROBLEM,
        platform.python_version(),
        "" if is_new_enough else "install Python 3.11 or newer, then `make setup`",
    )


def _package(name: str, cure: str, is_needed: bool = True) -> Check:
    missing = Verdict.PROBLEM if is_needed else Verdict.WARNING
    try:
        importlib.import_module(name)
    except ImportError as err:
        return Check(name, missing, f"cannot be imported: {err}", cure)
    try:
        return Check(name, Verdict.OK, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, Verdict.OK, "installed")


def _cuda() -> Check:
    try:
        import torch
    except ImportError:
        return Check("cuda", Verdict.WARNING, "unknown without torch")
    if torch.cuda.is_available():
        return Check("cuda", Verdict.OK, torch.cuda.get_device_name())
    cure = "fine for the default checkpoint; the 1.3B model needs a GPU"
    return Check("cuda", Verdict.WARNING, "no device", cure)


def _program(names: tuple[str, ...], cure: str, is_needed: bool) -> Check:
    beside_python = Path(sys.executable).parent / names[0]
    places: list[Callable[[], str | None]] = [
        lambda: str(beside_python) if beside_python.is_file() else None,
        *(lambda name=name: shutil.which(name) for name in names),  # type: ignore[misc]
    ]
    found = next((place for look in places if (place := look())), None)
    if found:
        return Check(names[0], Verdict.OK, found)
    return Check(names[0], Verdict.PROBLEM if is_needed else Verdict.WARNING, "not found", cure)


def _label_studio() -> Check:
    try:
        return Check("label-studio", Verdict.OK, str(label_studio_program()))
    except StackError as err:
        return Check("label-studio", Verdict.PROBLEM, str(err), "make setup")


def _checkpoint(name: str) -> Check:
    from segvigen_model.errors import SegvigenError

    try:
        from segvigen_model.checkpoints.loading import load

        bundle = load(name)
    except (SegvigenError, OSError, ImportError) as err:
        return Check(f"checkpoint {name}", Verdict.PROBLEM, str(err), "see the model card")
    return Check(f"checkpoint {name}", Verdict.OK, f"sha256 {bundle.sha256[:12]}")


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home, *home.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.0f} GiB free at {place}"
    if free >= MIN_FREE_BYTES:
        return Check("disk", Verdict.OK, found)
    return Check("disk", Verdict.WARNING, found, f"free {MIN_FREE_BYTES / 2**30:.0f} GiB")


def _services(home: Path) -> Iterator[Check]:
    for status in LocalStack(home).status() if home.is_dir() else ():
        where = status.url or (f"pid {status.pid}" if status.pid else "not running")
        cure = "" if status.is_running else f"`segvigen up`; log: {status.log}"
        verdict = Verdict.OK if status.is_running else Verdict.WARNING
        yield Check(f"service {status.name}", verdict, where, cure)
    try:
        free_port()
    except StackError as err:
        yield Check("ports", Verdict.PROBLEM, str(err))
    else:
        yield Check("ports", Verdict.OK, "free ones on 127.0.0.1")
