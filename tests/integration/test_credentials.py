"""Nobody is let in without credentials: every port of the local stack.

`segvigen` starts the services with these very descriptions; compose is read by
tests/unit/infra/test_files.py.
"""

import json
import stat
from pathlib import Path

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.home import read_record
from infra.local import start_refine, stop_service

REPOSITORY = Path(__file__).resolve().parents[2]


def _status(method: str, url: str, **more: object) -> int:
    return httpx.request(method, url, trust_env=False, timeout=30, **more).status_code


def _list_open_ports(home: Path, name: str) -> set[int]:
    """Ports on which a process of the service listens, with the addresses of this machine only."""
    record = read_record(home, name)
    inodes = set()
    for folder in [f"/proc/{record.pid}", *map(str, Path("/proc").glob("[0-9]*"))]:
        try:
            session = int((Path(folder) / "stat").read_text().rpartition(")")[2].split()[3])
            links = [str(link.readlink()) for link in Path(folder, "fd").iterdir()]
        except OSError:
            continue
        if session == record.pid:  # each service leads a session
            inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                address, _, port = local.partition(":")
                assert address == "0100007F", f"{name} listens on {local}, not on 127.0.0.1 only"
                found.add(int(port, 16))
    return found


def test_s3_refuses_strangers_and_the_reader_refuses_to_write(s3_server, stack_home):
    key = "credentials/probe.bin"
    writer = _open_s3(s3_server.url, s3_server.access_key, s3_server.secret_key)
    writer.put_object(Bucket=s3_server.store_bucket, Key=key, Body=b"kept")
    for name, url in (("s3", s3_server.url), ("s3-reader", s3_server.reader_url)):
        assert _list_open_ports(stack_home, name) == {int(url.rpartition(":")[2])}
        path = f"{url}/{s3_server.store_bucket}/{key}"
        assert _status("GET", f"{url}/") in (400, 403)
        for method in ("GET", "PUT", "DELETE"):
            assert _status(method, path) in (400, 403), method
    reader = _open_s3(
        s3_server.reader_url, s3_server.reader_access_key, s3_server.reader_secret_key
    )
    where = {"Bucket": s3_server.store_bucket, "Key": key}
    assert reader.get_object(**where)["Body"].read() == b"kept", "new objects are seen at once"
    with pytest.raises(ClientError):
        reader.put_object(**where, Body=b"changed")
    with pytest.raises(ClientError):
        reader.delete_object(**where)
    swapped = _open_s3(s3_server.url, s3_server.reader_access_key, s3_server.reader_secret_key)
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        swapped.get_object(**where)
    assert writer.get_object(**where)["Body"].read() == b"kept"


def test_prefect_runs_nothing_for_strangers(prefect_server, stack_home):
    assert _list_open_ports(stack_home, "prefect") == {int(prefect_server.url.rpartition(":")[2])}
    api = prefect_server.api_url
    pool = {"name": "stranger", "type": "process"}
    for method, path, body in (
        ("POST", "work_pools/", pool),
        ("POST", "flows/", {"name": "stranger"}),
        ("POST", "deployments/filter", {}),
        ("POST", "flow_runs/filter", {}),
        ("POST", "variables/filter", {}),
        ("GET", "admin/settings", None),
        ("GET", "admin/version", None),
        ("POST", "admin/database/clear", {"confirm": True}),
        ("POST", "events", []),
    ):
        assert _status(method, f"{api}/{path}", json=body) == 401, path
        wrong = ("segvigen", "guess")
        assert _status(method, f"{api}/{path}", json=body, auth=wrong) == 401, path
    assert _status("GET", f"{api}/health") == 200, "open for probes, and says nothing"
    login = tuple(prefect_server.login.split(":"))
    found = httpx.post(f"{api}/work_pools/filter", json={}, auth=login, trust_env=False).json()
    assert "stranger" not in [pool["name"] for pool in found]


def test_another_page_in_the_browser_gets_no_answer_of_prefects(prefect_server):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-y"}
    for origin, allowed in ((prefect_server.url, True), ("http://evil.test", False)):
        found = httpx.options(
            f"{prefect_server.api_url}/flows/filter",
            headers={"Origin": origin, **ask},
            trust_env=False,
        )
        assert (found.headers.get("access-control-allow-origin") == origin) is allowed, origin


def test_the_refine_service_tells_strangers_up_or_down(tmp_path, s3_server):
    env = {
        **s3_server.make_environment(),
        "SEGVIGEN_CATALOGUE_URL": f"sqlite:///{tmp_path}/catalogue.db",
        "SEGVIGEN_REVIEW_LIVE_PASSWORD": "live-secret",
        "SEGVIGEN_REVIEW_WEBHOOK_TOKEN": "webhook-secret",
    }
    url = start_refine(tmp_path, env)
    try:
        assert _list_open_ports(tmp_path, "refine") == {int(url.rpartition(":")[2])}
        found = httpx.get(f"{url}/health", trust_env=False)
        assert set(found.json()) == {"status"}
        for path in ("readyz", "metrics"):
            assert _status("GET", f"{url}/{path}") == 401, path
        for path in ("openapi.json", "docs", "redoc"):
            assert _status("GET", f"{url}/{path}") == 404, path
        for path in ("predict", "setup", "webhook"):
            assert _status("POST", f"{url}/{path}", json={}) == 401, path
            assert _status("POST", f"{url}/{path}", json={}, auth=("label-studio", "x")) == 401
        log = (tmp_path / "logs/refine.log").read_text()
        assert "live-secret" not in log and "webhook-secret" not in log
    finally:
        stop_service(tmp_path, "refine")


@pytest.mark.slow
def test_label_studio_shows_strangers_a_login_page(label_studio, stack_home):
    assert _list_open_ports(stack_home, "label-studio") == {
        int(label_studio.url.rpartition(":")[2])
    }
    for path in ("projects", "tasks", "current-user/whoami", "ml", "webhooks/", "storages/s3"):
        assert _status("GET", f"{label_studio.url}/api/{path}") == 401, path
    for path in ("projects/", "user/account"):
        page = httpx.get(f"{label_studio.url}/{path}", trust_env=False)
        assert page.status_code == 302 and "/user/login" in page.headers["location"], path
    with httpx.Client(base_url=label_studio.url, trust_env=False, timeout=30) as browser:
        browser.get("/user/signup/")
        form = {"email": "stranger@evil.test", "password": "a-long-password-1"}
        form["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
        assert browser.post("/user/signup/", data=form).status_code == 403
        assert browser.get("/api/projects").status_code == 401


def test_files_of_the_stack_are_its_owners_alone(s3_server, prefect_server, stack_home):
    assert stat.S_IMODE(stack_home.stat().st_mode) == 0o700
    checked = [stack_home / "secrets.json", *(stack_home / "run").glob("*.json")]
    checked += [*(stack_home / "logs").glob("*.log"), *(stack_home / "prefect").glob("*.db*")]
    assert any(path.suffix == ".db" for path in checked)
    open_to_others = [p.name for p in checked if stat.S_IMODE(p.stat().st_mode) & 0o077]
    assert open_to_others == []


def _open_s3(url: str, access_key: str, secret_key: str):
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}, request_checksum_calculation="when_required"),
    )


def test_the_table_in_the_documents_names_every_service(prefect_server, s3_server):
    text = (REPOSITORY / "docs/security.md").read_text()
    compose = json.dumps([line for line in text.splitlines() if line.startswith("| `")])
    for name in ("s3", "s3-reader", "prefect", "label-studio", "refine", "postgres"):
        assert f"`{name}`" in compose, name
