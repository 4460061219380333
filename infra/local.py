"""The whole pipeline on one machine, without Docker: `LocalStack(home).start()`.

S3 server, Prefect, Label Studio, workers and the refine service, all on 127.0.0.1, with all data
under one folder. Starting again changes nothing that runs; stopping ends recorded processes only
and keeps the data. With buckets on another S3 server no local one is started.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra import services
from infra.home import (
    Secrets,
    ServiceRecord,
    load_secrets,
    lock_service,
    make_log_path,
    read_record,
)
from infra.own_store import RAW_URL, ROOT_URL, describe_key_source, is_own_store
from infra.processes import StackError, is_running, stop_process
from infra.services import RAW_BUCKET, STORE_BUCKET, ensure_service, get_http_status
from tasks.settings import CONFIG_VARIABLE, read_file_variables

logger = logging.getLogger(__name__)

DEFAULT_HOME = Path(".segvigen")
REFINE_ADDRESSES = ("SEGVIGEN_REVIEW_WEBHOOK_URL", "SEGVIGEN_REVIEW_LIVE_URL")
WORK_POOLS = {"cpu": 4, "gpu": 1}  # flow runs at a time; a GPU holds one model
# In the order of stopping: clients before the services that they call.
SERVICES = ("worker-cpu", "worker-gpu", "refine", "label-studio", "prefect", "s3-reader", "s3")


@dataclass(frozen=True, slots=True)
class S3Endpoint:
    """A running S3 server. Buckets `raw_bucket` and `store_bucket` exist.

    The reader is a second server over the same buckets; its keys may only read.
    """

    url: str
    access_key: str
    secret_key: str
    reader_url: str
    reader_access_key: str
    reader_secret_key: str
    raw_bucket: str = RAW_BUCKET
    store_bucket: str = STORE_BUCKET

    def make_environment(self) -> dict[str, str]:
        """Return the settings variables for this server; Label Studio gets keys that only read."""
        return {
            ROOT_URL: f"s3://{self.store_bucket}",
            RAW_URL: f"s3://{self.raw_bucket}",
            "SEGVIGEN_STORE_S3_ENDPOINT_URL": self.url,
            "SEGVIGEN_STORE_S3_REGION": "us-east-1",
            "SEGVIGEN_STORE_S3_ACCESS_KEY": self.access_key,
            "SEGVIGEN_STORE_S3_SECRET_KEY": self.secret_key,
            "SEGVIGEN_REVIEW_S3_ENDPOINT_URL": self.reader_url,
            "SEGVIGEN_REVIEW_S3_ACCESS_KEY": self.reader_access_key,
            "SEGVIGEN_REVIEW_S3_SECRET_KEY": self.reader_secret_key,
        }

    def make_raw_environment(self) -> dict[str, str]:
        """Return the variables by which the pipeline may read raw meshes and not write any."""
        return {
            "SEGVIGEN_STORE_RAW_S3_ENDPOINT_URL": self.reader_url,
            "SEGVIGEN_STORE_RAW_S3_ACCESS_KEY": self.reader_access_key,
            "SEGVIGEN_STORE_RAW_S3_SECRET_KEY": self.reader_secret_key,
        }

    def __repr__(self) -> str:
        return f"S3Endpoint({self.url})"


@dataclass(frozen=True, slots=True)
class PrefectEndpoint:
    """A running Prefect server and the "user:password" of its API."""

    url: str
    login: str

    @property
    def api_url(self) -> str:
        """Value of PREFECT_API_URL."""
        return f"{self.url}/api"

    def make_environment(self) -> dict[str, str]:
        """Return the Prefect variables of a client."""
        return {"PREFECT_API_URL": self.api_url, "PREFECT_API_AUTH_STRING": self.login}

    def __repr__(self) -> str:
        return f"PrefectEndpoint({self.url})"


@dataclass(frozen=True, slots=True)
class LabelStudioEndpoint:
    """A running Label Studio and its only user."""

    url: str
    token: str
    username: str
    password: str

    def make_environment(self) -> dict[str, str]:
        """Return the settings variables for this server."""
        return {"SEGVIGEN_REVIEW_URL": self.url, "SEGVIGEN_REVIEW_API_KEY": self.token}

    def __repr__(self) -> str:
        return f"LabelStudioEndpoint({self.url}, {self.username})"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What `segvigen status` shows of one service."""

    name: str
    is_running: bool
    pid: int | None
    url: str | None
    log: str


