"""Buckets on a server of the caller's own, beside a local stack: a second real S3 server."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from typer.testing import CliRunner

from flows.cli.main import make_app
from infra.local import LabelStudioEndpoint, LocalStack, S3Endpoint, start_s3, stop_s3
from infra.processes import StackError
from segvigen_model.command.options import NOT_READY, WENT_WRONG
from tasks.review.project import open_project
from tasks.settings import load_settings
from tasks.storage.buckets import check_buckets
from tasks.storage.errors import BucketUnusable
from tasks.storage.store import Store

RAW, LABELS = "my-raw-meshes", "my-labels"


@pytest.fixture(scope="module")
def user_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("user")
    for bucket in (RAW, LABELS):
        (home / "s3" / bucket).mkdir(parents=True)
    return home


@pytest.fixture(scope="module")
def user_s3(user_home: Path) -> Iterator[S3Endpoint]:
    yield start_s3(user_home)
    stop_s3(user_home)


@pytest.fixture
def printed(s3_server, user_s3, monkeypatch, tmp_path) -> Iterator[None]:
    """What the README tells to set; the variables of before come back."""
    monkeypatch.chdir(tmp_path)
    kept = dict(os.environ)
    for name in [name for name in kept if name.startswith("SEGVIGEN_")]:
        del os.environ[name]
    os.environ["SEGVIGEN_STORE_RAW_URL"] = f"s3://{RAW}"
    os.environ["SEGVIGEN_STORE_ROOT_URL"] = f"s3://{LABELS}/parts"
    os.environ["SEGVIGEN_STORE_S3_ENDPOINT_URL"] = user_s3.url
    os.environ["SEGVIGEN_STORE_S3_REGION"] = "eu-central-1"
    os.environ["SEGVIGEN_STORE_S3_ACCESS_KEY"] = user_s3.access_key
    os.environ["SEGVIGEN_STORE_S3_SECRET_KEY"] = user_s3.secret_key
    yield
    os.environ.clear()
    os.environ.update(kept)


def _stores(variables: dict[str, str]) -> tuple[Store, Store]:
    os.environ.update(variables)
    settings = load_settings().store
    check_buckets(settings)
    return Store.from_settings(settings), Store.from_settings(settings, raw=True)


def test_everything_the_stack_starts_uses_the_callers_server(printed, stack_home, user_home):
    stack = LocalStack(stack_home)
    assert stack.has_own_store
    store, raw = _stores(stack.make_environment())
    raw.put("chair.glb", b"mesh")
    store.put("review/sheet.png", b"sheet")
    assert (user_home / "s3" / RAW / "chair.glb").read_bytes() == b"mesh"
    assert (user_home / "s3" / LABELS / "parts/review/sheet.png").read_bytes() == b"sheet"


def test_a_settings_file_names_buckets_as_well(printed, stack_home, tmp_path):
    for name in ("SEGVIGEN_STORE_RAW_URL", "SEGVIGEN_STORE_ROOT_URL"):
        del os.environ[name]
    (tmp_path / "segvigen.toml").write_text(
        f'[store]\nraw_url = "s3://{RAW}"\nroot_url = "s3://{LABELS}"\n'
    )
    os.environ["SEGVIGEN_CONFIG"] = "segvigen.toml"
    variables = LocalStack(stack_home).make_environment()
    assert variables["SEGVIGEN_CONFIG"] == str(tmp_path / "segvigen.toml"), "workers are elsewhere"
    store, raw = _stores(variables)
    assert (store.root_url, raw.root_url) == (f"s3://{LABELS}", f"s3://{RAW}")


def test_keys_without_an_endpoint_do_not_spoil_the_local_server(printed, stack_home, s3_server):
    for name in ("ROOT_URL", "RAW_URL", "S3_ENDPOINT_URL", "S3_REGION"):
        del os.environ[f"SEGVIGEN_STORE_{name}"]
    store, _ = _stores(LocalStack(stack_home).make_environment())
    key = f"probe/{uuid4().hex}"
    store.put(key, b"x")
    assert store.get(key) == b"x" and store.root_url == f"s3://{s3_server.store_bucket}"


def test_no_local_server_is_missed_where_it_is_not_used(printed, tmp_path):
    stack = LocalStack(tmp_path / "fresh")
    assert not {"s3", "s3-reader"} & {row.name for row in stack.list_status()}
    del os.environ["SEGVIGEN_STORE_ROOT_URL"]
    assert "s3" in [row.name for row in stack.list_status()]


def test_half_of_it_is_reported_in_one_line(printed, stack_home):
    del os.environ["SEGVIGEN_STORE_ROOT_URL"]
    with pytest.raises(StackError, match="set SEGVIGEN_STORE_ROOT_URL to a bucket on your server"):
        LocalStack(stack_home).make_environment()
    response = CliRunner().invoke(make_app(), ["ingest", "--home", str(stack_home)])
    assert response.exit_code == NOT_READY
    assert "SEGVIGEN_STORE_ROOT_URL" in response.output and "Traceback" not in response.output


@pytest.mark.parametrize("command", ["ingest", "label", "up"])
def test_a_missing_bucket_is_named_with_its_server(printed, user_s3, stack_home, tmp_path, command):
    os.environ["SEGVIGEN_STORE_RAW_URL"] = "s3://mistyped"
    # A home of its own: should it be started in spite of all, nobody else's stack is touched.
    home = stack_home if command != "up" else tmp_path / "home"
    response = CliRunner().invoke(make_app(), [command, "--home", str(home)])
    assert response.exit_code == WENT_WRONG
    output = response.output.replace("\n", " ")
    assert f"no bucket 'mistyped' at {user_s3.url}" in output and "Traceback" not in output


def test_a_server_that_is_not_there_or_keys_that_are_missing_are_reported(printed):
    for name in ("ACCESS", "SECRET"):
        del os.environ[f"SEGVIGEN_STORE_S3_{name}_KEY"]
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/none"}
    with pytest.raises(BucketUnusable, match="credentials"):
        check_buckets(load_settings().store)


def test_the_demo_writes_nothing_into_the_callers_bucket(printed, stack_home):
    response = CliRunner().invoke(make_app(), ["demo", "--home", str(stack_home)])
    assert response.exit_code == NOT_READY
    assert "SEGVIGEN_STORE_" in response.output


@pytest.mark.slow
def test_label_studio_shows_what_is_in_the_callers_bucket(
    printed, stack_home, label_studio: LabelStudioEndpoint
):
    os.environ["SEGVIGEN_REVIEW_PROJECT_TITLE"] = f"own {uuid4().hex[:8]}"
    os.environ.update(LocalStack(stack_home).make_environment())
    settings = load_settings()
    label_studio_storage = open_project(settings.review, settings.store)
    Store.from_settings(settings.store).put("review/page.html", b"<p>seen</p>")
    uri = f"s3://{LABELS}/parts/review/page.html"
    shown = {"sheet": uri, "viewer": uri, "key": "x:0", "parts": []}
    body = {"project": label_studio_storage.project_id, "data": shown}
    task = label_studio_storage.client.request("POST", "/api/tasks/", body=body)
    name = base64.b64encode(uri.encode()).decode()
    response = httpx.get(
        f"{label_studio.url}/tasks/{task['id']}/resolve/?fileuri={name}",
        headers={"Authorization": f"Token {label_studio.token}"},
        trust_env=False,
    )
    assert (response.status_code, response.content) == (200, b"<p>seen</p>")
