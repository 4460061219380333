"""Names of the feature columns that small networks read, so that no column can change place unseen.

A network knows a column by its place alone. So the code builds its inputs by name, the weights
store the names they were trained with, and loading compares both. Files written before names were
stored have the columns of `weights/columns.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from segvigen_model.errors import CheckpointMismatch

Column = TypeVar("Column")
Columns = Mapping[str, Sequence[str]]  # table -> its columns in order

METADATA_KEY = "segvigen"  # one entry: the order of several would not be fixed between runs
_EARLIER_COLUMNS = Path(__file__).parents[1] / "weights" / "columns.json"


def order_columns(values: Mapping[str, Column], names: Sequence[str]) -> list[Column]:
    """Columns in the order of their names.

    Raises:
        ValueError: a column has no value, or a value no column.
    """
    wrong = set(values).symmetric_difference(names)
    if wrong:
        raise ValueError(f"{sorted(wrong)} are either no columns or have no values")
    return [values[name] for name in names]


def metadata_of(settings: Mapping[str, Any], columns: Columns) -> dict[str, str]:
    """Metadata of a safetensors file: settings of a network, and the columns that it reads."""
    entry = {**settings, "columns": {table: list(names) for table, names in columns.items()}}
    return {METADATA_KEY: json.dumps(entry, sort_keys=True)}


def settings_of(metadata: Mapping[str, str] | None) -> dict[str, Any] | None:
    """What `metadata_of` stored; None for a file that was written before columns were.

    Raises:
        ValueError: the entry is damaged.
    """
    if metadata is None or METADATA_KEY not in metadata:
        return None
    entry = json.loads(metadata[METADATA_KEY])
    if not isinstance(entry, dict) or not isinstance(entry.get("columns"), dict):
        raise ValueError(f"metadata {METADATA_KEY!r} holds no columns")
    return entry


def check_columns(path: Path, stored: Columns | None, current: Columns) -> None:
    """Compare the columns of a file with those that this code computes.

    Args:
        path: the file.
        stored: its columns; None for a file that was written before columns were stored.
        current: what this code computes.

    Raises:
        CheckpointMismatch: a column is missing or at another place; the first is named.
    """
    known = _earlier_columns() if stored is None else stored
    for table, names in current.items():
        for place, was, now in _differences(known.get(table, ()), names):
            raise CheckpointMismatch(
                f"{path}: column {place} of {table} is {was} in the file and {now} in this "
                "version; take weights that were trained with these columns, or the version "
                "that trained them"
            )


def stored_columns(arrays: Mapping[str, Any], table: str) -> Columns | None:
    """Columns that an npz of training examples names; None for one written before that."""
    return {table: arrays["columns"].tolist()} if "columns" in arrays else None


def _differences(stored: Sequence[str], current: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    for place, (was, now) in enumerate(zip_longest(stored, current, fillvalue="absent")):
        if was != now:
            yield place, was, now


def _earlier_columns() -> Columns:
    columns: Columns = json.loads(_EARLIER_COLUMNS.read_text(encoding="utf-8"))
    return columns
