"""Create work pools, deployments and the automation for dead runs on a Prefect server.

`python -m deployments.apply` works on the server that PREFECT_API_URL names. The hash of what was
applied is stored on the server, so that nothing is done when nothing has changed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

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
POOLS = ("cpu", "gpu")
APPLIED = "segvigen_applied"  # Prefect variable: hash of what was applied last
AUTOMATION = "segvigen-dead-runs"
# Three missed heartbeats of 30 s: the process of the run has died.
QUIET_ENVIRONMENT = timedelta(seconds=90)


class DeployFailed(SegvigenError):
    """`prefect deploy` failed."""


def apply(*, is_forced: bool = False) -> bool:
    """Create pools, deployments and automation; False if the server has them already."""
    wanted = hashlib.sha256(PREFECT_FILE.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    if not is_forced and Variable.get(APPLIED) == wanted:
        return False
    with get_client(sync_client=True) as client:
        for pool in POOLS:
            _ensure_pool(client, pool)
        _deploy()
        _ensure_automation(client)
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
    argv = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    result = subprocess.run(
        [*argv, "--prefect-file", str(PREFECT_FILE)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        output = (result.stdout + result.stderr)[-2000:]
        raise DeployFailed(f"prefect deploy ended with {result.returncode}:\n{output}")


def _ensure_automation(client: SyncPrefectClient) -> None:
    """Mark runs CRASHED whose process and worker have both died; the next scheduled run continues.

    They are not restarted from here: a run that kills its machine would do so again and again.
    """
    if client.read_automations_by_name(AUTOMATION):
        return
    over = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "AwaitingRetry")
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{state}" for state in over)},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=QUIET_ENVIRONMENT,
    )
    action = ChangeFlowRunState(
        state=StateType.CRASHED, name="Crashed", message="Heartbeat lost", force=True
    )
    about = "A run without heartbeat is marked as crashed."
    client.create_automation(
        AutomationCore(name=AUTOMATION, description=about, trigger=trigger, actions=[action])
    )


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
