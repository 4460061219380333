"""How each service of the local stack is started and when it is ready.

Everything listens on 127.0.0.1 only. A service that runs, responds and has the required settings is
reused; one that has ended or differs is restarted, on its old port if that is free.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.home import (
    Secrets,
    ServiceRecord,
    lock_service,
    make_log_path,
    read_record,
    write_record,
)
from infra.processes import (
    StackError,
    find_free_port,
    is_running,
    spawn_process,
    stop_process,
    wait_until_ready,
)
from segvigen_model.config.threads import set_thread_variables

REPOSITORY = Path(__file__).resolve().parent.parent
RAW_BUCKET = "segvigen-raw"
STORE_BUCKET = "segvigen-store"
HTTP_TIMEOUT_S = 5.0
# Label Studio reads variables without a prefix; inherited ones would change its behaviour.
CLEAN_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service: its command, its environment and its readiness check.

    Attributes:
        name: of its record and log files.
        argv: command for a port.
        env: its own variables for a port, added to `base_env`.
        base_env: the variables that it inherits.
        is_ready: whether the service on a port can be used.
        timeout_s: of a start.
        has_port: False for workers.
    """

    name: str
    argv: Callable[[int], Sequence[str]]
    env: Callable[[int], Mapping[str, str]]
    base_env: Mapping[str, str]
    is_ready: Callable[[int], bool]
    cwd: Path
    timeout_s: float
    has_port: bool = True
    fingerprint_extra: str = field(default="")

    def compute_fingerprint(self, port: int) -> str:
        """Hash the command and the settings of the service."""
        parts = [list(self.argv(port)), sorted(self.env(port).items()), self.fingerprint_extra]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def ensure_service(home: Path, spec: ServiceSpec) -> ServiceRecord:
    """Return the running service; start it if needed."""
    with lock_service(home, spec.name):
        record = read_record(home, spec.name)
        if record is not None and _is_usable(record, spec):
            return record
        if record is not None:
            stop_process(record.process)
        return _start_service(home, spec, record.port if record else None)


def _is_usable(record: ServiceRecord, spec: ServiceSpec) -> bool:
    port = record.port or 0
    if not is_running(record.process) or record.fingerprint != spec.compute_fingerprint(port):
        return False
    try:
        wait_until_ready(
            record.process, lambda: spec.is_ready(port), name=spec.name, log=Path(), timeout_s=20
        )
    except StackError:
        return False
    return True


def _start_service(home: Path, spec: ServiceSpec, old_port: int | None) -> ServiceRecord:
    port = find_free_port(old_port) if spec.has_port else 0
    log = make_log_path(home, spec.name)
    spec.cwd.mkdir(parents=True, exist_ok=True)
    process = spawn_process(spec.argv(port), {**spec.base_env, **spec.env(port)}, spec.cwd, log)
    record = ServiceRecord(
        spec.name, process.pid, process.started, port or None, spec.compute_fingerprint(port)
    )
    write_record(home, record)
    try:
        wait_until_ready(
            process,
            lambda: spec.is_ready(port),
            name=spec.name,
            log=log,
            timeout_s=spec.timeout_s,
        )
    except StackError:
        stop_process(process)
        raise
    return record


def get_http_status(url: str, *, headers: Mapping[str, str] | None = None) -> int:
    """Return the HTTP status of a GET; 0 without a response."""
    request = urllib.request.Request(url, headers=dict(headers or {}))
    # Without the proxies of the environment: the address is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=HTTP_TIMEOUT_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as err:
        return err.code
    except OSError:
        return 0


