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


def test_a_home_of_an_earlier_version_gets_what_it_lacks_and_keeps_what_it_has(tmp_path):
    earlier = {"webhook_token": "t" * 40, "label_studio_password": "p"}
    (tmp_path / "secrets.json").write_text(json.dumps(earlier))
    found = load_secrets(tmp_path)
    assert (found.webhook_token, found.label_studio_password) == ("t" * 40, "p")
    assert found.live_password and load_secrets(tmp_path) == found


def test_no_two_secrets_are_the_same(tmp_path):
    made = json.loads((load_secrets(tmp_path), tmp_path / "secrets.json")[1].read_text())
    assert len(set(made.values())) == len(made)


def test_the_home_is_closed_to_others(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    load_secrets(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_two_homes_share_no_secret(tmp_path):
    one = json.loads((load_secrets(tmp_path / "a"), tmp_path / "a/secrets.json")[1].read_text())
    two = json.loads((load_secrets(tmp_path / "b"), tmp_path / "b/secrets.json")[1].read_text())
    same = {name for name in one if one[name] == two[name]}
    assert same == {"label_studio_username"}


def test_broken_secrets_report_what_to_do(tmp_path):
    (tmp_path / "secrets.json").write_text('{"s3_secret_key": "x"')
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
