"""A PostgreSQL server of its own: started, killed with SIGKILL, started again on the same port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

from infra.processes import StackError, find_free_port

USERS = ("postgres", "nobody")  # the server refuses to run as root
START_S = 60.0
POLL_S = 0.1


def find_programs() -> Path | None:
    """The folder of `initdb` and `postgres`, or None."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


class PostgresServer:
    """One server on a free port of 127.0.0.1.

    Args:
        folder: a new one; its owner becomes the server's user where we are root.
    """

    def __init__(self, folder: Path) -> None:
        programs = find_programs()
        if programs is None:
            raise StackError("no PostgreSQL server programs (initdb) here; install postgresql")
        self._programs, self._folder = programs, folder
        self._as_user = _find_other_user()
        self._port = find_free_port()
        self._server: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        if self._as_user:
            os.chown(folder, self._as_user["user"], self._as_user["group"])
            for parent in folder.parents:
                if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
        self._run(
            "initdb", "-D", folder / "data", *["-U", "me", "-A", "trust", "--no-sync", "-E", "UTF8"]
        )

    @property
    def url(self) -> str:
        """Of its database."""
        return f"postgresql://me@127.0.0.1:{self._port}/postgres"

    @property
    def is_alive(self) -> bool:
        """Does the postmaster run?"""
        return self._server is not None and self._server.poll() is None

    def start(self) -> None:
        """Start it and wait until it takes connections; after a kill it recovers first."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if not self.is_alive:  # the last one's backends may not all be gone yet
                self._server = self._spawn()
            if self._takes_connections():
                return
            time.sleep(POLL_S)
        raise StackError(f"PostgreSQL did not start within {START_S:g} s; see {self._folder}/log")

    def kill(self) -> None:
        """SIGKILL the postmaster; its backends notice and end."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def stop(self) -> None:
        """End it without waiting for connections."""
        if self.is_alive:
            assert self._server is not None
            self._server.send_signal(signal.SIGINT)
            try:
                self._server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = ["-p", str(self._port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        options += ["-k", str(self._folder), "-D", str(self._folder / "data")]
        with (self._folder.parent / "postgres.log").open("ab") as log:
            return subprocess.Popen(
                [self._programs / "postgres", *options],
                stdout=log,
                stderr=log,
                cwd="/",
                **self._as_user,
            )

    def _takes_connections(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _run(self, program: str, *arguments: object) -> None:
        argv = [self._programs / program, *map(str, arguments)]
        done = subprocess.run(
            argv, capture_output=True, text=True, cwd="/", check=False, **self._as_user
        )
        if done.returncode:
            raise StackError(f"{program} does not run here: {done.stderr[-400:]}")


def _find_other_user() -> dict[str, int]:
    if os.geteuid() != 0:
        return {}
    for name in USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid}
    raise StackError("PostgreSQL does not run as root, and there is no other user")
