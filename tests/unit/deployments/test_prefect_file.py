"""Every flow is deployed, under its own name, with limits that queue."""

import importlib
from pathlib import Path

import pytest
import yaml
from prefect import Flow

from deployments.apply import POOLS, PREFECT_FILE

FLOWS = Path(__file__).resolve().parents[3] / "flows"


@pytest.fixture(scope="module")
def deployments() -> list[dict]:
    return yaml.safe_load(PREFECT_FILE.read_text())["deployments"]


def test_every_entrypoint_is_a_flow(deployments):
    for deployment in deployments:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert flow.name == name


def test_every_flow_is_deployed(deployments):
    deployed = {deployment["entrypoint"].rpartition(".")[2] for deployment in deployments}
    modules = [importlib.import_module(f"flows.{path.stem}") for path in FLOWS.glob("*.py")]
    written = {each.name for module in modules for each in vars(module).values() if is_flow(each)}
    assert deployed == written


def is_flow(value: object) -> bool:
    return isinstance(value, Flow)


def test_pools_exist_and_nothing_is_ever_cancelled(deployments):
    for deployment in deployments:
        assert deployment["work_pool"]["name"] in POOLS
        assert deployment["concurrency_limit"]["collision_strategy"] == "ENQUEUE"


def test_no_trigger_waits_for_an_event_of_ours_that_nobody_sends(deployments):
    code = "".join(path.read_text() for path in FLOWS.parent.glob("[dfit]*/**/*.py"))
    for deployment in deployments:
        for trigger in deployment.get("triggers", []):
            for event in trigger.get("expect", []):
                assert event.startswith("prefect.") or f'"{event}"' in code, event


def test_the_schedule_waits_for_its_operator(deployments):
    schedules = {d["entrypoint"]: d.get("schedules", []) for d in deployments}
    (only,) = schedules["flows.label_dataset.label_dataset"]
    assert only["active"] is False
    assert sum(len(found) for found in schedules.values()) == 1
