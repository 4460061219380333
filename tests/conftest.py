"""Shared fixtures: real local services, started once a test session in a temporary home.

SEGVIGEN_TEST_HOME names a home folder to keep and reuse between sessions (Label Studio's first
start takes minutes); services found running there are used and left running.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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
from infra.services import label_studio_program

REPOSITORY = Path(__file__).resolve().parent.parent


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
    _release(stack_home, "s3")


@pytest.fixture(scope="session")
def prefect_server(stack_home: Path) -> Iterator[PrefectEndpoint]:
    """A real Prefect server; point PREFECT_API_URL at `.api_url`."""
    yield start_prefect(stack_home)
    _release(stack_home, "prefect")


@pytest.fixture(scope="session")
def label_studio(stack_home: Path) -> Iterator[LabelStudioEndpoint]:
    """A real Label Studio with one user; its first start takes minutes."""
    try:
        label_studio_program()
    except StackError as err:
        pytest.skip(str(err))
    yield start_label_studio(stack_home)
    _release(stack_home, "label-studio")


@pytest.fixture
def prefect_api(prefect_server: PrefectEndpoint) -> Iterator[str]:
    """Flows called in this test run on the real server; yields its API URL."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    # Heartbeats of a synchronous flow cost a second at its end.
    quick = {PREFECT_API_URL: prefect_server.api_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_settings(quick):
        yield prefect_server.api_url
