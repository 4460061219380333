"""`segvigen doctor` of a checkout."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from flows.cli import doctor
from segvigen_model.command import options
from segvigen_model.command.doctor import Check, Verdict


@pytest.mark.parametrize(
    ("verdict", "code"),
    [(Verdict.OK, options.OK), (Verdict.WARNING, options.OK), (Verdict.PROBLEM, options.NOT_READY)],
)
def test_doctor_says_what_to_do(run, monkeypatch, verdict, code):
    checks = [Check("rclone", verdict, "not found", "pip install it")]
    monkeypatch.setattr(doctor, "check_machine", lambda home, checkpoint: iter(checks))
    answer = run("doctor")
    assert answer.exit_code == code
    assert "pip install it" in answer.output
    told = json.loads(run("doctor", "--json").output)
    assert told == [asdict(checks[0])]


def test_doctor_examines_this_machine(world):
    names = {check.name: check for check in doctor.check_machine(world)}
    assert names["python"].verdict is Verdict.OK
    assert {"torch", "embreex", "rclone", "label-studio", "disk", "ports"} <= set(names)
    for check in names.values():
        assert check.verdict is Verdict.OK or check.cure, check
