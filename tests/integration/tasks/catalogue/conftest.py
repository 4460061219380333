"""A real PostgreSQL server, and empty databases on it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

USERS = ("postgres", "nobody")  # the server refuses to run as root


def _programs() -> Path | None:
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


def _other_user() -> tuple[int, int] | None:
    """Who runs the server: somebody else if we are root, else ourselves (None)."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    pytest.skip("PostgreSQL does not run as root, and there is no other user")


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server programs (initdb) on this machine")
    owner = _other_user()
    folder = Path(tmp_path_factory.mktemp("pg", numbered=True))
    as_user: dict[str, int] = {}
    if owner is not None:
        as_user = {"user": owner[0], "group": owner[1]}
        os.chown(folder, *owner)
        for parent in list(folder.parents)[:3]:  # pytest's folders are closed to others
            if parent != Path("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o011)
    data, port = folder / "data", _free_port()
    init = [programs / "initdb", "-D", data, "-U", "me", "-A", "trust", "--no-sync", "-E", "UTF8"]
    done = subprocess.run(init, capture_output=True, text=True, cwd="/", **as_user)
    if done.returncode != 0:
        pytest.skip(f"initdb does not run here: {done.stderr[-200:]}")
    options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", str(folder)]
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, *options, "-c", "fsync=off"],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb") if owner is None else subprocess.DEVNULL,
        cwd="/",
        **as_user,
    )
    try:
        _wait(server, port)
        yield f"postgresql://me@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # "fast": does not wait for pooled connections
        server.wait(timeout=30)


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(120):
        if server.poll() is not None:
            pytest.skip("the PostgreSQL server ended at once")
        try:
            with psycopg.connect(host="127.0.0.1", port=port, user="me", dbname="postgres"):
                return
        except psycopg.OperationalError:
            time.sleep(0.25)
    pytest.fail("PostgreSQL did not answer in 30 s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def fresh_url(postgres_url: str) -> str:
    """A database of its own on the same server."""
    name = f"d{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return f"{postgres_url.rpartition('/')[0]}/{name}"
