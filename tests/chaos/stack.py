"""The services of a chaos run: real ones, on the home folder of a local stack, killed by pid."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from infra.home import load_secrets, read_record
from infra.local import (
    start_label_studio,
    start_prefect,
    start_refine,
    start_s3,
    start_worker,
    stop_service,
)
from infra.processes import is_running
from infra.services import make_prefect_env
from tests.chaos.inputs import AUDIT_SHARE
from tests.chaos.postgres import PostgresServer
from tests.faults import SITE_FOLDER, Lies, lying_environment

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHONPATH = os.pathsep.join([str(SITE_FOLDER), str(REPOSITORY)])
POOL = "gpu"
GONE_S = 20.0
LEASE_S = 30  # a twentieth of the clocks' error
SETTINGS = {
    "SEGVIGEN_MODEL_NUM_DRAWS": "1",
    "SEGVIGEN_MODEL_NUM_STEPS": "1",
    "SEGVIGEN_REVIEW_SHEET_PIXELS": "256",
    "SEGVIGEN_REVIEW_POLL_INTERVAL_S": "1",
    "SEGVIGEN_REVIEW_MAX_ROUNDS": "4",
    "SEGVIGEN_WORK_CHUNK_SIZE": "5",
    "SEGVIGEN_WORK_LEASE_S": str(LEASE_S),
    # Sure of everything, so that some assets pass without a reviewer and the rest are audits.
    "SEGVIGEN_GATE_ACCEPT_CONFIDENCE": "0",
    "SEGVIGEN_GATE_MIN_DRAWS": "1",
    "SEGVIGEN_GATE_AUDIT_SHARE": str(AUDIT_SHARE),
    # Audits of a model of random weights contradict the gate and would close it.
    "SEGVIGEN_QUALITY_AUDIT_IOU": "0",
    "PREFECT_LOGGING_LEVEL": "WARNING",
}


@dataclass
class Stack:
    """Services of one run.

    Attributes:
        home: of `infra`: records, logs, data of the services.
        folder: of this run: catalogue, checkpoint, logs.
        checkpoint: of the smallest preset.
        is_postgresql: where the catalogue is.
        lies: how often reads of the pipeline's processes lie.
        env: settings variables of flow processes.
    """

    home: Path
    folder: Path
    checkpoint: Path
    is_postgresql: bool = False
    lies: Lies = field(default_factory=Lies)
    env: dict[str, str] = field(default_factory=dict)
    postgres: PostgresServer | None = None
    starters: dict[str, Callable[[], object]] = field(default_factory=dict)

    def start(self) -> None:
        """Start everything but the worker; fills `env`."""
        secrets = load_secrets(self.home)
        with ThreadPoolExecutor(3) as pool:
            s3 = pool.submit(start_s3, self.home)
            prefect = pool.submit(start_prefect, self.home)
            desk = pool.submit(start_label_studio, self.home)
        name = f"chaos-{uuid4().hex[:8]}"
        raw, store = s3.result().raw_bucket, s3.result().store_bucket
        self.env = {
            **SETTINGS,
            **make_prefect_env(self.home, secrets),
            **prefect.result().make_environment(),
            **s3.result().make_environment(),
            **s3.result().make_raw_environment(),
            **desk.result().make_environment(),
            "SEGVIGEN_STORE_ROOT_URL": f"s3://{store}/{name}",
            "SEGVIGEN_STORE_RAW_URL": f"s3://{raw}/{name}",
            "SEGVIGEN_CATALOGUE_URL": f"sqlite:///{self.folder}/catalogue.db",
            "SEGVIGEN_MODEL_CHECKPOINT": str(self.checkpoint),
            "SEGVIGEN_REVIEW_PROJECT_TITLE": name,
        }
        if self.is_postgresql:
            self.postgres = PostgresServer(self.folder / "postgres")
            self.postgres.start()
            self.env["SEGVIGEN_CATALOGUE_URL"] = self.postgres.url
        self.env["SEGVIGEN_REVIEW_WEBHOOK_TOKEN"] = secrets.webhook_token
        self.env["SEGVIGEN_REVIEW_LIVE_PASSWORD"] = secrets.live_password
        self.env |= lying_environment(self.lies) | {"PYTHONPATH": PYTHONPATH}
        own = dict(self.env)  # without its own addresses, as the local stack does
        url = start_refine(self.home, own)
        self.env["SEGVIGEN_REVIEW_WEBHOOK_URL"] = f"{url}/webhook"
        self.env["SEGVIGEN_REVIEW_LIVE_URL"] = url
        self.starters = {
            "s3": lambda: start_s3(self.home),
            "prefect": lambda: start_prefect(self.home),
            "label-studio": lambda: start_label_studio(self.home),
            "refine": lambda: start_refine(self.home, own),
            f"worker-{POOL}": lambda: start_worker(self.home, POOL, self.env),
        }
        if self.postgres is not None:
            self.starters["database"] = self.postgres.start

    def find_pids(self, name: str) -> list[int]:
        """The processes of a service, its own first; empty when it does not run."""
        record = read_record(self.home, name)
        if record is None or not is_running(record.process):
            return []
        return [record.pid, *list_descendants(record.pid)]

    def kill(self, name: str) -> bool:
        """SIGKILL a service with all its processes; False when it did not run."""
        if name == "database" and self.postgres is not None:
            if not self.postgres.is_alive:
                return False
            self.postgres.kill()
            return True
        names = (name, "s3-reader") if name == "s3" else (name,)
        pids = [pid for each in names for pid in self.find_pids(each)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + GONE_S
        while any(map(self.find_pids, names)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return bool(pids)

    def restart(self, name: str) -> None:
        """Start a service again, on its old port."""
        self.starters[name]()

    def stop(self, *, is_shared: bool) -> None:
        """Stop what belongs to this run, and the services too unless others use the home."""
        own = [f"worker-{POOL}", "refine"]
        for name in own + ([] if is_shared else ["label-studio", "prefect", "s3-reader", "s3"]):
            stop_service(self.home, name)
        if self.postgres is not None:
            self.postgres.stop()


def list_descendants(leader: int) -> list[int]:
    """Process ids below a process, in whatever session they are."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = entry.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, queue = [], [leader]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


def has_open(pid: int, path: Path) -> bool:
    """Does a process have a file open?"""
    with suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(handle.readlink()) == str(path):
                    return True
    return False
