"""The home folder of the local stack: secrets, service records, logs, data.

Secrets are made once and readable by their owner only. A service record holds what a later program
needs to find, check and stop a running service; it is replaced atomically.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from infra.processes import ProcessId, StackError

SECRETS_FILE = "secrets.json"
PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
LABEL_STUDIO_USER = "reviewer@local.test"


@dataclass(frozen=True, slots=True)
class Secrets:
    """Credentials of the local services. Never logged: repr shows no value.

    Attributes:
        s3_access_key, s3_secret_key: may write both buckets.
        s3_reader_access_key, s3_reader_secret_key: may read both buckets; Label Studio has these.
        webhook_token: Label Studio's webhook sends it to the refine service.
        live_password: Label Studio's ML backend sends it to the refine service.
        prefect_auth: "user:password" of Prefect's API.
    """

    s3_access_key: str
    s3_secret_key: str
    label_studio_username: str
    label_studio_password: str
    label_studio_token: str
    webhook_token: str
    live_password: str
    prefect_auth: str
    s3_reader_access_key: str
    s3_reader_secret_key: str

    def __repr__(self) -> str:
        return f"Secrets({', '.join(f.name for f in fields(self))} = ***)"


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """A started service, as stored on disk.

    Attributes:
        name, pid, started: which process; see infra.processes.ProcessId.
        port: where it listens on 127.0.0.1, or None.
        fingerprint: hash of its command and settings; the service is restarted when it differs.
    """

    name: str
    pid: int
    started: str
    port: int | None = None
    fingerprint: str = ""

    @property
    def process(self) -> ProcessId:
        """The process that this record names."""
        return ProcessId(self.pid, self.started)


def load_secrets(home: Path) -> Secrets:
    """Read the stack's secrets, making those that are missing (mode 0600)."""
    path = home / SECRETS_FILE
    make_private_folder(home)
    with lock_service(home, "secrets"):
        try:
            held = json.loads(path.read_text()) if path.exists() else {}
            # A home of an earlier version lacks the newer ones.
            secrets_ = Secrets(**(asdict(_make_secrets()) | held))
        except (ValueError, TypeError) as err:
            raise StackError(
                f"{path} cannot be read ({err}); remove the folder {home} to start again"
            ) from err
        if asdict(secrets_) != held:
            _write_private(path, json.dumps(asdict(secrets_), indent=1))
        path.chmod(PRIVATE_FILE)
        return secrets_


def make_private_folder(folder: Path) -> None:
    """Make a folder that its owner alone can enter; one that exists is closed to others."""
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(PRIVATE_FOLDER)


def _make_secrets() -> Secrets:
    return Secrets(
        s3_access_key="segvigen" + secrets.token_hex(6),
        s3_secret_key=secrets.token_hex(20),
        label_studio_username=LABEL_STUDIO_USER,
        label_studio_password=secrets.token_urlsafe(12),
        label_studio_token=secrets.token_hex(20),
        webhook_token=secrets.token_hex(20),
        live_password=secrets.token_hex(20),
        prefect_auth=f"segvigen:{secrets.token_hex(20)}",
        s3_reader_access_key="segvigenread" + secrets.token_hex(6),
        s3_reader_secret_key=secrets.token_hex(20),
    )


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "w") as sink:
        sink.write(text)
    draft.replace(path)


def make_log_path(home: Path, name: str) -> Path:
    """Return the log file of a service."""
    return home / "logs" / f"{name}.log"


def read_record(home: Path, name: str) -> ServiceRecord | None:
    """Read the record of a service; None where there is none or its file is broken."""
    try:
        return ServiceRecord(**json.loads((home / "run" / f"{name}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(home: Path, record: ServiceRecord) -> None:
    """Store the record of a started service."""
    _write_private(home / "run" / f"{record.name}.json", json.dumps(asdict(record), indent=1))


@contextlib.contextmanager
def lock_service(home: Path, name: str) -> Iterator[None]:
    """Hold the lock for starting or stopping one service; a second program waits."""
    folder = home / "run"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
