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
from tasks.quality.gate import compute_audited_threshold
from tasks.quality.queue import count_open_tasks
from tasks.workspace import Workspace

VERDICTS = ("accept", "refine", "reject", "skip")
COLUMNS = (  # beside the reviewer's name
    *("tasks", "minutes", "median s", "clicks"),
    *VERDICTS,
    *("gold IoU", "agreement", "disputed"),
)


@dataclass(frozen=True, slots=True)
class ReviewerRow:
    """One person's work.

    Attributes:
        annotations: tasks answered, skipped ones included.
        seconds: sum of lead times; median_s of one answer.
        clicks: sum of usable ones.
        verdicts: accept, refine, reject, skip -> number.
        gold_iou: mean over gold tasks, None without any; num_gold of them.
        agreement: mean matched IoU with other people's labels of the same proposals; num_pairs.
        num_disputed: pairs that led to a third review.
    """

    reviewer: str
    annotations: int
    seconds: float
    median_s: float
    clicks: int
    verdicts: Mapping[str, int]
    gold_iou: float | None = None
    num_gold: int = 0
    agreement: float | None = None
    num_pairs: int = 0
    num_disputed: int = 0


@dataclass(slots=True)
class _Sums:
    seconds: list[float] = field(default_factory=list)
    clicks: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    gold: list[float] = field(default_factory=list)
    pairs: list[float] = field(default_factory=list)
    disputed: int = 0


def build_reviewer_table(catalogue: Catalogue) -> list[ReviewerRow]:
    """One row for every person who answered, most answers first."""
    sums: dict[str, _Sums] = {}
    clicks = catalogue.quality.count_clicks()
    for annotation in catalogue.quality.list_annotations():
        own_sums = sums.setdefault(annotation.reviewer, _Sums())
        own_sums.seconds.append(annotation.lead_time_s)
        own_sums.clicks += clicks.get((annotation.unique_id, annotation.updated_at), 0)
        own_sums.verdicts[annotation.verdict or "none"] += 1
    for found in catalogue.quality.list_findings():
        _add_finding(found, sums)
    rows = [_make_row(name, own_sums) for name, own_sums in sums.items() if own_sums.seconds]
    return sorted(rows, key=lambda row: (-row.annotations, row.reviewer))


def build_quality_state(workspace: Workspace) -> dict[str, Any]:
    """Everything that `segvigen report` tells, JSON-able."""
    catalogue, threshold = workspace.catalogue, compute_audited_threshold(workspace)
    pairs = [
        row for row in catalogue.quality.list_findings(FindingKind.DOUBLE) if row.iou is not None
    ]
    gold = [row for row in catalogue.quality.list_findings(FindingKind.GOLD) if row.iou is not None]
    gains = [
        row for row in catalogue.quality.list_findings(FindingKind.GAIN) if row.iou is not None
    ]
    counts = catalogue.count_assets()
    return {
        "reviewers": [asdict(row) for row in build_reviewer_table(catalogue)],
        "queue": {
            "waiting": counts[AssetState.PROPOSED],
            "open_in_project": count_open_tasks(catalogue),
            "max_open_tasks": workspace.settings.quality.max_open_tasks,
        },
        "reviews": {
            "measured": len(gains),
            "mean_gain": _compute_mean([1 - (r.iou or 0) for r in gains]),
        },
        "audits": {
            "last": threshold.num_audits,
            "misses": threshold.num_misses,
            "required_confidence": round(threshold.required, 4),
        },
        "double_annotations": {
            "planned": len(catalogue.quality.list_copies(CopyRole.DOUBLE)),
            "compared": len(pairs),
            "disputed": sum(not row.is_good for row in pairs),
            "mean_iou": _compute_mean([row.iou or 0 for row in pairs]),
            "mean_boundary_f1": _compute_mean(
                [r.boundary_f1 for r in pairs if r.boundary_f1 is not None]
            ),
        },
        "gold_tasks": {
            "planted": len(catalogue.quality.list_copies(CopyRole.GOLD)),
            "answered": len(gold),
            "missed": sum(not row.is_good for row in gold),
            "mean_iou": _compute_mean([row.iou or 0 for row in gold]),
        },
    }


def render_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Reviewers (as `build_quality_state` gives them) as a table for an artifact."""
    lines = ["| reviewer | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for row in rows:
        name = str(row["reviewer"]).replace("|", "\\|").replace("\n", " ")
        cells = [name, *format_reviewer_cells(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def format_reviewer_cells(row: Mapping[str, Any]) -> list[str]:
    """The numbers of one reviewer as text, in the order of the table's columns."""
    return [
        str(row["annotations"]),
        f"{row['seconds'] / 60:.1f}",
        f"{row['median_s']:.0f}",
        str(row["clicks"]),
        *(str(row["verdicts"].get(verdict, 0)) for verdict in VERDICTS),
        _format_score(row["gold_iou"], row["num_gold"]),
        _format_score(row["agreement"], row["num_pairs"]),
        str(row["num_disputed"]),
    ]


def _format_score(value: float | None, count: int) -> str:
    return "-" if value is None else f"{value:.2f} ({count})"


def _add_finding(found: FindingRow, sums: dict[str, _Sums]) -> None:
    if found.iou is None:
        return
    if found.kind is FindingKind.GOLD:
        sums.setdefault(found.reviewer, _Sums()).gold.append(found.iou)
    if found.kind is FindingKind.DOUBLE and found.reviewer != found.other:
        for name in (found.reviewer, found.other):
            sums_of_reviewer = sums.setdefault(name, _Sums())
            sums_of_reviewer.pairs.append(found.iou)
            sums_of_reviewer.disputed += not found.is_good


def _make_row(reviewer: str, sums: _Sums) -> ReviewerRow:
    return ReviewerRow(
        reviewer=reviewer,
        annotations=len(sums.seconds),
        seconds=round(sum(sums.seconds), 1),
        median_s=round(float(np.median(sums.seconds)), 1),
        clicks=sums.clicks,
        verdicts=dict(sums.verdicts),
        gold_iou=_compute_mean(sums.gold),
        num_gold=len(sums.gold),
        agreement=_compute_mean(sums.pairs),
        num_pairs=len(sums.pairs),
        num_disputed=sums.disputed,
    )


def _compute_mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
