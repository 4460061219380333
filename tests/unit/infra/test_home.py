"""Secrets stay private and the same; broken records count as none."""

import json
import stat
import threading

import pytest

from infra.home import ServiceRecord, load_secrets, lock_service, read_record, write_record
from infra.processes import StackError


def test_secrets_are_private_and_lasting(tmp_path):
    first = load_secrets(tmp_path)
    path = tmp_path / "secrets.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_secrets(tmp_path) == first
    assert len(first.label_studio_token) == 40
    assert first.s3_secret_key not in repr(first)


def test_two_homes_share_no_secret(tmp_path):
    one = json.loads((load_secrets(tmp_path / "a"), tmp_path / "a/secrets.json")[1].read_text())
    two = json.loads((load_secrets(tmp_path / "b"), tmp_path / "b/secrets.json")[1].read_text())
    same = {name for name in one if one[name] == two[name]}
    assert same == {"label_studio_username"}


def test_broken_secrets_report_what_to_do(tmp_path):
    (tmp_path / "secrets.json").write_text("{}")
    with pytest.raises(StackError, match="remove the folder"):
        load_secrets(tmp_path)


def test_record_round_trip_and_broken_record(tmp_path):
    record = ServiceRecord("s3", 12, "345", 9000, "abc")
    write_record(tmp_path, record)
    assert read_record(tmp_path, "s3") == record
    (tmp_path / "run/s3.json").write_text('{"name": "s3"')
    assert read_record(tmp_path, "s3") is None
    assert read_record(tmp_path, "prefect") is None


def test_the_lock_lets_one_in_at_a_time(tmp_path):
    order = []

    def late() -> None:
        with lock_service(tmp_path, "s3"):
            order.append("late")

    with lock_service(tmp_path, "s3"):
        thread = threading.Thread(target=late)
        thread.start()
        thread.join(0.2)
        order.append("early")
    thread.join(5)
    assert order == ["early", "late"]
