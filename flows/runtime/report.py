"""What a run reports: progress while it runs, a table and a summary when it ends.

Artifacts are written only inside a Prefect run, so that every stage also works without a server.
The command line receives the same progress through `listen_to_progress`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext

MAX_TABLE_ROWS = 500  # in an artifact; the catalogue holds all

# stage, finished, total
Listener = Callable[[str, int, int], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one asset in one stage.

    Attributes:
        asset_id: which.
        result: one word: the state reached, or "rejected", "failed", "lost".
        detail: the reason, for people.
        seconds: wall time.
    """

    asset_id: str
    result: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StageReport:
    """Counts of one stage's run."""

    stage: str
    counts: Mapping[str, int]
    seconds: float

    @property
    def total(self) -> int:
        """Number of assets that the stage processed."""
        return sum(self.counts.values())

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)


@contextmanager
def listen_to_progress(listener: Listener) -> Iterator[None]:
    """Call `listener(stage, finished, total)` for progress made inside."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Progress:
    """Progress of one stage.

    Args:
        stage: its name.
        total: assets known to wait at the start; more may come.
    """

    def __init__(self, stage: str, total: int) -> None:
        self.stage = stage
        self.finished = 0
        self.total = total
        self._artifact: UUID | None = None
        if FlowRunContext.get() is not None and total:
            key, about = _make_key(stage, "progress"), f"{stage}: {total} assets"
            self._artifact = cast("UUID", create_progress_artifact(0.0, key=key, description=about))
        self._notify()

    def advance(self, count: int = 1) -> None:
        """Count finished assets."""
        self.finished += count
        self.total = max(self.total, self.finished)
        self._notify()
        if self._artifact is not None:
            update_progress_artifact(self._artifact, 100.0 * self.finished / self.total)

    def _notify(self) -> None:
        listener = _listener.get()
        if listener is not None:
            listener(self.stage, self.finished, self.total)


def publish_report(stage: str, outcomes: Sequence[Outcome], seconds: float) -> StageReport:
    """Publish outcomes as artifacts of the run, and return its report."""
    counts = dict(sorted(Counter(outcome.result for outcome in outcomes).items()))
    report = StageReport(stage, counts, round(seconds, 2))
    if outcomes:
        publish_table(stage, [asdict(outcome) for outcome in outcomes], render_summary(report))
    return report


def publish_table(stage: str, rows: Sequence[Mapping[str, Any]], text: str) -> None:
    """Write the final table and summary as artifacts, inside a Prefect run."""
    if FlowRunContext.get() is None:
        return
    shown = [dict(row) for row in rows[:MAX_TABLE_ROWS]]
    create_table_artifact(shown, key=_make_key(stage, "assets"), description=f"{len(rows)} rows")
    create_markdown_artifact(text, key=_make_key(stage, "summary"))


def render_summary(report: StageReport) -> str:
    """Format a report as Markdown."""
    lines = [f"## {report.stage}", "", "| result | assets |", "|---|---:|"]
    lines += [f"| {result} | {number} |" for result, number in report.counts.items()]
    return "\n".join([*lines, "", f"{report.total} assets in {report.seconds:.1f} s"])


def _make_key(stage: str, kind: str) -> str:
    return f"{stage.replace('_', '-')}-{kind}"
