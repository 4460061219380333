"""Our deployments on a real server: applied once, limited by queues, run by a real worker."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING

from deployments import apply
from infra.home import load_secrets
from infra.local import start_worker, stop_service
from infra.services import make_prefect_env
from tasks.catalogue import AssetState

FLOWS = {
    "ingest": "cpu",
    "encode": "gpu",
    "propose": "gpu",
    "push_review": "cpu",
    "pull_review": "cpu",
    "refine": "gpu",
    "build_shards": "cpu",
    "finetune": "gpu",
    "label_dataset": "gpu",
}


@pytest.fixture
def applied(prefect_api, prefect_server, monkeypatch) -> str:
    for name, value in prefect_server.make_environment().items():
        monkeypatch.setenv(name, value)
    apply.apply()
    return prefect_api


def _post(api_url: str, path: str, body: object) -> Any:
    login = tuple(PREFECT_API_AUTH_STRING.value().split(":"))
    for wait_s in (1, 2, 4, 8, 0):
        reply = httpx.post(f"{api_url}/{path}", json=body, auth=login, trust_env=False)
        if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE:  # its database was locked
            break
        threading.Event().wait(wait_s)
    reply.raise_for_status()
    return reply.json() if reply.content else None


@pytest.mark.slow
def test_applying_again_does_nothing(applied, monkeypatch):
    monkeypatch.setattr(apply, "_deploy", lambda: pytest.fail("deployed again"))
    assert apply.apply() is False


@pytest.mark.slow
def test_every_flow_stands_in_its_pool_with_a_queueing_limit(applied):
    found = _post(applied, "deployments/filter", {})
    assert {d["name"] + " " + d["entrypoint"].rpartition(":")[2] for d in found} == {
        f"{pool} {name}" for name, pool in FLOWS.items()
    }
    for deployment in found:
        assert deployment["work_pool_name"] == deployment["name"]
        options = deployment["concurrency_options"]
        assert options["collision_strategy"] == "ENQUEUE", deployment["entrypoint"]
        assert deployment["global_concurrency_limit"]["limit"] >= 1
        assert not any(schedule["active"] for schedule in deployment["schedules"])
    names = {automation["name"] for automation in _post(applied, "automations/filter", {})}
    assert set(apply.AUTOMATIONS) <= names


@pytest.mark.slow
def test_the_command_that_a_person_types_works_from_the_root(applied, prefect_server):
    before = _post(applied, "deployments/filter", {})
    program = Path(sys.executable).with_name("prefect")
    done = subprocess.run(
        [program, "deploy", "--all", "--prefect-file", "deployments/prefect.yaml"],
        # Nothing but the checkout says where the code is.
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        cwd=apply.PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    after = _post(applied, "deployments/filter", {})
    assert {each["id"] for each in after} == {each["id"] for each in before}
    for deployment in after:
        assert deployment["description"].endswith(".") and deployment["tags"] == ["segvigen"]
        (step,) = deployment["pull_steps"]
        folder = step["prefect.deployments.steps.set_working_directory"]["directory"]
        assert (Path(folder) / deployment["entrypoint"].partition(":")[0]).is_file()


def _heartbeat(run: dict, deployment: dict) -> dict:
    """The event of a run's heartbeat, as its process sends it."""
    related = {
        f"prefect.flow.{run['flow_id']}": {"role": "flow", "name": "ingest"},
        f"prefect.deployment.{deployment['id']}": {"role": "deployment"},
    }
    return {
        "id": str(uuid4()),
        "event": apply.HEARTBEAT,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run['id']}"},
        "related": [
            {"prefect.resource.id": id}
            | {f"prefect.resource.{label}": value for label, value in labels.items()}
            for id, labels in related.items()
        ],
    }


@pytest.fixture
def quick_automations(applied) -> Iterator[None]:
    """The automations as they are, but for their names and patience."""
    made = apply.make_automations(timedelta(seconds=12), timedelta(seconds=14))
    with get_client(sync_client=True) as client:
        quick = [each.model_copy(update={"name": f"quick {each.name}"}) for each in made]
        ids = [client.create_automation(automation) for automation in quick]
        yield
        for automation_id in ids:
            client.delete_automation(automation_id)


@pytest.mark.slow
def test_dead_runs_end_as_crashed_and_ended_runs_stay_as_they_are(applied, quick_automations):
    flows = {each["id"]: each["name"] for each in _post(applied, "flows/filter", {})}
    found = _post(applied, "deployments/filter", {})
    deployment = next(each for each in found if flows[each["flow_id"]] == "ingest")

    def begin(*states: str) -> dict:
        path = f"deployments/{deployment['id']}/create_flow_run"
        run = _post(applied, path, {"state": {"type": "PENDING"}})
        for state in states:
            _post(applied, f"flow_runs/{run['id']}/set_state", {"state": {"type": state}})
        return run

    def read_state(run: dict) -> str:
        body = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        return _post(applied, "flow_runs/filter", body)[0]["state_type"]

    def list_refusals() -> list[dict]:
        event = {"name": ["prefect.automation.action.failed"]}
        found = _post(applied, "events/filter", {"filter": {"event": event}})["events"]
        return [each for each in found if completed["id"] in str(each)]

    completed = begin("RUNNING", "COMPLETED")
    never_began, unborn = begin("RUNNING"), begin()
    went_quiet = begin("RUNNING")
    _post(applied, "events", [_heartbeat(run, deployment) for run in (completed, went_quiet)])
    dead = {"never began": never_began, "never ran": unborn, "went quiet": went_quiet}
    pause, deadline = threading.Event(), time.monotonic() + 180
    while time.monotonic() < deadline and not (
        list_refusals() and all(read_state(run) == "CRASHED" for run in dead.values())
    ):
        pause.wait(1)
    assert {name: read_state(run) for name, run in dead.items()} == dict.fromkeys(dead, "CRASHED")
    assert list_refusals(), "the automation fired at the late heartbeat"
    assert read_state(completed) == "COMPLETED"


@pytest.mark.slow
def test_a_worker_runs_a_deployment(applied, pipeline, stack_home):
    from prefect.deployments import run_deployment

    env = {
        **make_prefect_env(stack_home, load_secrets(stack_home)),
        "PREFECT_API_URL": applied,
        **pipeline.variables,
    }
    start_worker(stack_home, "cpu", env)
    try:
        run = run_deployment("ingest/cpu", timeout=120, poll_interval=1, as_subflow=False)
    finally:
        stop_service(stack_home, "worker-cpu")
    log = (stack_home / "logs/worker-cpu.log").read_text()
    assert run.state.is_completed(), log[-3000:]
    shown = {"flow_runs": {"id": {"any_": [str(run.id)]}}}
    assert _post(applied, "flow_runs/filter", shown)[0]["name"] == "ingest /"
    assert pipeline.open().catalogue.count_assets()[AssetState.REGISTERED] == 3
    assert "SEGVIGEN_STORE_ROOT_URL" in os.environ
