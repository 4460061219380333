"""Rows of a large catalogue, for `bench_scale.py`: made by number, written in bulk."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

MAX_ACCEPTED = 100_000
NUM_OPEN_ANSWERS = 20
# Of 1000 assets that are not accepted.
STATES = (
    *("rejected",) * 50,
    *("failed",) * 10,
    *("skipped",) * 10,
    *("in_review",) * 10,
    *("refining",) * 2,
    *("encoded",) * 100,
    *("proposed",) * 200,
    *("registered",) * 618,
)
WITH_PROPOSAL = ("proposed", "in_review", "refining", "accepted")


def make_id(number: int) -> str:
    """Asset id."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def make_key(number: int) -> str:
    """Key in the raw bucket."""
    return f"folder-{number // 1000:05d}/object-{number:08d}.glb"


def make_etag(number: int) -> str:
    """ETag of that object."""
    return f"{number:032x}"


def state_of(number: int, num_accepted: int) -> str:
    """State of an asset."""
    return "accepted" if number < num_accepted else STATES[number * 7 % 1000]


def make_tables(rows: int) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """Names of tables and their rows, by column."""
    num_accepted = min(MAX_ACCEPTED, rows // 2)
    states = [(number, state_of(number, num_accepted)) for number in range(rows)]
    yield "assets", (make_asset(number, state) for number, state in states)
    yield "raw_objects", (make_raw(number, state) for number, state in states)
    proposed = (number for number, state in states if state in WITH_PROPOSAL)
    yield "proposals", (make_proposal(number) for number in proposed)
    yield "label_sets", (make_labels(number) for number in range(num_accepted))
    yield "annotations", (make_answer(number) for number in range(num_accepted))


def make_asset(number: int, state: str) -> dict[str, Any]:
    """A row of `assets`."""
    is_parked = state in ("rejected", "failed", "skipped")
    return {
        "asset_id": make_id(number),
        "state": state,
        "round": 0,
        "name": f"object-{number:08d}.glb",
        "suffix": "glb",
        "source_key": f"assets/{make_id(number)}/source.glb",
        "size_bytes": 100_000,
        "num_faces": 5000,
        "licence": "CC0-1.0",
        "priority": number * 7919 % 1000 / 1000,
        "reason": "no_faces" if is_parked else None,
        "detail": "the file holds no faces; export it again" if is_parked else None,
        "parked_from": "registered" if is_parked else None,
        "attempts": 0,
        "last_error": "StageError: the encoder ran out of time" if state == "failed" else None,
        "is_started": False,
        "lease_until": 0.0,
        "created_at": 1.7e9 + number,
        "updated_at": 1.7e9 + number,
    }


def make_raw(number: int, state: str) -> dict[str, Any]:
    """A row of `raw_objects`."""
    found = {"key": make_key(number), "etag": make_etag(number), "size_bytes": 100_000}
    reason = "no_faces" if state == "rejected" else None
    return {**found, "asset_id": make_id(number), "reason": reason, "seen_at": 1.7e9}


def make_proposal(number: int) -> dict[str, Any]:
    """A row of `proposals`."""
    return {
        "asset_id": make_id(number),
        "round": 0,
        "key": f"proposals/{make_id(number)}/0.npz",
        "sha256": make_id(number + 1),
        "num_parts": 5,
        "confidence": 0.5,
        "checkpoint": "c" * 64,
        "provenance": '{"seed": 0}',
        "created_at": 1.7e9,
    }


def make_labels(number: int) -> dict[str, Any]:
    """A row of `label_sets`."""
    return {
        "label_id": make_id(-number - 1),
        "asset_id": make_id(number),
        "key": f"labels/{make_id(number)}.npz",
        "sha256": make_id(number + 2),
        "provenance_key": f"labels/{make_id(number)}.json",
        "proposal_key": f"proposals/{make_id(number)}/0.npz",
        "num_parts": 5,
        "num_clicks": 3,
        "num_rounds": 1,
        "seconds": 20.0,
        "decided_by": "ann",
        "created_at": 1.7e9 + number,
    }


def make_answer(number: int) -> dict[str, Any]:
    """A row of `annotations`."""
    is_read = number >= NUM_OPEN_ANSWERS
    return {
        "unique_id": f"u{number}",
        "updated_at": "2026-11-30T00:00:00Z",
        "annotation_id": number,
        "task_id": number,
        "asset_id": make_id(number),
        "round": 0,
        "reviewer": "ann",
        "raw": '{"result": []}',
        "lead_time_s": 20.0,
        "was_cancelled": False,
        "verdict": "accept" if is_read else None,
        "note": "",
        "is_interpreted": is_read,
        "created_at": 1.7e9,
    }


def fill_sqlite(path: str, rows: int) -> None:
    """Write all rows into the tables of a catalogue that is empty."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for table, made in make_tables(rows):
            first = next(made)
            columns, marks = ", ".join(first), ", ".join("?" * len(first))
            statement = f"INSERT INTO {table} ({columns}) VALUES ({marks})"
            connection.executemany(statement, (tuple(row.values()) for row in chain(first, made)))
            connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def fill_postgresql(url: str, rows: int) -> None:
    """Write all rows into the tables of a catalogue that is empty, and collect statistics."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for table, made in make_tables(rows):
            first = next(made)
            with connection.cursor().copy(f"COPY {table} ({', '.join(first)}) FROM STDIN") as copy:
                for row in chain(first, made):
                    copy.write_row(tuple(row.values()))
        connection.execute("VACUUM ANALYZE")


def chain(first: dict[str, Any], rest: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The first row and the others."""
    yield first
    yield from rest
