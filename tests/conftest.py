"""Shared fixtures: real local services, started once a test session in a temporary home.

SEGVIGEN_TEST_HOME names a home folder to keep and reuse between sessions (Label Studio's first
start takes minutes); services found running there are used and left running.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.local import (
    LabelStudioEndpoint,
    PrefectEndpoint,
    S3Endpoint,
    start_label_studio,
    start_prefect,
    start_s3,
    stop_service,
)
from infra.processes import StackError
from infra.services import find_label_studio
from tasks.catalogue import Catalogue

REPOSITORY = Path(__file__).resolve().parent.parent
# Files that a test has just written are complete; tests of the waiting set this themselves.
os.environ.setdefault("SEGVIGEN_INGEST_QUIET_S", "0")
NEW_TERMS = {"second": "double", "known": "gold"}  # of revision 0003
NEW_COLUMNS = {"leased_at": 0.0, "lease_token": 0, "is_alone": False, "is_suspect": False}
NEW_COLUMNS |= {"deaths": 0, "deaths_alone": 0}


@dataclass(frozen=True)
class OldCatalogue:
    """The catalogue that commit a4d9af9 wrote; see tests/fixtures/a4d9af9/README.md."""

    folder: Path = REPOSITORY / "tests" / "fixtures" / "a4d9af9"

    def write(self, path: Path) -> str:
        """Make the SQLite file; returns its URL."""
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript((self.folder / "catalogue.sql").read_text(encoding="utf-8"))
        return f"sqlite:///{path}"

    def expected(self) -> dict[str, Any]:
        """What the old code read from it, in the terms of the present rows."""
        held: dict[str, Any] = json.loads((self.folder / "expected.json").read_text("utf-8"))
        names = ("annotations", "uninterpreted", "answers")
        held |= {name: [_with_late_column(row) for row in held[name]] for name in names}
        on_time = {_version(row) for row in held["annotations"] if not row["is_late"]}
        for name in names:  # one version was stored with and without the marker: it counts once
            held[name] = [
                row for row in held[name] if not (row["is_late"] and _version(row) in on_time)
            ]
        for row in held["shard_versions"]:
            row["build_number"] = 0  # of revision 0005
        for column, *tables in (("role", "copies", "open_seconds"), ("kind", "findings")):
            for row in (row for table in tables for row in held[table]):
                row[column] = NEW_TERMS.get(row[column], row[column])
        for row in held["assets"]:
            row |= NEW_COLUMNS
        for row in held["decisions"]:
            row["rejection_reasons"] = row.pop("doubts")
        return held

    def read(self, catalogue: Catalogue) -> dict[str, Any]:
        """Everything that the public API gives back, in JSON's types."""
        reviews, labels, quality = catalogue.reviews, catalogue.labels, catalogue.quality
        assets = catalogue.list_assets()
        names = sorted(row.asset_id for row in assets)
        versions = labels.list_shard_versions()
        read: dict[str, Any] = {
            "assets": assets,
            "proposals": [row for name in names for row in catalogue.list_proposals(name)],
            "events": catalogue.list_events(),
            "raw": catalogue.raw.list_all(),
            "tasks": reviews.list_tasks(),
            "annotations": [row for name in names for row in reviews.list_annotations(name)],
            "uninterpreted": reviews.list_uninterpreted(),
            "clicks": [row for name in names for row in reviews.list_clicks(name)],
            "verbs": [row for name in names for row in reviews.list_edit_commands(name)],
            "label_sets": labels.list_all(),
            "shard_versions": versions,
            "shard_members": [
                row for each in versions for row in labels.list_shard_members("parts", each.version)
            ],
            "checkpoints": labels.list_checkpoints(),
            "decisions": [quality.get_decision(name * 32, 0) for name in ("05", "06", "0c")],
            "copies": quality.list_copies(),
            "open_seconds": quality.list_open_doubles(),
            "gold": quality.list_gold(),
            "findings": quality.list_findings(),
            "unmeasured": quality.list_uncompared("gate"),
            "waiting": quality.list_waiting(),
            "answers": quality.list_annotations(),
        }
        read = {name: [asdict(row) for row in rows] for name, rows in read.items()}
        read |= {
            "counts": catalogue.count_assets(),
            "dataset_counts": quality.count_dataset_assets(),
        }
        read |= {
            "awaited": dict(catalogue.raw.list_awaited()),
            "etags": dict(catalogue.raw.list_etags()),
        }
        read["cursor"] = catalogue.raw.get_cursor("review:http://127.0.0.1:8080:1")
        read |= {"num_held": quality.count_held(), "refused": quality.list_contradicted()}
        read["click_counts"] = [[*key, n] for key, n in sorted(quality.count_clicks().items())]
        return json.loads(json.dumps(read))


def _version(row: dict[str, Any]) -> tuple[str, str]:
    return row["unique_id"], row["updated_at"]


def _with_late_column(row: dict[str, Any]) -> dict[str, Any]:
    plain = row["unique_id"].removesuffix("#late")
    return {**row, "unique_id": plain, "is_late": plain != row["unique_id"]}


@pytest.fixture(scope="session")
def old_catalogue() -> OldCatalogue:
    """A catalogue of version 0.1.0, to be upgraded."""
    return OldCatalogue()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data sets; tests that need it skip without it."""
    folder = Path(os.environ.get("SEGVIGEN_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set SEGVIGEN_SHARED")
    return folder


@pytest.fixture
def quick_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fine-tuning on a handful of examples of few patches."""
    from segvigen_model.training import finetune

    small = {"NUM_DRAWS": (4, 4), "NUM_VALIDATION_DRAWS": 2, "COUNTS": (40, 60), "BATCH": 1}
    for name, value in small.items():
        monkeypatch.setattr(finetune, name, value)


@pytest.fixture(scope="session")
def stack_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home folder of the services below."""
    kept = os.environ.get("SEGVIGEN_TEST_HOME")
    return Path(kept).resolve() if kept else tmp_path_factory.mktemp("stack")


def _release(home: Path, name: str) -> None:
    if "SEGVIGEN_TEST_HOME" not in os.environ:
        stop_service(home, name)


@pytest.fixture(scope="session")
def s3_server(stack_home: Path) -> Iterator[S3Endpoint]:
    """`rclone serve s3` with empty buckets `raw_bucket` and `store_bucket`."""
    try:
        endpoint = start_s3(stack_home)
    except StackError as err:
        if "not installed" in str(err):
            pytest.skip(str(err))
        raise
    yield endpoint
    for name in ("s3-reader", "s3"):
        _release(stack_home, name)


@pytest.fixture(scope="session")
def prefect_server(stack_home: Path) -> Iterator[PrefectEndpoint]:
    """A real Prefect server; clients need the variables of `.make_environment()`."""
    yield start_prefect(stack_home)
    _release(stack_home, "prefect")


@pytest.fixture(scope="session")
def label_studio(stack_home: Path) -> Iterator[LabelStudioEndpoint]:
    """A real Label Studio with one user; its first start takes minutes."""
    try:
        find_label_studio()
    except StackError as err:
        pytest.skip(str(err))
    yield start_label_studio(stack_home)
    _release(stack_home, "label-studio")


@pytest.fixture
def prefect_api(prefect_server: PrefectEndpoint) -> Iterator[str]:
    """Flows called in this test run on the real server; yields its API URL."""
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    # Heartbeats of a synchronous flow cost a second at its end.
    quick = {
        PREFECT_API_URL: prefect_server.api_url,
        PREFECT_API_AUTH_STRING: prefect_server.login,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(quick):
        yield prefect_server.api_url
