"""`segvigen doctor` of a checkout."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from flows.cli import doctor
from segvigen_model.command import options
from segvigen_model.command.doctor import Check, CheckVerdict


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (CheckVerdict.OK, options.OK),
        (CheckVerdict.WARNING, options.OK),
        (CheckVerdict.PROBLEM, options.NOT_READY),
    ],
)
def test_doctor_reports_what_to_do(run, monkeypatch, verdict, code):
    checks = [Check("rclone", verdict, "not found", "pip install it")]
    monkeypatch.setattr(doctor, "check_machine", lambda home, checkpoint: iter(checks))
    response = run("doctor")
    assert response.exit_code == code
    assert "pip install it" in response.output
    reported = json.loads(run("doctor", "--json").output)
    assert reported == [asdict(checks[0])]


def test_doctor_examines_this_machine(environment):
    names = {check.name: check for check in doctor.check_machine(environment)}
    assert names["python"].verdict is CheckVerdict.OK
    assert {"torch", "rclone", "label-studio", "disk", "ports"} <= set(names)
    for check in names.values():
        assert check.verdict is CheckVerdict.OK or check.hint, check
