"""What the reviews cost and how good they are: tables, one row a reviewer, the state of each check.

Seconds are Label Studio's lead times: while the task was open, idle minutes included. Agreement
counts only pairs of two different people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from segvigen_model.errors import MissingExtra
from tasks.catalogue import AssetRow, AssetState, Catalogue, CopyRole, FindingKind, FindingRow
from tasks.quality.gate import compute_audited_threshold
from tasks.quality.queue import count_open_tasks
from tasks.workspace import Workspace

VERDICTS = ("accept", "refine", "reject", "skip")
COLUMNS = (  # beside the reviewer's name
    *("tasks", "minutes", "median s", "clicks"),
    *VERDICTS,
    *("gold IoU", "agreement", "disputed"),
)
ANNOTATION_COLUMNS = ("asset_id", "round", "reviewer", "updated_at", "verdict", "seconds", "clicks")
DECIMALS = {"seconds": 1, "median_s": 1, "gold_iou": 4, "agreement": 4}
COUNTS = ("num_gold", "num_pairs", "num_disputed")


def load_annotations(catalogue: Catalogue) -> pd.DataFrame:
    """One row per annotation that counts, oldest first; `seconds` of lead time, usable clicks."""
    clicks = catalogue.quality.count_clicks()
    rows = [
        (
            *(row.asset_id, row.round, row.reviewer, row.updated_at, row.verdict or "none"),
            *(row.lead_time_s, clicks.get((row.unique_id, row.updated_at), 0)),
        )
        for row in catalogue.quality.list_annotations()
    ]
    return pd.DataFrame(rows, columns=list(ANNOTATION_COLUMNS))


def load_findings(catalogue: Catalogue) -> pd.DataFrame:
    """One row per comparison of label sets; columns as the fields of `FindingRow`."""
    return _make_table(FindingRow, catalogue.quality.list_findings())


def build_reviewer_table(annotations: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """One row for every person who annotated, most annotations first.

    Args:
        annotations: of `load_annotations`.
        findings: of `load_findings`.

    Returns:
        reviewer; annotations with skipped ones; sum of seconds, median_s of one; usable clicks;
        gold_iou, mean over num_gold gold tasks; agreement, mean IoU with other people's labels of
        the same proposals, over num_pairs; num_disputed of these. Means are NaN without any.
    """
    table = annotations.groupby("reviewer").agg(
        annotations=("seconds", "size"),
        seconds=("seconds", "sum"),
        median_s=("seconds", "median"),
        clicks=("clicks", "sum"),
    )
    measured = findings[findings["iou"].notna()]
    gold = measured[measured["kind"] == FindingKind.GOLD].groupby("reviewer")
    pairs = measured[measured["kind"] == FindingKind.DOUBLE]
    pairs = pairs[pairs["reviewer"] != pairs["other"]].assign(is_bad=~pairs["is_good"])
    both = pd.concat([pairs, pairs.assign(reviewer=pairs["other"])]).groupby("reviewer")
    table = table.join(gold.agg(gold_iou=("iou", "mean"), num_gold=("iou", "size")))
    table = table.join(
        both.agg(
            agreement=("iou", "mean"), num_pairs=("iou", "size"), num_disputed=("is_bad", "sum")
        )
    )
    table[list(COUNTS)] = table[list(COUNTS)].fillna(0).astype(int)
    return table.reset_index().sort_values(["annotations", "reviewer"], ascending=[False, True])


def write_tables(catalogue: Catalogue, folder: Path) -> list[Path]:
    """Write assets, annotations, findings and reviewers as Parquet files, for a notebook.

    Args:
        catalogue: what they are made from.
        folder: made when absent; files that are there are replaced.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    annotations, findings = load_annotations(catalogue), load_findings(catalogue)
    tables = {
        "assets": _make_table(AssetRow, catalogue.list_assets()),
        "annotations": annotations,
        "findings": findings,
        "reviewers": build_reviewer_table(annotations, findings),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        try:
            table.to_parquet(folder / f"{name}.parquet", engine="pyarrow", index=False)
        except ImportError as err:
            raise MissingExtra("pyarrow", "pip install -e '.[tables]'") from err
    return [folder / f"{name}.parquet" for name in tables]


def build_quality_state(workspace: Workspace) -> dict[str, Any]:
    """Everything that `segvigen report` shows, JSON-able."""
    catalogue, threshold = workspace.catalogue, compute_audited_threshold(workspace)
    annotations, findings = load_annotations(catalogue), load_findings(catalogue)
    measured = findings[findings["iou"].notna()]
    pairs, gold, gains = (
        measured[measured["kind"] == kind]
        for kind in (FindingKind.DOUBLE, FindingKind.GOLD, FindingKind.GAIN)
    )
    counts = catalogue.count_assets()
    return {
        "reviewers": _make_reviewer_rows(annotations, findings),
        "queue": {
            "waiting": counts[AssetState.PROPOSED],
            "open_in_project": count_open_tasks(catalogue),
            "max_open_tasks": workspace.settings.quality.max_open_tasks,
        },
        "reviews": {"measured": len(gains), "mean_gain": _mean(1 - gains["iou"])},
        "audits": {
            "last": threshold.num_audits,
            "misses": threshold.num_misses,
            "required_confidence": round(threshold.required, 4),
        },
        "double_annotations": {
            "planned": len(catalogue.quality.list_copies(CopyRole.DOUBLE)),
            "compared": len(pairs),
            "disputed": int((~pairs["is_good"]).sum()),
            "mean_iou": _mean(pairs["iou"]),
            "mean_boundary_f1": _mean(pairs["boundary_f1"].dropna()),
        },
        "gold_tasks": {
            "planted": len(catalogue.quality.list_copies(CopyRole.GOLD)),
            "answered": len(gold),
            "missed": int((~gold["is_good"]).sum()),
            "mean_iou": _mean(gold["iou"]),
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


def _make_table(kind: type[Any], rows: Sequence[Any]) -> pd.DataFrame:
    """A table with the fields of a catalogue row as columns, in plain types."""
    names = [each.name for each in fields(kind)]
    values = [[getattr(row, name) for name in names] for row in rows]
    table = pd.DataFrame(values, columns=names)
    for name in ("kind", "state"):
        if name in table:
            table[name] = table[name].astype(str)
    for name in ("iou", "boundary_f1", "confidence"):
        if name in table:
            table[name] = table[name].astype(float)
    return table.astype({name: bool for name in names if name.startswith("is_")})


def _make_reviewer_rows(annotations: pd.DataFrame, findings: pd.DataFrame) -> list[dict[str, Any]]:
    """The table of reviewers, JSON-able, with the number of each verdict that they gave."""
    table = build_reviewer_table(annotations, findings).round(DECIMALS)
    table = table.astype(object).where(table.notna(), None)
    given = annotations.groupby("reviewer")["verdict"].value_counts()
    verdicts = {
        reviewer: {str(verdict): int(number) for verdict, number in given[reviewer].items()}
        for reviewer in table["reviewer"]
    }
    rows: list[dict[str, Any]] = table.assign(verdicts=table["reviewer"].map(verdicts)).to_dict(
        "records"
    )  # type: ignore[assignment]  # the names of our columns are strings
    return rows


def _mean(values: pd.Series[float]) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None
