"""`segvigen quarantine`, and what `segvigen status` says of it."""

from __future__ import annotations

import json

import pytest

from segvigen_model.command import options
from tasks.catalogue import AssetRow, AssetState, Catalogue, QuarantineRow


@pytest.fixture
def catalogue(environment) -> Catalogue:
    held = Catalogue(f"sqlite:///{environment}/catalogue.db")
    held.quarantine.add(QuarantineRow("task-1-7", "task", "key 'x' is odd", '{"id": 7}', task_id=7))
    held.quarantine.add(QuarantineRow("annotation-1-7-9", "annotation", "lead_time is nan", "{}"))
    return held


def test_status_counts_and_gives_reasons(run, catalogue):
    state = json.loads(run("status", "--json").output)
    assert state["quarantined"] == {"task": 1, "annotation": 1}
    assert [row["reason"] for row in state["quarantine"]] == ["key 'x' is odd", "lead_time is nan"]
    shown = run("status").output
    assert "lead_time is nan" in shown and "segvigen quarantine list" in shown


def test_list_and_show(run, catalogue):
    assert "annotation-1-7-9" in run("quarantine", "list").output
    listed = json.loads(run("quarantine", "list", "--json").output)
    assert [row["message_id"] for row in listed] == ["task-1-7", "annotation-1-7-9"]
    assert json.loads(run("quarantine", "show", "task-1").output)["raw"] == '{"id": 7}'


def test_retry_and_drop(run, catalogue):
    assert "read again" in run("quarantine", "retry", "task").output
    assert catalogue.quarantine.get("task").is_retrying
    assert "given up" in run("quarantine", "drop", "task").output
    assert [row.kind for row in catalogue.quarantine.list_all()] == ["annotation"]
    assert len(json.loads(run("quarantine", "list", "--dropped", "--json").output)) == 2
    assert json.loads(run("status", "--json").output)["quarantined"] == {"annotation": 1}


@pytest.mark.parametrize(
    ("name", "words"), [("nothing", "no message begins with"), ("", "several messages begin with")]
)
def test_a_name_that_fits_none_or_several_is_reported(run, catalogue, name, words):
    response = run("quarantine", "drop", name)
    assert response.exit_code == options.WENT_WRONG and words in response.output


def test_a_sick_device_is_shown_until_it_is_cleared(run, environment):
    catalogue = Catalogue(f"sqlite:///{environment}/catalogue.db")
    catalogue.register(AssetRow("a" * 64, AssetState.REGISTERED))
    catalogue.claim(["registered"], 1, "w")
    catalogue.devices.record_fault("cuda-1", "a" * 64, "CUDA error: ECC", "w")
    state = json.loads(run("status", "--json").output)
    assert [row["device"] for row in state["sick_devices"]] == ["cuda-1"]
    assert state["suspects"] == ["a" * 64]
    assert "CUDA error: ECC" in run("status").output and "cuda-1" in run("devices").output
    assert "taken for well" in run("devices", "--clear", "cuda-1").output
    assert "was not sick" in run("devices", "--clear", "cuda-1").output
    assert json.loads(run("status", "--json").output)["sick_devices"] == []
