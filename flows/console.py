"""What the command line shows: tables, a progress bar, the state of everything as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from infra.local import LocalStack
    from tasks.catalogue import AssetRow
    from tasks.settings import Settings

out = Console()
err = Console(stderr=True)
MAX_WHY_CHARS = 140  # in a table; JSON has the whole text
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def plain(text: str) -> str:
    """Foreign text for the terminal: no markup of ours, no control characters of theirs."""
    return escape("".join(char if char.isprintable() or char == "\n" else "�" for char in text))


def short(text: str) -> str:
    """Foreign text on one line of a table, cut at its end."""
    line = " ".join(text.split())
    return plain(line if len(line) <= MAX_WHY_CHARS else f"{line[: MAX_WHY_CHARS - 1]}…")


def complain(kind: str, error: Exception) -> None:
    """One red line on standard error."""
    err.print(f"[bold red]{kind}:[/] {plain(str(error))}", soft_wrap=True)


def table(title: str, *columns: str) -> Table:
    """An empty table in the house's look."""
    made = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        made.add_column(column, no_wrap=number == 0, overflow="fold")
    return made


@contextmanager
def progress_bar() -> Iterator[None]:
    """Show the progress of every stage that runs inside, on standard error."""
    from flows.runtime.report import listening

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=err) as bar:
        tasks: dict[str, Any] = {}

        def listen(stage: str, finished: int, total: int) -> None:
            if stage not in tasks or finished == 0:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=finished, total=total)

        with listening(listen):
            yield


def read_state(settings: Settings, home: Path) -> dict[str, Any]:
    """Everything that `segvigen status` tells, JSON-able."""
    from infra.local import LocalStack
    from tasks.workspace import open_catalogue

    catalogue = open_catalogue(settings)
    raw = catalogue.raw.all()
    # Copies for quality control are reviewed, but they are no assets of the dataset.
    copies = catalogue.quality.copy_ids()
    found = catalogue.quality.dataset_counts()
    counts = {str(state): number for state, number in found.items()}
    parked = [row for row in catalogue.assets() if row.reason and row.asset_id not in copies]
    stack = LocalStack(home)
    services = stack.status() if home.is_dir() else []
    return {
        "assets": counts,
        "total": sum(counts.values()),
        "raw_objects": len(raw),
        "label_sets": sum(row.asset_id not in copies for row in catalogue.labels.all()),
        "copies": len(copies),
        "parked": [_trouble(row) for row in parked],
        "failing": [_trouble(row) for row in catalogue.assets() if _is_failing(row)],
        "shards": [
            {
                "dataset": version.dataset,
                "version": version.version,
                "manifest_key": version.manifest_key,
                "sha256": version.sha256,
                "samples": version.num_samples,
                "size_bytes": version.size_bytes,
            }
            for version in catalogue.labels.shard_versions()
        ],
        "services": [
            {"name": row.name, "is_running": row.is_running, "url": row.url, "pid": row.pid}
            for row in services
        ],
    }


def _is_failing(row: AssetRow) -> bool:
    """Did it go wrong last time, and will it be tried again?"""
    return bool(row.last_error) and not row.reason


def _trouble(row: AssetRow) -> dict[str, Any]:
    return {
        "asset": row.asset_id,
        "name": row.name,
        "state": str(row.state),
        "reason": row.reason,
        "detail": row.detail,
        "last_error": row.last_error,
        "attempts": row.attempts,
    }


def show_state(state: Mapping[str, Any]) -> None:
    """Print `read_state` for people."""
    assets = table("Assets", "state", "number")
    for name, number in state["assets"].items():
        if number:
            assets.add_row(name, str(number))
    assets.add_row("[bold]total", f"[bold]{state['total']}")
    out.print(assets)
    for title, word in (("Parked", "reason"), ("Failing, will be tried again", "attempts")):
        rows = state[title.partition(",")[0].lower()]
        troubles = table(title, "asset", "name", "state", word, "why")
        for row in rows:
            why = short(row["detail"] or row["last_error"] or "")
            known = row["asset"][:12], plain(row["name"]), row["state"], str(row[word])
            troubles.add_row(*known, why)
        if rows:
            out.print(troubles)
    shards = table("Shards", "dataset", "version", "samples", "MB")
    for row in state["shards"]:
        size = f"{row['size_bytes'] / 1e6:.1f}"
        shards.add_row(row["dataset"], row["version"], str(row["samples"]), size)
    out.print(shards)
    services = table("Services", "name", "state", "where")
    for row in state["services"]:
        running = "[green]running" if row["is_running"] else "[red]stopped"
        services.add_row(
            row["name"], running, row["url"] or (f"pid {row['pid']}" if row["pid"] else "")
        )
    out.print(services)


def show_checks(checks: Iterable[Check]) -> bool:
    """Print the doctor's table; True if nothing stands in the way."""
    shown = table("segvigen doctor", "what", "", "found", "what to do")
    is_fine = True
    for check in checks:
        style = STYLES[check.verdict]
        shown.add_row(
            check.name, f"[{style}]{check.verdict}", plain(check.found), plain(check.cure)
        )
        is_fine &= check.verdict != "problem"
    out.print(shown)
    return is_fine


def check_as_dict(check: Check) -> dict[str, str]:
    """JSON-able form of one of the doctor's lines."""
    return {
        "name": check.name,
        "verdict": str(check.verdict),
        "found": check.found,
        "cure": check.cure,
    }


def show_access(stack: LocalStack) -> None:
    """Print where people look: URLs and the local user."""
    from infra.home import load_secrets

    secrets = load_secrets(stack.home)
    where = table("Local stack", "what", "where")
    for row in stack.status():
        where.add_row(row.name, row.url or (f"pid {row.pid}" if row.pid else "[red]not running"))
    out.print(where)
    out.print(
        f"Label Studio user {secrets.label_studio_username}, "
        f"password {secrets.label_studio_password} (kept in {stack.home / 'secrets.json'})",
        highlight=False,
        soft_wrap=True,
    )


def show_report(report: Mapping[str, Any]) -> None:
    """Print a stage's counts."""
    counts = ", ".join(
        f"{number} {name}" for name, number in report.get("counts", {}).items() if number
    )
    out.print(
        f"{report.get('stage', 'label_dataset')}: {counts or 'nothing to do'}"
        f" ({report.get('seconds', 0)} s)"
    )
    if report.get("note"):
        out.print(plain(str(report["note"])), highlight=False, soft_wrap=True)


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"  # something optional is missing
    PROBLEM = "problem"  # the local stack or the model will not work


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's table; `cure` says what to do."""

    name: str
    verdict: Verdict
    found: str
    cure: str = ""
