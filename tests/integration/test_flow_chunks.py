"""How stages work through assets on a real Prefect server: chunks, leases, faults, artifacts."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest
import torch
from prefect import flow
from prefect.settings import PREFECT_API_AUTH_STRING
from sqlalchemy.exc import OperationalError

from flows.runtime import chunks
from flows.runtime.chunks import Stage, asset_stage, run_stage
from flows.runtime.report import Outcome, listen_to_progress
from segvigen_model.errors import AssetRejected
from tasks.catalogue import AssetRow, AssetState, Catalogue, make_worker_id
from tasks.errors import SickDevice
from tasks.settings import load_settings
from tasks.stages.runner import StageResult
from tasks.storage.store import Store
from tasks.workspace import Workspace

IDS = [f"{number:064x}" for number in range(5)]


@pytest.fixture
def workspace(tmp_path, prefect_api, monkeypatch) -> Workspace:
    monkeypatch.setattr(chunks, "RETRY_DELAYS_S", [0.0, 0.0])
    catalogue = Catalogue(f"sqlite:///{tmp_path}/catalogue.db")
    for asset_id in IDS:
        catalogue.register(AssetRow(asset_id, AssetState.REGISTERED, name=f"{asset_id[-1]}.glb"))
    store = Store(f"file://{tmp_path}/store")
    settings = load_settings(overrides={"work": {"chunk_size": 2, "max_attempts": 2}})
    return Workspace(store, store, catalogue, settings, make_worker_id("test"))


def _stage(before=lambda asset_id: None) -> Stage:
    def work(workspace: Workspace, asset_id: str) -> StageResult:
        before(asset_id)
        moved = workspace.catalogue.move(asset_id, AssetState.ENCODED, worker=workspace.worker)
        return StageResult(asset_id, "test", moved.state, True)

    return asset_stage("test_stage", (AssetState.REGISTERED,), work)


def _run(workspace: Workspace, stage: Stage, limit: int | None = None) -> dict:
    @flow(name="test-flow")
    def test_flow() -> dict:
        return run_stage(workspace, stage, limit).as_dict()

    return test_flow()


def test_all_assets_in_chunks_then_nothing(workspace, prefect_api):
    received = []
    with listen_to_progress(lambda *progress: received.append(progress)):
        report = _run(workspace, _stage())
    assert report["counts"] == {"encoded": 5}
    assert received[0] == ("test_stage", 0, 5) and received[-1] == ("test_stage", 5, 5)
    events = len(workspace.catalogue.list_events())
    assert _run(workspace, _stage())["counts"] == {}
    assert len(workspace.catalogue.list_events()) == events, "a second run writes nothing"
    found = httpx.post(
        f"{prefect_api}/artifacts/latest/filter",
        json={"artifacts": {"key": {"any_": ["test-stage-assets", "test-stage-progress"]}}},
        auth=tuple(PREFECT_API_AUTH_STRING.value().split(":")),
        trust_env=False,
    ).json()
    data = {artifact["key"]: artifact["data"] for artifact in found}
    assert data["test-stage-progress"] == 100
    assert all(asset_id in data["test-stage-assets"] for asset_id in IDS)


def test_runs_of_chunks_are_named_by_stage_and_place(workspace, prefect_api):
    stage = replace(_stage(), name=f"stage-{uuid4().hex[:8]}")
    _run(workspace, stage)

    def list_names() -> set[str]:
        found = httpx.post(
            f"{prefect_api}/task_runs/filter",
            json={"task_runs": {"name": {"like_": stage.name}}},
            auth=tuple(PREFECT_API_AUTH_STRING.value().split(":")),
            trust_env=False,
        ).json()
        return {run["name"] for run in found}

    wanted = {f"{stage.name} {place}" for place in ("1 to 2", "3 to 4", "5 to 5")}
    assert _until(lambda: list_names() == wanted)


def test_limit_is_exact(workspace):
    assert _run(workspace, _stage(), limit=3)["counts"] == {"encoded": 3}
    assert workspace.catalogue.count_assets()[AssetState.REGISTERED] == 2


def test_a_bad_asset_is_counted_then_parked_and_the_rest_goes_on(workspace):
    def refuse_one(asset_id: str) -> None:
        if asset_id == IDS[1]:
            raise ValueError("negative volume")

    report = _run(workspace, _stage(refuse_one))
    assert report["counts"] == {"encoded": 4, "registered": 1}
    assert workspace.catalogue.get_asset(IDS[1]).attempts == 1
    assert _run(workspace, _stage(refuse_one))["counts"] == {"failed": 1}
    parked = workspace.catalogue.get_asset(IDS[1])
    assert parked.state is AssetState.FAILED and "negative volume" in parked.last_error


def test_a_rejected_asset_is_parked_with_its_reason(workspace):
    def reject_one(asset_id: str) -> None:
        if asset_id == IDS[0]:
            raise AssetRejected("no_faces", "the mesh has 0 faces; export it again")

    assert _run(workspace, _stage(reject_one))["counts"] == {"encoded": 4, "rejected": 1}
    assert workspace.catalogue.get_asset(IDS[0]).reason == "no_faces"


def test_a_short_outage_costs_no_asset_an_attempt(workspace):
    outages = iter([True])

    def fail_once(asset_id: str) -> None:
        if next(outages, False):
            raise ConnectionError("store does not answer")

    assert _run(workspace, _stage(fail_once))["counts"] == {"encoded": 5}
    assert not [asset for asset in workspace.catalogue.list_assets() if asset.attempts]


def test_a_long_outage_fails_the_flow_and_no_asset(workspace):
    calls = []

    def fail(asset_id: str) -> None:
        calls.append(asset_id)
        raise ConnectionError("store does not answer")

    with pytest.raises(ConnectionError):
        _run(workspace, _stage(fail))
    assert len(calls) == 3, "one try and two retries"
    for asset in workspace.catalogue.list_assets():
        assert asset.state is AssetState.REGISTERED
        assert asset.attempts == 0 and asset.lease_owner is None


def test_a_bug_is_not_retried_as_an_outage(workspace):
    calls = []

    def fail(asset_id: str) -> None:
        calls.append(asset_id)
        raise KeyError("nonsense")

    assert _run(workspace, _stage(fail))["counts"] == {"registered": 5}
    assert sorted(calls) == IDS, "each asset once a run"


def test_what_others_hold_is_left_alone(workspace):
    other = "elsewhere/1/1/other"
    workspace.catalogue.claim([AssetState.REGISTERED], 2, other)
    assert _run(workspace, _stage())["counts"] == {"encoded": 3}
    held = workspace.catalogue.list_assets(AssetState.REGISTERED)
    assert [asset.lease_owner for asset in held] == [other, other]


def _until(is_true) -> bool:
    """Wait for something that comes soon, or never."""
    pause = threading.Event()
    return any(is_true() or pause.wait(0.05) for _ in range(600))


def _short(workspace: Workspace, lease_s: float) -> Workspace:
    work = workspace.settings.work.model_copy(update={"lease_s": lease_s})
    return replace(workspace, settings=workspace.settings.model_copy(update={"work": work}))


def test_leases_are_renewed_while_one_asset_takes_long(workspace):
    workspace = _short(workspace, 2.0)

    def wait_for_a_renewal(asset_id: str) -> None:
        first = workspace.catalogue.get_asset(asset_id).lease_until
        assert _until(lambda: workspace.catalogue.get_asset(asset_id).lease_until > first)

    assert _run(workspace, _stage(wait_for_a_renewal), limit=2)["counts"] == {"encoded": 2}
    assert not [asset for asset in workspace.catalogue.list_assets() if asset.attempts]
    assert not [thread for thread in threading.enumerate() if thread.name == "leases"]


def test_leases_are_renewed_while_a_chunk_reports_nothing(workspace):
    workspace = _short(workspace, 2.0)

    def push(workspace, asset_ids):
        """As the review push: every outcome at the end."""
        last = asset_ids[-1]
        first = workspace.catalogue.get_asset(last).lease_until
        assert _until(lambda: workspace.catalogue.get_asset(last).lease_until > first)
        for asset_id in asset_ids:
            workspace.catalogue.move(asset_id, AssetState.ENCODED, worker=workspace.worker)
        return [Outcome(asset_id, "encoded") for asset_id in asset_ids]

    @flow(name="test-push")
    def test_push() -> dict:
        return run_stage(workspace, Stage("push", (AssetState.REGISTERED,), push)).as_dict()

    assert test_push()["counts"] == {"encoded": 5}


def test_who_stalls_loses_its_leases(workspace, monkeypatch):
    monkeypatch.setattr(chunks, "MAX_IDLE_LEASES", 1)
    workspace = _short(workspace, 0.5)
    other = "elsewhere/1/1/other"

    def stall(asset_id: str) -> None:
        workspace.catalogue.claim([AssetState.REGISTERED], 5, "elsewhere/1/1/third")

        def is_taken() -> bool:
            workspace.catalogue.claim([AssetState.REGISTERED], 5, other)
            return workspace.catalogue.get_asset(asset_id).lease_owner == other

        assert _until(is_taken)

    assert _run(workspace, _stage(stall), limit=1)["counts"] == {"registered": 1}
    held = workspace.catalogue.get_asset(IDS[0])
    assert (held.lease_owner, held.attempts, held.deaths_alone) == (other, 0, 1)


def test_leases_that_an_outage_kept_from_release_are_taken_up_by_the_retry(workspace, monkeypatch):
    """The database is out while a chunk fails: its leases are the retry's, not lost for minutes."""
    outages = iter([True])
    release = Catalogue.release

    def fail_once(asset_id: str) -> None:
        if next(outages, False):
            raise ConnectionError("store does not answer")

    def refuse_twice(self, asset_ids, worker):
        if next(refusals, False):
            raise OperationalError("release", {}, Exception("server closed the connection"))
        release(self, asset_ids, worker)

    refusals = iter([True, True])  # of the asset, of its chunk
    monkeypatch.setattr(Catalogue, "release", refuse_twice)
    assert _run(workspace, _stage(fail_once))["counts"] == {"encoded": 5}
    assert not [asset for asset in workspace.catalogue.list_assets() if asset.lease_owner]
    claims = workspace.catalogue.list_events(kind="claimed")
    assert [len(event.detail["assets"]) for event in claims] == [2, 2, 1]


def test_a_sick_device_ends_the_flow_and_costs_no_asset_anything(workspace):
    calls = []

    def fail(workspace: Workspace, asset_id: str) -> StageResult:
        calls.append(asset_id)
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    stage = asset_stage("encode", (AssetState.REGISTERED,), fail)
    with pytest.raises(SickDevice, match="device-side assert"):
        _run(workspace, stage)
    assert calls == IDS[:1], "no other asset, no retry"
    for asset in workspace.catalogue.list_assets():
        assert asset.state is AssetState.REGISTERED and asset.lease_owner is None
        assert (asset.attempts, asset.deaths) == (0, 0)
    with pytest.raises(SickDevice, match="is sick"):
        _run(workspace, stage)
    assert len(calls) == 1, "the device is left alone for a while"


def test_a_worker_process_with_a_sick_device_has_an_exit_code_of_its_own():
    code = "import sys; from flows.runtime.chunks import _end_worker_process as end; end(); "
    code += "sys.exit(1)"
    for variables, exit_code in (({"PREFECT__FLOW_RUN_ID": "x"}, SickDevice.exit_code), ({}, 1)):
        environment = {**os.environ, **variables}
        done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
        assert done.returncode == exit_code
