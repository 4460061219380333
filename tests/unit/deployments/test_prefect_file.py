"""Every flow is deployed, under its own name, with limits that queue."""

import importlib
from pathlib import Path

import pytest
import yaml
from prefect import Flow

from deployments.apply import POOLS, PREFECT_FILE, QUIET, make_automations

FLOWS = Path(__file__).resolve().parents[3] / "flows"


@pytest.fixture(scope="module")
def deployments() -> list[dict]:
    return yaml.safe_load(PREFECT_FILE.read_text())["deployments"]


def test_every_entrypoint_is_a_flow(deployments):
    for deployment in deployments:
        file, _, name = deployment["entrypoint"].partition(":")
        assert (FLOWS.parent / file).is_file()
        module = file.removesuffix(".py").replace("/", ".")
        flow = getattr(importlib.import_module(module), name)
        assert flow.name == name


def test_every_flow_is_deployed(deployments):
    deployed = {deployment["entrypoint"].rpartition(":")[2] for deployment in deployments}
    modules = [importlib.import_module(f"flows.{path.stem}") for path in FLOWS.glob("*.py")]
    written = {each.name for module in modules for each in vars(module).values() if is_flow(each)}
    assert deployed == written


def test_the_automations_concern_every_flow_and_no_other(deployments):
    names = sorted(deployment["entrypoint"].rpartition(":")[2] for deployment in deployments)
    for automation in make_automations():
        flow = automation.trigger.match_related[0]
        assert flow.root == {"prefect.resource.role": "flow", "prefect.resource.name": names}
        assert [action.force for action in automation.actions] == [False]


def is_flow(value: object) -> bool:
    return isinstance(value, Flow)


def test_pools_exist_and_nothing_is_ever_cancelled(deployments):
    for deployment in deployments:
        assert deployment["work_pool"]["name"] in POOLS
        assert deployment["concurrency_limit"]["collision_strategy"] == "ENQUEUE"


def test_each_says_what_it_does_and_is_found_by_its_tag(deployments):
    assert len({deployment["description"] for deployment in deployments}) == len(deployments)
    for deployment in deployments:
        assert deployment["description"].endswith("."), deployment["entrypoint"]
        assert "segvigen" in deployment["tags"]


def test_every_run_sends_heartbeats_before_it_is_thought_dead(deployments):
    for deployment in deployments:
        variables = deployment["work_pool"]["job_variables"]["env"]
        period_s = int(variables["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
        assert 3 * period_s <= QUIET.total_seconds()


def test_no_trigger_waits_for_an_event_of_ours_that_nobody_sends(deployments):
    code = "".join(path.read_text() for path in FLOWS.parent.glob("[dfit]*/**/*.py"))
    for deployment in deployments:
        for trigger in deployment.get("triggers", []):
            for event in trigger.get("expect", []):
                assert event.startswith("prefect.") or f'"{event}"' in code, event


def test_the_schedule_waits_for_its_operator(deployments):
    schedules = {d["entrypoint"]: d.get("schedules", []) for d in deployments}
    (only,) = schedules["flows/label_dataset.py:label_dataset"]
    assert only["active"] is False
    assert sum(len(found) for found in schedules.values()) == 1
