"""What the reviews cost and how good they are: one row a reviewer, and the state of every check.

Seconds are Label Studio's lead times: while the task was open, idle minutes included. Agreement
counts only pairs of two different people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tasks.catalogue import AssetState, Catalogue, CopyRole, FindingKind, FindingRow
from tasks.quality.gate import trust
from tasks.quality.queue import num_open_tasks
from tasks.workspace import Workspace

VERDICTS = ("accept", "refine", "reject", "skip")
COLUMNS = (  # beside the reviewer's name
    *("tasks", "minutes", "median s", "clicks"),
    *VERDICTS,
    *("known IoU", "agreement", "disputed"),
)


@dataclass(frozen=True, slots=True)
class ReviewerRow:
    """One person's work.

    Attributes:
        answers: tasks answered, skipped ones included.
        seconds: sum of lead times; median_s of one answer.
        clicks: sum of usable ones.
        verdicts: accept, refine, reject, skip -> number.
        known_iou: mean over known tasks, None without any; num_known of them.
        agreement: mean matched IoU with other people's labels of the same proposals; num_pairs.
        num_disputed: pairs that led to a third look.
    """

    reviewer: str
    answers: int
    seconds: float
    median_s: float
    clicks: int
    verdicts: Mapping[str, int]
    known_iou: float | None = None
    num_known: int = 0
    agreement: float | None = None
    num_pairs: int = 0
    num_disputed: int = 0


@dataclass(slots=True)
class _Sums:
    seconds: list[float] = field(default_factory=list)
    clicks: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    known: list[float] = field(default_factory=list)
    pairs: list[float] = field(default_factory=list)
    disputed: int = 0


def reviewer_table(catalogue: Catalogue) -> list[ReviewerRow]:
    """One row for every person who answered, most answers first."""
    sums: dict[str, _Sums] = {}
    clicks = catalogue.quality.click_counts()
    for answer in catalogue.quality.answers():
        mine = sums.setdefault(answer.reviewer, _Sums())
        mine.seconds.append(answer.lead_time_s)
        mine.clicks += clicks.get((answer.unique_id, answer.updated_at), 0)
        mine.verdicts[answer.verdict or "none"] += 1
    for found in catalogue.quality.findings():
        _add_finding(found, sums)
    rows = [_row(name, mine) for name, mine in sums.items() if mine.seconds]
    return sorted(rows, key=lambda row: (-row.answers, row.reviewer))


def quality_state(workspace: Workspace) -> dict[str, Any]:
    """Everything that `segvigen report` tells, JSON-able."""
    catalogue, trusted = workspace.catalogue, trust(workspace)
    pairs = [row for row in catalogue.quality.findings(FindingKind.SECOND) if row.iou is not None]
    known = [row for row in catalogue.quality.findings(FindingKind.KNOWN) if row.iou is not None]
    gains = [row for row in catalogue.quality.findings(FindingKind.GAIN) if row.iou is not None]
    counts = catalogue.counts()
    return {
        "reviewers": [asdict(row) for row in reviewer_table(catalogue)],
        "queue": {
            "waiting": counts[AssetState.PROPOSED],
            "on_the_desk": num_open_tasks(catalogue),
            "max_open_tasks": workspace.settings.quality.max_open_tasks,
        },
        "reviews": {"measured": len(gains), "mean_gain": _mean([1 - (r.iou or 0) for r in gains])},
        "audits": {
            "last": trusted.num_audits,
            "misses": trusted.num_misses,
            "required_confidence": round(trusted.required, 4),
        },
        "second_looks": {
            "planned": len(catalogue.quality.copies(CopyRole.SECOND)),
            "compared": len(pairs),
            "disputed": sum(not row.is_good for row in pairs),
            "mean_iou": _mean([row.iou or 0 for row in pairs]),
            "mean_boundary_f1": _mean([r.boundary_f1 for r in pairs if r.boundary_f1 is not None]),
        },
        "known_tasks": {
            "planted": len(catalogue.quality.copies(CopyRole.KNOWN)),
            "answered": len(known),
            "missed": sum(not row.is_good for row in known),
            "mean_iou": _mean([row.iou or 0 for row in known]),
        },
    }


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Reviewers (as `quality_state` gives them) as a table for an artifact."""
    lines = ["| reviewer | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for row in rows:
        name = str(row["reviewer"]).replace("|", "\\|").replace("\n", " ")
        cells = [name, *reviewer_cells(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def reviewer_cells(row: Mapping[str, Any]) -> list[str]:
    """The numbers of one reviewer as text, in the order of the table's columns."""
    return [
        str(row["answers"]),
        f"{row['seconds'] / 60:.1f}",
        f"{row['median_s']:.0f}",
        str(row["clicks"]),
        *(str(row["verdicts"].get(verdict, 0)) for verdict in VERDICTS),
        _scored(row["known_iou"], row["num_known"]),
        _scored(row["agreement"], row["num_pairs"]),
        str(row["num_disputed"]),
    ]


def _scored(value: float | None, count: int) -> str:
    return "-" if value is None else f"{value:.2f} ({count})"


def _add_finding(found: FindingRow, sums: dict[str, _Sums]) -> None:
    if found.iou is None:
        return
    if found.kind is FindingKind.KNOWN:
        sums.setdefault(found.reviewer, _Sums()).known.append(found.iou)
    if found.kind is FindingKind.SECOND and found.reviewer != found.other:
        for name in (found.reviewer, found.other):
            mine = sums.setdefault(name, _Sums())
            mine.pairs.append(found.iou)
            mine.disputed += not found.is_good


def _row(reviewer: str, mine: _Sums) -> ReviewerRow:
    return ReviewerRow(
        reviewer=reviewer,
        answers=len(mine.seconds),
        seconds=round(sum(mine.seconds), 1),
        median_s=round(float(np.median(mine.seconds)), 1),
        clicks=mine.clicks,
        verdicts=dict(mine.verdicts),
        known_iou=_mean(mine.known),
        num_known=len(mine.known),
        agreement=_mean(mine.pairs),
        num_pairs=len(mine.pairs),
        num_disputed=mine.disputed,
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
