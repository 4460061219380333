"""Our deployments on a real server: applied once, limited by queues, run by a real worker."""

import os

import httpx
import pytest
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


def _post(api_url: str, path: str, body: dict) -> list[dict]:
    login = tuple(PREFECT_API_AUTH_STRING.value().split(":"))
    return httpx.post(f"{api_url}/{path}", json=body, auth=login, trust_env=False).json()


@pytest.mark.slow
def test_applying_again_does_nothing(applied, monkeypatch):
    monkeypatch.setattr(apply, "_deploy", lambda: pytest.fail("deployed again"))
    assert apply.apply() is False


@pytest.mark.slow
def test_every_flow_stands_in_its_pool_with_a_queueing_limit(applied):
    found = _post(applied, "deployments/filter", {})
    assert {d["name"] + " " + d["entrypoint"].rpartition(".")[2] for d in found} == {
        f"{pool} {name}" for name, pool in FLOWS.items()
    }
    for deployment in found:
        assert deployment["work_pool_name"] == deployment["name"]
        options = deployment["concurrency_options"]
        assert options["collision_strategy"] == "ENQUEUE", deployment["entrypoint"]
        assert deployment["global_concurrency_limit"]["limit"] >= 1
        assert not any(schedule["active"] for schedule in deployment["schedules"])
    names = {automation["name"] for automation in _post(applied, "automations/filter", {})}
    assert apply.AUTOMATION in names


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
    assert pipeline.open().catalogue.count_assets()[AssetState.REGISTERED] == 3
    assert "SEGVIGEN_STORE_ROOT_URL" in os.environ