def start_s3(home: Path) -> S3Endpoint:
    """Start (or find) the S3 servers of `home`: one that writes and one that only reads."""
    home = home.resolve()
    secrets = load_secrets(home)
    record = ensure_service(home, services.make_s3_spec(home, secrets))
    reader = ensure_service(home, services.make_s3_reader_spec(home, secrets))
    return _make_s3_endpoint(record, reader, secrets)


def start_prefect(home: Path) -> PrefectEndpoint:
    """Start (or find) the Prefect server of `home`."""
    home = home.resolve()
    secrets = load_secrets(home)
    record = ensure_service(home, services.make_prefect_spec(home, secrets))
    return PrefectEndpoint(_make_url(record), secrets.prefect_auth)


def start_label_studio(home: Path) -> LabelStudioEndpoint:
    """Start (or find) Label Studio of `home`; the first start takes minutes for migrations."""
    home = home.resolve()
    secrets = load_secrets(home)
    return _make_label_studio_endpoint(
        ensure_service(home, services.make_label_studio_spec(home, secrets)), secrets
    )


def start_worker(home: Path, pool: str, env: Mapping[str, str], limit: int = 1) -> ServiceRecord:
    """Start (or find) the process worker of a work pool.

    `env` must hold PREFECT_API_URL and PREFECT_API_AUTH_STRING.
    """
    home = home.resolve()
    return ensure_service(home, services.make_worker_spec(home, pool, env, limit=limit))


def start_refine(home: Path, env: Mapping[str, str]) -> str:
    """Start (or find) the refine service; returns its URL."""
    home = home.resolve()
    return _make_url(ensure_service(home, services.make_refine_spec(home, env)))


def stop_service(home: Path, name: str) -> bool:
    """Stop one service by its record; False if it did not run."""
    home = home.resolve()
    with lock_service(home, name):
        record = read_record(home, name)
        if record is None:
            return False
        stopped = stop_process(record.process)
        logger.info("service=%s stopped=%s pid=%d", name, stopped, record.pid)
        return stopped


def stop_s3(home: Path) -> bool:
    """Stop both S3 servers of a home; False if none ran."""
    stopped = [stop_service(home, name) for name in ("s3-reader", "s3")]
    return any(stopped)


