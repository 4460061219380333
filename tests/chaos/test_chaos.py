"""The short form of the chaos run; SEGVIGEN_TEST_CHAOS_SEED chooses another seed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.inputs import BROKEN, Fate, make_inputs
from tests.chaos.kills import Kind, plan_kills, replace_stuck_kills
from tests.chaos.run import ChaosPlan, run_chaos

SEED = int(os.environ.get("SEGVIGEN_TEST_CHAOS_SEED", "1"))
SHORT = ChaosPlan(num_assets=24, num_kills=12, seed=SEED, minutes=10)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("s3_server", "prefect_server", "label_studio")
def test_nothing_is_lost_doubled_or_false(stack_home: Path, tmp_path: Path):
    report = run_chaos(SHORT, tmp_path / "chaos", stack_home)
    assert report.problems == [], f"seed {SEED}, kept in {tmp_path}\n{report.render()}"
    assert len(report.kills) == SHORT.num_kills
    assert sum(check.looked_at for check in report.checks) > 500, "the checks saw nothing"


def test_the_plan_of_kills_is_the_seeds():
    assert plan_kills(100, 3) == plan_kills(100, 3) != plan_kills(100, 4)
    kinds = Counter(kill.kind for kill in plan_kills(100, 3))
    assert sum(kinds.values()) == 100 and set(kinds) == set(Kind)
    without = {kill.kind for kill in plan_kills(100, 3, has_worker=False)}
    assert without == set(Kind) - {Kind.WORKER, Kind.WORKER_RUN}


def test_the_last_kills_wait_for_nobody_who_may_never_come():
    plan = plan_kills(100, 3)
    assert replace_stuck_kills(plan) == plan
    stuck = [kill for kill in plan if kill.kind in (Kind.PARSER, Kind.WORKER_RUN)]
    assert stuck and {kill.kind for kill in replace_stuck_kills(stuck)} == {Kind.FLOW}
    assert replace_stuck_kills([]) == []


def test_inputs_are_the_seeds_and_of_every_fate():
    inputs = make_inputs(200, 5)
    assert [each.data for each in inputs] == [each.data for each in make_inputs(200, 5)]
    assert [each.key for each in inputs] == sorted(each.key for each in inputs)
    assert {each.fate for each in inputs} == set(Fate)
    reasons = {each.reason for each in inputs if each.fate is Fate.BROKEN}
    assert reasons == {reason for _, reason, _ in BROKEN.values()}
    for each in inputs:
        assert (each.truth is None) == (each.fate is Fate.BROKEN), each.key