def make_s3_spec(home: Path, secrets: Secrets) -> ServiceSpec:
    """Describe `rclone serve s3` over a folder; each bucket is a sub-folder."""
    data = home / "s3"
    for bucket in (RAW_BUCKET, STORE_BUCKET):
        (data / bucket).mkdir(parents=True, exist_ok=True)
    program = _find_program("rclone", "pip install 'segvigen-pipeline[local]'")
    return ServiceSpec(
        name="s3",
        argv=lambda port: [
            program,
            *f"serve s3 --addr 127.0.0.1:{port} --no-cleanup".split(),
            str(data),
        ],
        env=lambda port: {
            # In the environment, because every user of the machine can read a command line.
            # The quotes keep the pair together: rclone reads a list from this variable.
            "RCLONE_AUTH_KEY": f'"{secrets.s3_access_key},{secrets.s3_secret_key}"',
            "RCLONE_CONFIG": str(home / "run" / "rclone.conf"),
            "RCLONE_CACHE_DIR": str(home / "run" / "rclone-cache"),
        },
        base_env=_make_clean_env(),
        # A request without a signature is refused: any status shows that the server runs.
        is_ready=lambda port: get_http_status(f"http://127.0.0.1:{port}/") > 0,
        cwd=home,
        timeout_s=30,
    )


def make_s3_reader_spec(home: Path, secrets: Secrets) -> ServiceSpec:
    """Describe a second server over the same folder, with keys of its own that may only read."""
    writer = make_s3_spec(home, secrets)
    return ServiceSpec(
        name="s3-reader",
        # Nothing is cached: the objects come in by the other server.
        argv=lambda port: [*writer.argv(port), *["--read-only", "--dir-cache-time", "0s"]],
        env=lambda port: {
            **writer.env(port),
            "RCLONE_AUTH_KEY": f'"{secrets.s3_reader_access_key},{secrets.s3_reader_secret_key}"',
        },
        base_env=writer.base_env,
        is_ready=writer.is_ready,
        cwd=home,
        timeout_s=30,
    )


def make_prefect_env(home: Path, secrets: Secrets) -> dict[str, str]:
    """Return the Prefect settings of server, worker, flows and tests; telemetry is off."""
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_API_AUTH_STRING": secrets.prefect_auth,
    }


def make_prefect_spec(home: Path, secrets: Secrets) -> ServiceSpec:
    """Describe the Prefect server on SQLite; its API asks for a login.

    Whoever may use the API runs commands on the workers.
    """
    return ServiceSpec(
        name="prefect",
        argv=lambda port: [
            sys.executable,
            *["-m", "prefect", "server", "start", "--analytics-off"],
            *f"--host 127.0.0.1 --port {port}".split(),
        ],
        env=lambda port: {
            **make_prefect_env(home, secrets),
            "PREFECT_SERVER_API_AUTH_STRING": secrets.prefect_auth,
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": (
                f"http://127.0.0.1:{port},http://localhost:{port}"
            ),
            "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
            # Larger batches: with the defaults, bursts of events were lost.
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "200",
        },
        base_env=_make_inherited_env(),
        is_ready=lambda port: get_http_status(f"http://127.0.0.1:{port}/api/health") == 200,
        cwd=home,
        timeout_s=240,
    )


def make_worker_spec(home: Path, pool: str, env: Mapping[str, str], *, limit: int) -> ServiceSpec:
    """Describe a process worker of one work pool; flow runs inherit `env`."""
    api_url = env["PREFECT_API_URL"]
    name = f"worker-{pool}"
    return ServiceSpec(
        name=name,
        argv=lambda port: [
            sys.executable,
            *["-m", "prefect", "worker", "start", "--type", "process", "--install-policy", "never"],
            *f"--pool {pool} --name local-{pool} --limit {limit}".split(),
        ],
        env=lambda port: dict(env),
        base_env=_make_inherited_env(),
        is_ready=lambda port: _is_worker_online(api_url, pool, env["PREFECT_API_AUTH_STRING"]),
        cwd=REPOSITORY,
        timeout_s=180,
        has_port=False,
    )