class LocalStack:
    """Every service of one home folder.

    Args:
        home: data, logs and records; made on first start.
    """

    def __init__(self, home: Path = DEFAULT_HOME) -> None:
        self.home = home.resolve()

    def start(self, report: Callable[[str], None] = logger.info) -> dict[str, str]:
        """Start every service that does not run; returns the settings variables of the stack.

        Args:
            report: called with one line per service when it is ready.
        """
        load_secrets(self.home)
        starters = {
            "prefect": lambda: start_prefect(self.home).url,
            "label-studio": lambda: start_label_studio(self.home).url,
        }
        if not self.has_own_store:
            starters["s3"] = lambda: start_s3(self.home).url
        elif note := describe_key_source(_read_caller_settings()):
            report(note)
        # In parallel: the first start of Label Studio takes longer than the others together.
        with ThreadPoolExecutor(len(starters)) as pool:
            pending = {name: pool.submit(starter) for name, starter in starters.items()}
            for name, url in pending.items():
                report(f"{name} ready at {url.result()}")
        report(f"refine ready at {start_refine(self.home, self._make_refine_environment())}")
        return self.make_environment()

    def start_workers(self, report: Callable[[str], None] = logger.info) -> None:
        """Start one process worker per work pool; the pools must exist (see deployments)."""
        env = self.make_environment()
        with ThreadPoolExecutor(len(WORK_POOLS)) as pool:
            pending = {
                name: pool.submit(start_worker, self.home, name, env, limit)
                for name, limit in WORK_POOLS.items()
            }
            for name, record in pending.items():
                report(f"worker for pool {name} ready, pid {record.result().pid}")

    def stop(self, report: Callable[[str], None] = logger.info) -> None:
        """Stop every recorded service; data stays."""
        for name in SERVICES:
            if stop_service(self.home, name):
                report(f"{name} stopped")

    def list_status(self) -> list[ServiceStatus]:
        """Return the state of each service; without S3 where another server is used."""
        names = list(SERVICES)
        with suppress(StackError):  # one bucket here, one there: reported when the store is opened
            if not self.has_store and self.has_own_store:
                names = [name for name in names if not name.startswith("s3")]
        return [self._get_service_status(name) for name in names]

    @property
    def has_store(self) -> bool:
        """Whether this home ever had an S3 server, running or not."""
        return read_record(self.home, "s3") is not None

    @property
    def has_own_store(self) -> bool:
        """Whether the settings name buckets on another S3 server.

        Raises:
            StackError: only one of the two is on it.
        """
        record = read_record(self.home, "s3")
        return is_own_store(_read_caller_settings(), _make_url(record) if record else "")

    def make_environment(self) -> dict[str, str]:
        """Return the settings variables for this process, the workers and the refine service.

        The caller's SEGVIGEN_ variables and settings file take precedence over those of the running
        services, except S3 endpoints and keys, which belong together.
        """
        given = _read_caller_settings()
        secrets = load_secrets(self.home)
        env = {"SEGVIGEN_CATALOGUE_URL": f"sqlite:///{self.home}/catalogue.db"}
        env["SEGVIGEN_MODEL_CHECKPOINT_CACHE"] = str(self.home / "checkpoints")
        env["SEGVIGEN_REVIEW_WEBHOOK_TOKEN"] = secrets.webhook_token
        env["SEGVIGEN_REVIEW_LIVE_PASSWORD"] = secrets.live_password
        access: dict[str, str] = {}
        record, reader = self._find_running("s3"), self._find_running("s3-reader")
        if self.has_store and not self.has_own_store and record and reader:
            endpoint = _make_s3_endpoint(record, reader, secrets)
            env |= endpoint.make_environment() | endpoint.make_raw_environment()
            access = {name: text for name, text in env.items() if "_S3_" in name}
        if record := self._find_running("label-studio"):
            env |= _make_label_studio_endpoint(record, secrets).make_environment()
        if record := self._find_running("refine"):
            env["SEGVIGEN_REVIEW_WEBHOOK_URL"] = f"{_make_url(record)}/webhook"
            env["SEGVIGEN_REVIEW_LIVE_URL"] = _make_url(record)
        env |= services.make_prefect_env(self.home, secrets)
        if record := self._find_running("prefect"):
            env |= PrefectEndpoint(_make_url(record), secrets.prefect_auth).make_environment()
        return env | given | access

    def _make_refine_environment(self) -> dict[str, str]:
        """Leave out its own addresses: known when it runs, they would change its fingerprint."""
        env = self.make_environment()
        return {name: text for name, text in env.items() if name not in REFINE_ADDRESSES}

    def _find_running(self, name: str) -> ServiceRecord | None:
        record = read_record(self.home, name)
        return record if record is not None and is_running(record.process) else None

    def _get_service_status(self, name: str) -> ServiceStatus:
        record = self._find_running(name)
        has_url = record is not None and record.port is not None
        return ServiceStatus(
            name=name,
            is_running=record is not None
            and (not has_url or get_http_status(_make_url(record)) > 0),
            pid=record.pid if record else None,
            url=_make_url(record) if record and has_url else None,
            log=str(make_log_path(self.home, name)),
        )


def _read_caller_settings() -> dict[str, str]:
    """Return the settings of file and environment as variables; empty ones are left out."""
    own = {n: text for n, text in os.environ.items() if n.startswith("SEGVIGEN_") and text}
    if CONFIG_VARIABLE in own:  # relative to this folder; workers run in another one
        own[CONFIG_VARIABLE] = str(Path(own[CONFIG_VARIABLE]).resolve())
    return read_file_variables() | own


def _make_url(record: ServiceRecord) -> str:
    return f"http://127.0.0.1:{record.port}"


def _make_s3_endpoint(record: ServiceRecord, reader: ServiceRecord, secrets: Secrets) -> S3Endpoint:
    return S3Endpoint(
        _make_url(record),
        secrets.s3_access_key,
        secrets.s3_secret_key,
        _make_url(reader),
        secrets.s3_reader_access_key,
        secrets.s3_reader_secret_key,
    )


def _make_label_studio_endpoint(record: ServiceRecord, secrets: Secrets) -> LabelStudioEndpoint:
    return LabelStudioEndpoint(
        url=_make_url(record),
        token=secrets.label_studio_token,
        username=secrets.label_studio_username,
        password=secrets.label_studio_password,
    )
