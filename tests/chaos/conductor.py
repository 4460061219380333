"""One chaos run: services, flow processes, a reviewer, and a killer that goes by the plan."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.processes import StackError
from tests.chaos import flow_process, nursery
from tests.chaos.forks import HarnessError, Nursery, Slot
from tests.chaos.inputs import Input
from tests.chaos.kills import (
    SERVICE_OF,
    Kind,
    PlannedKill,
    plan_kills,
    replace_stuck_kills,
)
from tests.chaos.raw_bucket import RawBucket
from tests.chaos.reviewer import ReviewerThread
from tests.chaos.stack import POOL, Stack, list_descendants
from tests.chaos.watch import Watch
from tests.chaos.worker_runs import WorkerRuns
from tests.faults import Lies

log = logging.getLogger(__name__)
TICK_S = 0.1
ROLES = ("label_dataset", "label_dataset", "stages")
CLOCKS_S = (0, 600, -600)
ORDER_S = 15.0  # then the process is killed wherever it is
RESTART_S = (0.0, 1.5)
EVENTS_OF_AN_INPUT = 40  # of the catalogue's journal, about
WORK_SHARE = 0.7  # of the work, in which the kills are to happen
PATIENCE_S = 45.0  # without enough progress, the next kill comes after so long
KILLING_SHARE = 0.6  # of the time; what is left is for the work
IDLE_S = 2.0  # when all work is done before the last kill
STOP_S = 90.0


@dataclass(frozen=True, slots=True)
class DoneKill:
    """A kill that happened: `number` in the run, at `at_s`, of what, and where."""

    number: int
    at_s: float
    kind: Kind
    detail: str
    events: int


@dataclass
class Conductor:
    """Runs the loop on `stack` until every input is where it stays and every kill is done.

    Attributes:
        stack: started.
        inputs: what comes into the raw bucket.
        folder: of the run.
        seed, num_kills: of the plan.
        deadline_s: then the run is given up.
        has_worker: also run a Prefect worker.
    """

    stack: Stack
    inputs: list[Input]
    folder: Path
    seed: int
    num_kills: int
    deadline_s: float
    has_worker: bool = True
    done: list[DoneKill] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    slots: list[Slot] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._plan = plan_kills(self.num_kills, self.seed, has_worker=self.has_worker)
        self._started = time.monotonic()
        self._last_kill, self._events_then = time.monotonic(), 0
        self._down: dict[str, float] = {}
        self._starting: dict[str, Future[None]] = {}
        self._pool = ThreadPoolExecutor(4)
        self._rng = random.Random(f"restarts:{self.seed}")
        self._number = 0
        share = WORK_SHARE * EVENTS_OF_AN_INPUT * len(self.inputs)
        self._events_a_kill = share / max(self.num_kills, 1)

    # --- the run

    def run(self) -> bool:
        """Run to the end; False when the time was over before."""
        nurseries = [Nursery(self.folder, clock_s, self.stack.env) for clock_s in CLOCKS_S]
        watch = Watch(self.stack.env["SEGVIGEN_CATALOGUE_URL"], self.inputs)
        reviewer = ReviewerThread(
            watch.settings_of(self.stack.env),
            watch.truth,
            watch.thrown,
            watch.passed,
            self.folder / "diary.jsonl",
        )
        bucket = RawBucket(self.stack.env, self.inputs)
        server = (self.stack.env["PREFECT_API_URL"], self.stack.env["PREFECT_API_AUTH_STRING"])
        runs = WorkerRuns(*server, 30.0, lambda: bool(self._find_worker_runs()))
        self.watch, self.reviewer, self.bucket, self.runs = watch, reviewer, bucket, runs
        try:
            self._begin(nurseries)
            is_over = self._loop()
            self._end()
        finally:
            reviewer.stop()
            runs.stop()
            for each in nurseries:
                each.stop()
            self._pool.shutdown(wait=True)
        if reviewer.error is not None:
            raise HarnessError(f"the reviewer failed: {reviewer.error!r}")
        return is_over

    def _begin(self, nurseries: list[Nursery]) -> None:
        self.bucket.upload(1)
        for each in nurseries:
            each.wait()
        for number, (role, each) in enumerate(zip(ROLES, nurseries, strict=True)):
            self.slots.append(Slot(f"flow{number}{each.clock_s:+d}", role, each))
        self.reviewer.start()
        if self.has_worker:
            self._down[f"worker-{POOL}"] = 0.0
            self.runs.start()
        self._started = self._last_kill = time.monotonic()

    def _loop(self) -> bool:
        next_line = 0.0
        while True:
            now = time.monotonic()
            self._collect_events(now)
            self._restart(now)
            self.watch.look()
            self._kill_when_due(now)
            if self._plan and now - self._started > KILLING_SHARE * self.deadline_s:
                print(f"too slow: {len(self._plan)} kills are left out", flush=True)
                self._plan.clear()
            self.bucket.upload_share(self._share_of_kills())
            if now >= next_line:
                self._print_line(now)
                next_line = now + 10.0
            if not self._plan and self.bucket.is_full and self.watch.is_over and not self._down:
                return True
            if now - self._started > self.deadline_s:
                return False
            time.sleep(TICK_S)

    def _end(self) -> None:
        """Let every process end by itself, then run the flow once more in peace."""
        self.runs.stop()
        self.stack.kill(f"worker-{POOL}")
        (self.folder / flow_process.STOP_FILE).touch()
        self._wait_for_slots()
        (self.folder / flow_process.STOP_FILE).unlink()
        self.slots = [Slot("last", "once", self.slots[0].nursery)]
        self._restart(time.monotonic())
        self._wait_for_slots()

    def _wait_for_slots(self) -> None:
        deadline = time.monotonic() + STOP_S
        while any(slot.pid or slot.is_starting for slot in self.slots):
            self._collect_events(time.monotonic())
            if time.monotonic() > deadline:
                for slot in self.slots:
                    if slot.pid:
                        self.ends["killed, for it did not stop"] += 1
                        os.kill(slot.pid, signal.SIGKILL)
            time.sleep(TICK_S)

    # --- processes

    def _collect_events(self, now: float) -> None:
        by_name = {slot.name: slot for slot in self.slots}
        for each in {id(slot.nursery): slot.nursery for slot in self.slots}.values():
            if not each.is_alive:
                raise HarnessError(f"nursery {each.clock_s:+d} died; see {self.folder}/logs")
            while not each.events.empty():
                event = each.events.get()
                slot = by_name[event["name"]]
                if event["event"] == "started":
                    slot.pid, slot.is_starting = event["pid"], False
                else:
                    self._slot_ended(slot, event["code"], now)

    def _slot_ended(self, slot: Slot, code: int, now: float) -> None:
        kill, slot.pid, slot.kill = slot.kill, None, None
        slot.start_at = now + self._rng.uniform(*RESTART_S)
        if code == nursery.MISUSED:
            raise HarnessError(f"{slot.name} cannot run; see {self.folder}/logs/{slot.name}.log")
        if code == -signal.SIGKILL:
            if kill is not None:
                when = "before" if kill.order.is_before else "after"
                name = kill.order.point.rpartition(":")[2]
                self._count(kill.kind, f"{slot.name} {when} {name} #{kill.order.number}")
            return
        self.ends["by itself" if code == 0 else f"with an error ({code})"] += 1
        if kill is not None:  # it ended before it could carry out the order
            self._plan.insert(0, kill)

    def _restart(self, now: float) -> None:
        for slot in self.slots:
            if slot.pid is None and not slot.is_starting and now >= slot.start_at:
                slot.is_starting = True
                self._number += 1
                seed = self.seed * 100_000 + self._number
                slot.nursery.start(slot, seed=seed, wait_s=20.0, lies=self._lies_of(slot))
            elif slot.pid and slot.kill is not None and now > slot.kill_until:
                kill, slot.kill = slot.kill, None
                os.kill(slot.pid, signal.SIGKILL)
                self._count(kill.kind, f"{slot.name}, waited for {kill.order.point}")
        for name in [name for name, due in self._down.items() if now >= due]:
            if name not in self._starting:
                self._starting[name] = self._pool.submit(self.stack.restart, name)
            elif self._starting[name].done():
                try:
                    self._starting.pop(name).result()
                    del self._down[name]
                except StackError as err:
                    log.warning("service=%s did not start: %s", name, err)

    def _lies_of(self, slot: Slot) -> dict[str, float]:
        """The last run is in peace: nothing lies any more."""
        return asdict(Lies() if slot.role == "once" else self.stack.lies)

    # --- kills

    def _share_of_kills(self) -> float:
        return len(self.done) / self.num_kills if self._plan else 1.0

    def _kill_when_due(self, now: float) -> None:
        if not self._plan:
            return
        if not self.watch.counts:  # nothing is there yet that could be lost
            self._last_kill = now
            return
        is_due = self.watch.num_events - self._events_then >= self._events_a_kill
        patience_s = IDLE_S if self.watch.is_over else PATIENCE_S
        is_idle = now - self._last_kill > patience_s and not self._down
        if not (is_due or is_idle):  # who waits for a service is not killed for being slow
            return
        kill = self._plan.pop(0)
        if self._carry_out(kill, now):
            self._last_kill, self._events_then = now, self.watch.num_events
            return
        self._plan.insert(min(3, len(self._plan)), kill)  # nothing of that kind runs just now
        self._plan = replace_stuck_kills(self._plan)
        self._last_kill = now

    def _carry_out(self, kill: PlannedKill, now: float) -> bool:
        name = SERVICE_OF.get(kill.kind)
        if kill.kind is Kind.DATABASE and self.stack.postgres is None:
            name = None  # SQLite is a file: who holds it dies inside a transaction
        if name is not None:
            return self._kill_service(kill, name, now)
        if kill.kind in (Kind.PARSER, Kind.WORKER_RUN):
            return self._kill_process(kill)
        free = [slot for slot in self.slots if slot.pid and slot.kill is None]
        if not free:
            return False
        slot = free[int(kill.choice * len(free))]
        assert slot.pid is not None
        with suppress(ProcessLookupError):
            if kill.kind is Kind.FLOW:
                os.kill(slot.pid, signal.SIGKILL)
                self._count(kill.kind, slot.name)
            else:
                kill.order.write(self.folder, slot.pid)
                slot.kill, slot.kill_until = kill, now + ORDER_S
        return True

    def _kill_service(self, kill: PlannedKill, name: str, now: float) -> bool:
        if name in self._down or not self.stack.kill(name):
            return False
        self._down[name] = now + kill.pause_s
        self._count(kill.kind, f"down for {kill.pause_s} s")
        return True

    def _kill_process(self, kill: PlannedKill) -> bool:
        found = self._find_worker_runs() if kill.kind is Kind.WORKER_RUN else self._find_parsers()
        if not found:
            return False
        pid = found[int(kill.choice * len(found))]
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self._count(kill.kind, f"pid {pid}")
        return True

    def _find_parsers(self) -> list[int]:
        flows = [slot.pid for slot in self.slots if slot.pid]
        below = [pid for flow in flows for pid in list_descendants(flow)]
        return sorted(pid for pid in below if "tasks.ingest.sandbox" in _read_command(pid))

    def _find_worker_runs(self) -> list[int]:
        return self.stack.find_pids(f"worker-{POOL}")[1:]

    def _count(self, kind: Kind, detail: str) -> None:
        seconds = round(time.monotonic() - self._started, 1)
        number = len(self.done) + 1
        self.done.append(DoneKill(number, seconds, kind, detail, self.watch.num_events))
        print(f"  {seconds:6.1f} s  kill {number}/{self.num_kills}: {kind}, {detail}", flush=True)

    def _print_line(self, now: float) -> None:
        counts = ", ".join(f"{number} {state}" for state, number in self.watch.counts.items())
        about: list[Any] = [
            f"{now - self._started:6.1f} s",
            f"{len(self.done)}/{self.num_kills} kills",
            f"{self.watch.num_events} events",
            f"{self.reviewer.num_answers} answers",
            counts or "nothing yet",
        ]
        print("  |  ".join(map(str, about)), flush=True)


def _read_command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