def make_login_header(login: str) -> dict[str, str]:
    """Return the HTTP header of a "user:password" login."""
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _is_worker_online(api_url: str, pool: str, login: str) -> bool:
    request = urllib.request.Request(
        f"{api_url}/work_pools/{pool}/workers/filter",
        data=b"{}",
        headers={"Content-Type": "application/json", **make_login_header(login)},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=HTTP_TIMEOUT_S) as response:
            workers = json.load(response)
    except (OSError, ValueError):
        return False
    return any(w["name"] == f"local-{pool}" and w["status"] == "ONLINE" for w in workers)


def make_label_studio_spec(home: Path, secrets: Secrets) -> ServiceSpec:
    """Describe Label Studio from its own environment, with the user and token of the secrets."""
    program = find_label_studio()
    data = home / "label-studio"
    token = {"Authorization": f"Token {secrets.label_studio_token}"}
    return ServiceSpec(
        name="label-studio",
        argv=lambda port: [
            str(program),
            *f"start --no-browser --internal-host 127.0.0.1 --port {port}".split(),
        ],
        env=lambda port: {
            "HOME": str(data),
            "PYTHONPATH": str(REPOSITORY / "infra" / "label-studio"),
            "DJANGO_SETTINGS_MODULE": "partial_content",
            "LABEL_STUDIO_BASE_DATA_DIR": str(data),
            "LABEL_STUDIO_USERNAME": secrets.label_studio_username,
            "LABEL_STUDIO_PASSWORD": secrets.label_studio_password,
            "LABEL_STUDIO_USER_TOKEN": secrets.label_studio_token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            # S3 server and webhook are on 127.0.0.1; cloud metadata addresses stay banned.
            "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS": "false",
            "LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS": "169.254.0.0/16",
        },
        base_env=_make_clean_env(),
        # It takes the next port when its own is in use: only our token identifies it.
        is_ready=lambda port: (
            get_http_status(f"http://127.0.0.1:{port}/api/current-user/whoami", headers=token)
            == 200
        ),
        cwd=data,
        timeout_s=420,
    )


def make_refine_spec(home: Path, env: Mapping[str, str]) -> ServiceSpec:
    """Describe the live refine service."""
    return ServiceSpec(
        name="refine",
        argv=lambda port: [
            sys.executable,
            *["-m", "uvicorn", "--factory", "deployments.refine_service.app:create_app"],
            *f"--host 127.0.0.1 --port {port} --no-access-log".split(),
            "--timeout-graceful-shutdown=30",
        ],
        env=lambda port: dict(env),
        base_env=_make_inherited_env(),
        # Not /readyz: the stack does not wait until the model is loaded.
        is_ready=lambda port: get_http_status(f"http://127.0.0.1:{port}/health") == 200,
        cwd=REPOSITORY,
        timeout_s=180,
    )


def find_label_studio() -> Path:
    """Find Label Studio's start program, in its own environment: its pins conflict with ours."""
    override = os.environ.get("SEGVIGEN_LABEL_STUDIO_PROGRAM")
    places = [Path(override)] if override else []
    places += [
        folder / ".venv-label-studio/bin/label-studio" for folder in (REPOSITORY, Path.cwd())
    ]
    for place in places:
        if place.is_file():
            return place
    raise StackError(
        f"Label Studio is not installed in {places[-1].parent.parent}; run `make setup`, "
        "or set SEGVIGEN_LABEL_STUDIO_PROGRAM to its start program"
    )


def _find_program(name: str, hint: str) -> str:
    near_python = Path(sys.executable).parent / name
    found = str(near_python) if near_python.is_file() else shutil.which(name)
    if found is None:
        raise StackError(f"the program {name} is not installed; {hint}")
    return found


def _make_clean_env() -> dict[str, str]:
    return {name: os.environ[name] for name in CLEAN_ENVIRONMENT if name in os.environ}


def _make_inherited_env() -> dict[str, str]:
    """Return this environment without PREFECT_ and SEGVIGEN_ variables, which are set again."""
    inherited = dict(os.environ)
    set_thread_variables(inherited)
    return {
        name: value
        for name, value in inherited.items()
        if not name.startswith(("PREFECT_", "SEGVIGEN_"))
    }
