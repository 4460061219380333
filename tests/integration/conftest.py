"""A small pipeline on real parts: tiny model, store in a folder or on S3, catalogue, settings."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from infra.local import LabelStudioEndpoint, PrefectEndpoint, S3Endpoint
from tasks.catalogue import AnnotationRow, AssetRow, AssetState, ClickRow
from tasks.workspace import Workspace, open_workspace
from tests.chaos.history import check_history

RUNNER = Path(__file__).with_name("killed_run.py")
REPOSITORY = RUNNER.parents[2]
CATEGORIES = ("chair", "lamp", "table")


@dataclass(frozen=True)
class PipelineEnvironment:
    """One pipeline's places, and the variables that lead there."""

    folder: Path
    variables: dict[str, str]

    def open(self, tag: str = "test") -> Workspace:
        """A workspace as a flow opens it."""
        return open_workspace(tag=tag)

    @property
    def raw(self) -> Path:
        """Folder of the raw bucket."""
        return self.folder / "raw"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights of the smallest preset."""
    from segvigen_model.checkpoints.native import save_model
    from segvigen_model.model.bundle import build_model

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_model(build_model("tiny"), folder)
    return folder


@contextmanager
def _settings(variables: dict[str, str]) -> Iterator[None]:
    """Exactly these SEGVIGEN_ variables, besides those of the tests themselves."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SEGVIGEN_")]:
            if name not in ("SEGVIGEN_SHARED", "SEGVIGEN_TEST_HOME"):
                patch.delenv(name)
        for name, text in variables.items():
            patch.setenv(name, text)
        yield


def _make(folder: Path, checkpoint: Path) -> dict[str, str]:
    """Put three meshes into a raw folder; settings by environment, as a worker has them."""
    from segvigen_model.datasets.procedural import make_asset
    from segvigen_model.mesh.io import mesh_to_glb

    (folder / "raw").mkdir()
    for category in CATEGORIES:
        data = mesh_to_glb(make_asset(category, 1, textured=False).mesh)
        (folder / "raw" / f"{category}.glb").write_bytes(data)
    return {
        "SEGVIGEN_STORE_ROOT_URL": f"file://{folder}/store",
        "SEGVIGEN_STORE_RAW_URL": f"file://{folder}/raw",
        "SEGVIGEN_CATALOGUE_URL": f"sqlite:///{folder}/catalogue.db",
        "SEGVIGEN_MODEL_CHECKPOINT": str(checkpoint),
        "SEGVIGEN_MODEL_NUM_DRAWS": "1",
        "SEGVIGEN_MODEL_NUM_STEPS": "1",
        "SEGVIGEN_REVIEW_SHEET_PIXELS": "768",
        "SEGVIGEN_WORK_CHUNK_SIZE": "2",
    }


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path
) -> Iterator[PipelineEnvironment]:
    """Three meshes, everything in one folder, no desk."""
    folder = tmp_path_factory.mktemp("world")
    variables = _make(folder, tiny_checkpoint)
    with _settings(variables):
        yield PipelineEnvironment(folder, variables)


@pytest.fixture(scope="module")
def review_pipeline(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_checkpoint: Path,
    s3_server: S3Endpoint,
    label_studio: LabelStudioEndpoint,
) -> Iterator[PipelineEnvironment]:
    """The same on S3, with a project of its own in Label Studio; its history is checked."""
    folder = tmp_path_factory.mktemp("desk-world")
    raw = f"file://{folder}/raw"
    variables = {
        **_make(folder, tiny_checkpoint),
        **s3_server.make_environment(),
        **label_studio.make_environment(),
        "SEGVIGEN_STORE_ROOT_URL": f"s3://{s3_server.store_bucket}/{folder.name}-{uuid4().hex[:8]}",
        "SEGVIGEN_STORE_RAW_URL": raw,
        "SEGVIGEN_REVIEW_PROJECT_TITLE": f"flows {uuid4().hex[:8]}",
    }
    with _settings(variables):
        pipeline = PipelineEnvironment(folder, variables)
        yield pipeline
        catalogue = pipeline.open().catalogue
        assert check_history(catalogue.list_events(), catalogue.list_assets()) == []


def _record_annotation(
    workspace: Workspace, asset: AssetRow, verdict: str, clicked_faces: tuple[int, ...] = ()
) -> None:
    """Record a reviewer's answer as the pull does, without any desk."""
    stamp = "2026-01-01T00:00:00Z"
    unique = f"{asset.asset_id[:8]}-{asset.round}"
    row = AnnotationRow(unique, stamp, 1, 1, asset.asset_id, asset.round, "someone", {}, 2.0)
    workspace.catalogue.reviews.record_annotation(row)
    clicks = [
        ClickRow(
            unique,
            stamp,
            number,
            asset.asset_id,
            asset.round,
            f"r{number}",
            "sheet",
            1.0,
            1.0,
            "new part",
            "new_part",
            -1,
            face,
            *np.zeros(3),
            group=number,
        )
        for number, face in enumerate(clicked_faces)
    ]
    workspace.catalogue.reviews.interpret(unique, stamp, verdict=verdict, clicks=clicks)


def get_flow_module(flow: str) -> str:
    """Where a flow is defined."""
    is_model_stage = flow in ("encode", "propose", "refine")
    return "flows.model_stages" if is_model_stage else f"flows.{flow}"


def _to_review(workspace: Workspace) -> list[AssetRow]:
    """Move everything proposed into review, without any desk."""
    for asset in workspace.catalogue.list_assets(AssetState.PROPOSED):
        workspace.catalogue.move(asset.asset_id, AssetState.IN_REVIEW)
    return workspace.catalogue.list_assets(AssetState.IN_REVIEW)


@pytest.fixture
def run_killed(prefect_api: str, prefect_server: PrefectEndpoint) -> Callable[..., None]:
    """`run_killed(flow, target, number, when)`: a process of its own that is killed there."""

    def run(flow: str, target: str, number: int, when: str) -> None:
        argv = [sys.executable, str(RUNNER), get_flow_module(flow), flow, target, str(number), when]
        ended = subprocess.run(
            argv,
            env={
                **os.environ,
                **prefect_server.make_environment(),
                "PYTHONPATH": str(REPOSITORY),
            },
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        output = ended.stdout[-2000:] + ended.stderr[-3000:]
        assert ended.returncode == -signal.SIGKILL, output

    return run


@pytest.fixture
def run_whole(prefect_api: str) -> Callable[[str], dict[str, Any]]:
    """`run_whole(flow)`: the flow in this process, to its end."""
    return lambda flow: getattr(importlib.import_module(get_flow_module(flow)), flow)()


@pytest.fixture
def record_annotation() -> Callable[..., None]:
    """`answer(workspace, asset, verdict, clicked_faces)`."""
    return _record_annotation


@pytest.fixture
def to_review() -> Callable[[Workspace], list[AssetRow]]:
    """`to_review(workspace)` gives the assets that are now in review."""
    return _to_review
