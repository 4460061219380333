"""Create work pools, deployments and the automations for dead runs on a Prefect server.

`python -m deployments.apply` works on the server that PREFECT_API_URL names. The hash of what was
applied is stored on the server, so that nothing is done when nothing has changed.
"""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.variables import Variable
from prefect.workers.process import ProcessWorker

from segvigen_model.errors import SegvigenError

logger = logging.getLogger(__name__)

PREFECT_FILE = Path(__file__).with_name("prefect.yaml")
PROJECT = PREFECT_FILE.parent.parent
# From the project's root; a person may type the same. It asks nothing without a terminal.
DEPLOY_COMMAND = ("deploy", "--all", "--prefect-file", str(PREFECT_FILE.relative_to(PROJECT)))
POOLS = ("cpu", "gpu")
APPLIED = "segvigen_applied"  # Prefect variable: hash of what was applied last
AUTOMATIONS = ("segvigen-dead-runs", "segvigen-runs-that-never-began")
# Three missed heartbeats of 30 s: the process of the run has died.
QUIET = timedelta(seconds=90)
# From the moment that a worker takes a run to its first heartbeat; images may have to be pulled.
START = timedelta(minutes=10)
HEARTBEAT = "prefect.flow-run.heartbeat"
# After these nobody owes a heartbeat: the run is over or waits.
OVER = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")
WAITING = ("Scheduled", "AwaitingRetry", "AwaitingConcurrencySlot", "Late")


class DeployFailed(SegvigenError):
    """`prefect deploy` failed."""


def apply(*, is_forced: bool = False) -> bool:
    """Create pools, deployments and automations; False if the server has them already."""
    wanted = hashlib.sha256(PREFECT_FILE.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    if not is_forced and Variable.get(APPLIED) == wanted:
        return False
    with get_client(sync_client=True) as client:
        for pool in POOLS:
            _ensure_pool(client, pool)
        _deploy()
        _replace_automations(client)
    Variable.set(APPLIED, wanted, overwrite=True)
    return True


def _ensure_pool(client: SyncPrefectClient, name: str) -> None:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = WorkPoolCreate(name=name, type="process", base_job_template=template)
        client.create_work_pool(pool)
        logger.info("pool=%s created=true", name)


def _deploy() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *DEPLOY_COMMAND],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        output = (result.stdout + result.stderr)[-2000:]
        raise DeployFailed(f"prefect deploy ended with {result.returncode}:\n{output}")


def make_automations(quiet: timedelta = QUIET, start: timedelta = START) -> list[AutomationCore]:
    """Describe what marks runs as crashed whose process and worker have both died.

    The next scheduled run continues their work. They are not restarted from here: a run that kills
    its machine would do so again and again. The state is not forced: the server refuses it for a
    run that has ended, so that a late heartbeat undoes nothing.

    Args:
        quiet: from one heartbeat to the next.
        start: from the worker's taking of a run of a deployment to its first heartbeat.
    """
    ours = {"prefect.resource.role": "flow", "prefect.resource.name": _list_flow_names()}
    # Only these: a flow that is called in another process may have no heartbeat at all.
    deployed = {"prefect.resource.role": "deployment"}
    over = {f"prefect.flow-run.{state}" for state in (*OVER, *WAITING)}
    began = {"prefect.flow-run.Pending", "prefect.flow-run.Running"}
    lost, never_began = AUTOMATIONS
    return [
        _make_automation(lost, {HEARTBEAT}, over, [ours], quiet),
        _make_automation(never_began, began, over, [ours, deployed], start),
    ]


def _make_automation(
    name: str,
    after: set[str],
    over: set[str],
    related: list[dict[str, Any]],
    within: timedelta,
) -> AutomationCore:
    """Describe one automation: crashed unless a heartbeat or an end comes in time."""
    seconds = f"{within.total_seconds():.0f} s"
    trigger = EventTrigger(
        after=after,
        expect={HEARTBEAT, *over},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        match_related=[ResourceSpecification.model_validate(labels) for labels in related],
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )
    message = f"No heartbeat within {seconds}"
    action = ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message)
    about = f"A run without heartbeat for {seconds} is marked as crashed."
    return AutomationCore(name=name, description=about, trigger=trigger, actions=[action])


def _list_flow_names() -> list[str]:
    return sorted(set(re.findall(r"entrypoint: \S+:(\w+)", PREFECT_FILE.read_text())))


def _replace_automations(client: SyncPrefectClient) -> None:
    """Create the automations, in place of those of an earlier version."""
    for automation in make_automations():
        for old in client.read_automations_by_name(automation.name):
            client.delete_automation(old.id)
        client.create_automation(automation)


def main() -> int:
    """Run on the command line; exit code 0 when the server has everything."""
    # Prefect has configured the root logger by now; this one gets its own handler.
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        changed = apply(is_forced="--force" in sys.argv[1:])
    except DeployFailed as err:
        logger.error("%s", err)
        return 1
    logger.info("deployments %s", "applied" if changed else "already up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
