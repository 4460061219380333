"""Services of the local stack: found again, started anew after a kill, refusing strangers."""

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from infra.home import read_record
from infra.local import LocalStack, start_s3, stop_s3
from infra.processes import is_running
from tasks.settings import StoreSettings
from tasks.storage.store import Store


def _store(endpoint) -> Store:
    return Store.from_settings(
        StoreSettings(
            root_url=f"s3://{endpoint.store_bucket}",
            s3_endpoint_url=endpoint.url,
            s3_access_key=endpoint.access_key,
            s3_secret_key=endpoint.secret_key,
        )
    )


def test_s3_keeps_data_over_a_kill_and_its_port(tmp_path):
    endpoint = start_s3(tmp_path)
    try:
        _store(endpoint).put("a/b.bin", b"kept")
        assert start_s3(tmp_path) == endpoint
        record = read_record(tmp_path, "s3")
        os.kill(record.pid, signal.SIGKILL)
        while is_running(record.process):
            time.sleep(0.02)
        again = start_s3(tmp_path)
        assert again == endpoint, "the old port is free, so it is used again"
        assert read_record(tmp_path, "s3").pid != record.pid
        assert _store(again).get("a/b.bin") == b"kept"
    finally:
        assert stop_s3(tmp_path)
    assert not stop_s3(tmp_path)
    for name in ("s3", "s3-reader"):
        assert not is_running(read_record(tmp_path, name).process), name


def test_s3_refuses_a_wrong_secret(s3_server):
    response = httpx.get(f"{s3_server.url}/{s3_server.raw_bucket}", trust_env=False)
    assert response.status_code >= 400
    wrong = StoreSettings(
        root_url=f"s3://{s3_server.store_bucket}",
        s3_endpoint_url=s3_server.url,
        s3_access_key=s3_server.access_key,
        s3_secret_key="wrong",
    )
    with pytest.raises(PermissionError):
        list(Store.from_settings(wrong).list())


def test_services_listen_on_this_machine_only(s3_server, stack_home):
    port = read_record(stack_home, "s3").port
    wanted = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    assert listening == {wanted}


def test_environment_names_the_running_services(s3_server, stack_home, monkeypatch):
    monkeypatch.setenv("SEGVIGEN_MODEL_NUM_DRAWS", "2")
    env = LocalStack(stack_home).make_environment()
    assert env["SEGVIGEN_STORE_S3_ENDPOINT_URL"] == s3_server.url
    assert env["SEGVIGEN_STORE_ROOT_URL"] == f"s3://{s3_server.store_bucket}"
    assert env["SEGVIGEN_MODEL_NUM_DRAWS"] == "2"
    monkeypatch.setenv("SEGVIGEN_STORE_ROOT_URL", "file:///mine")
    assert LocalStack(stack_home).make_environment()["SEGVIGEN_STORE_ROOT_URL"] == "file:///mine"


def test_status_shows_what_runs(s3_server, stack_home):
    status = {row.name: row for row in LocalStack(stack_home).list_status()}
    assert status["s3"].is_running and status["s3"].url == s3_server.url
    assert set(status) == {
        "s3",
        "prefect",
        "label-studio",
        "worker-cpu",
        "worker-gpu",
        "refine",
    } | {"s3-reader"}


def test_prefect_answers(prefect_server):
    response = httpx.get(f"{prefect_server.api_url}/health", trust_env=False)
    assert response.status_code == 200


@pytest.mark.slow
def test_label_studio_knows_its_user(label_studio):
    header = {"Authorization": f"Token {label_studio.token}"}
    url = f"{label_studio.url}/api/current-user/whoami"
    response = httpx.get(url, headers=header, trust_env=False)
    assert response.json()["email"] == label_studio.username
    assert httpx.get(url, trust_env=False).status_code == 401
