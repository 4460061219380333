"""A whole chaos run: services up, conductor, checks, report."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segvigen_model.checkpoints.native import save_model
from segvigen_model.model.bundle import build_model
from tests.chaos.conductor import Conductor, DoneKill
from tests.chaos.inputs import make_inputs
from tests.chaos.liar import count_lies
from tests.chaos.stack import REPOSITORY, Stack
from tests.chaos.verdict import Finding, judge
from tests.chaos.worker_runs import apply_deployments
from tests.faults import Lies


@dataclass(frozen=True, slots=True)
class ChaosPlan:
    """What a run does. `minutes`: then it is given up; `lie_share`: of reads, of each kind."""

    num_assets: int
    num_kills: int
    seed: int
    is_postgresql: bool = False
    has_worker: bool = True
    minutes: float = 60.0
    lie_share: float = 0.02


@dataclass
class ChaosReport:
    """What a run did and what was found wrong.

    Attributes:
        checks: name -> what was looked at, and what is wrong.
        kills: that happened.
        ends: how flow processes ended otherwise.
    """

    plan: ChaosPlan
    commit: str
    seconds: float
    kills: list[DoneKill]
    ends: Mapping[str, int]
    checks: list[Finding]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong."""
        return [f"{check.name}: {line}" for check in self.checks for line in check.problems]

    @property
    def kills_by_kind(self) -> dict[str, int]:
        """Number of kills of each kind."""
        return dict(Counter(str(kill.kind) for kill in self.kills).most_common())

    def render(self) -> str:
        """The tables as Markdown."""
        plan = self.plan
        database = "PostgreSQL" if plan.is_postgresql else "SQLite"
        lines = [
            f"## {plan.num_assets} inputs, {len(self.kills)} kills, seed {plan.seed}, {database}",
            f"\ncommit {self.commit}, {self.seconds:.0f} s\n",
            "| killed | times |\n|---|---:|",
            *(f"| {kind} | {number} |" for kind, number in self.kills_by_kind.items()),
            "\n| flow processes ended otherwise | times |\n|---|---:|",
            *(f"| {how} | {number} |" for how, number in self.ends.items()),
            "\n| fact | number |\n|---|---:|",
            *(f"| {name} | {number} |" for name, number in self.facts.items()),
            "\n| check | looked at | wrong |\n|---|---:|---:|",
            *(f"| {each.name} | {each.looked_at} | {len(each.problems)} |" for each in self.checks),
        ]
        return "\n".join([*lines, "", *(f"- {line}" for line in self.problems[:200])])

    def to_json(self) -> str:
        """Everything, for machines."""
        kills = [{**asdict(kill), "kind": str(kill.kind)} for kill in self.kills]
        held = {
            **{"plan": asdict(self.plan), "commit": self.commit, "seconds": self.seconds},
            **{"kills": kills, "kills_by_kind": self.kills_by_kind, "ends": dict(self.ends)},
            **{"facts": dict(self.facts), "checks": [asdict(check) for check in self.checks]},
        }
        return json.dumps(held, indent=1)


def run_chaos(
    plan: ChaosPlan, folder: Path, home: Path | None = None, *, is_kept: bool = False
) -> ChaosReport:
    """Run and judge.

    Args:
        plan: what.
        folder: of this run; removed when nothing is wrong.
        home: of services that others use too; None = services of its own, below `folder`.
        is_kept: keep the folder of a good run too.
    """
    folder = folder.resolve()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "tiny"
    save_model(build_model("tiny"), checkpoint)
    inputs = make_inputs(plan.num_assets, plan.seed)
    print(f"seed {plan.seed}: {folder}", flush=True)
    lies = Lies(plan.seed, plan.lie_share, plan.lie_share, plan.lie_share)
    stack = Stack(home or folder / "home", folder, checkpoint, plan.is_postgresql, lies)
    started = time.monotonic()
    try:
        stack.start()
        if plan.has_worker:
            apply_deployments(stack.env)
        (folder / "env.json").write_text(json.dumps(stack.env, indent=1))
        print(f"services ready after {time.monotonic() - started:.0f} s", flush=True)
        started = time.monotonic()
        conductor = Conductor(
            stack, inputs, folder, plan.seed, plan.num_kills, plan.minutes * 60, plan.has_worker
        )
        is_over = conductor.run()
        seconds = time.monotonic() - started
        checks = judge(stack.env, inputs, folder)
        in_time = Finding("done in time", plan.num_kills)
        if not is_over or len(conductor.done) < plan.num_kills:
            about = f"{len(conductor.done)} kills; all at its end: {is_over}"
            in_time.problems.append(f"{seconds:.0f} s were not enough: {about}")
        checks.insert(0, in_time)
        facts = {
            "answers of the reviewer": conductor.reviewer.num_answers,
            "outages that the reviewer met": conductor.reviewer.num_outages,
            **{f"live previews {how}": n for how, n in conductor.reviewer.live.items()},
            **count_lies(folder),
            "events": conductor.watch.num_events,
            **{
                f"runs on the worker: {state.lower()}": number
                for state, number in Counter(conductor.runs.states).items()
            },
        }
    finally:
        for name in ("s3", "prefect", "label-studio"):
            if home is not None and name in stack.starters and not stack.find_pids(name):
                stack.restart(name)  # others use it
        stack.stop(is_shared=home is not None)
    report = ChaosReport(
        plan, read_commit(), round(seconds, 1), conductor.done, conductor.ends, checks, facts
    )
    (folder / "report.json").write_text(report.to_json())
    if not (report.problems or is_kept):
        shutil.rmtree(folder)
    return report


def read_commit() -> str:
    """Of this checkout, with a + where files have changed."""
    argv = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty=+"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
