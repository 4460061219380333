"""`segvigen doctor` of a checkout: the library's checks, then those of the pipeline."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from flows.cli.options import Home
from infra.local import DEFAULT_HOME, LocalStack
from infra.processes import StackError, find_free_port
from infra.services import find_label_studio
from segvigen_model.command.doctor import Check, CheckVerdict, check_library, check_package
from segvigen_model.command.doctor import report as report_checks
from segvigen_model.command.options import AsJson

app = typer.Typer()

MIN_FREE_BYTES = 5 * 2**30  # Label Studio's environment, ours, and a small dataset
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@app.command()
def doctor(home: Home = DEFAULT_HOME, checkpoint: str = "default", as_json: AsJson = False) -> None:
    """Check this machine and list what to install."""
    report_checks(check_machine(home, checkpoint), as_json)


def check_machine(home: Path, checkpoint: str = "default") -> Iterator[Check]:
    """Run every check, one at a time."""
    yield from check_library(checkpoint)
    yield check_package("prefect", "pip install -e '.[pipeline]'")
    reader = "pip install webdataset, to read shards with it"
    yield check_package("webdataset", reader, is_needed=False)
    yield _check_program(("rclone",), "pip install -e '.[local]'", True)
    yield _check_program(BROWSERS, "only browser tests need it: apt-get install chromium", False)
    yield _check_label_studio()
    yield _check_disk(home)
    yield from _check_services(home)


def _check_program(names: tuple[str, ...], hint: str, is_needed: bool) -> Check:
    beside_python = Path(sys.executable).parent / names[0]
    found = str(beside_python) if beside_python.is_file() else None
    found = found or next(filter(None, map(shutil.which, names)), None)
    if found:
        return Check(names[0], CheckVerdict.OK, found)
    return Check(
        names[0], CheckVerdict.PROBLEM if is_needed else CheckVerdict.WARNING, "not found", hint
    )


def _check_label_studio() -> Check:
    try:
        return Check("label-studio", CheckVerdict.OK, str(find_label_studio()))
    except StackError as err:
        return Check("label-studio", CheckVerdict.PROBLEM, str(err), "make setup")


def _check_disk(home: Path) -> Check:
    place = next(folder for folder in (home, *home.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.0f} GiB free at {place}"
    if free >= MIN_FREE_BYTES:
        return Check("disk", CheckVerdict.OK, found)
    return Check("disk", CheckVerdict.WARNING, found, f"free {MIN_FREE_BYTES / 2**30:.0f} GiB")


def _check_services(home: Path) -> Iterator[Check]:
    for status in LocalStack(home).list_status() if home.is_dir() else ():
        where = status.url or (f"pid {status.pid}" if status.pid else "not running")
        hint = "" if status.is_running else f"`segvigen up`; log: {status.log}"
        verdict = CheckVerdict.OK if status.is_running else CheckVerdict.WARNING
        yield Check(f"service {status.name}", verdict, where, hint)
    try:
        find_free_port()
    except StackError as err:
        yield Check("ports", CheckVerdict.PROBLEM, str(err))
    else:
        yield Check("ports", CheckVerdict.OK, "free ones on 127.0.0.1")
