"""Hostile code in the parsing process: what it tries, and what stops it, with each step alone."""

from __future__ import annotations

import os
import platform
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.sandbox.confinement import Confinement
from segvigen_model.mesh.sandbox.parser import LIBRARY_PROGRAM, Parser, ParserBudget
from segvigen_model.mesh.sandbox.process import SandboxUnavailable, make_environment
from segvigen_model.mesh.sandbox.seccomp import make_filter

SECRET = "H6-top-secret"
# Every attempt gives what it got, or the name of its error.
HOSTILE = """
import ctypes, os, signal, socket, subprocess, sys, threading
from segvigen_model.mesh.sandbox.child import serve

def attempt(action):
    try:
        return f"got {action()!r}"[:2000]
    except BaseException as err:
        return type(err).__name__

def connect(family, address):
    with socket.socket(family) as link:
        link.settimeout(5)
        link.connect(address)
        return link.recv(9)

def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)

def read(path):
    with open(path, "rb") as file:
        return file.read(100_000)

def write(path):
    with open(path, "w") as file:
        file.write("x")
    return path

def handle(head, blobs):
    worker, port, unix, secret_file, folder, inherited = blobs[0].decode().split("|")
    libc = ctypes.CDLL(None, use_errno=True)
    def syscall(*numbers):
        if libc.syscall(*map(ctypes.c_long, numbers)) < 0:
            raise OSError(ctypes.get_errno(), "")
        return "done"
    facts = {
        "tcp": attempt(lambda: connect(socket.AF_INET, ("127.0.0.1", int(port)))),
        "unix": attempt(lambda: connect(socket.AF_UNIX, unix)),
        "io_uring": attempt(lambda: syscall(425, 8, 0)),
        "environment": repr(dict(os.environ)),
        "worker_environ": attempt(lambda: read(f"/proc/{worker}/environ")),
        "worker_memory": attempt(lambda: read(f"/proc/{worker}/maps")),
        "template_environ": attempt(lambda: read(f"/proc/{os.getppid()}/environ")),
        "template_memory": attempt(lambda: write(f"/proc/{os.getppid()}/mem")),
        "secret_file": attempt(lambda: read(secret_file)),
        "write_there": attempt(lambda: write(folder + "/x")),
        "write_here": attempt(lambda: write("x")),
        "remove": attempt(lambda: os.unlink(secret_file)),
        "here": attempt(lambda: os.getcwd()),
        "fork": attempt(fork),
        "program": attempt(lambda: subprocess.run(["/bin/true"])),
        "thread": attempt(lambda: [threading.Thread(target=int).start()]),
        "signal_worker": attempt(lambda: os.kill(int(worker), 0)),
        "trace": attempt(lambda: syscall(101, 16, int(worker), 0, 0)),
        "escape_group": attempt(os.setsid),
        "survive_parent": attempt(lambda: [libc.prctl(1, 0, 0, 0, 0)]),
        "raise_limit": attempt(lambda: __import__("resource").setrlimit(9, (2**50, 2**50))),
        "limit_worker": attempt(lambda: __import__("resource").prlimit(int(worker), 4, (0, 0))),
        "no_new_privs": libc.prctl(39, 0, 0, 0, 0),
        "dumpable": libc.prctl(3, 0, 0, 0, 0),
        "core": __import__("resource").getrlimit(4)[1],
        "file_size": __import__("resource").getrlimit(1)[1],
        "has_inherited": inherited in [str(os.fstat(i).st_ino) for i in range(64) if is_open(i)],
    }
    return {"facts": facts}, [b""]

def is_open(number):
    try:
        os.fstat(number)
        return True
    except OSError:
        return False

serve(handle, without=sys.argv[1].split(","))
"""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A TCP and a UNIX server that greet whoever connects."""
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "socket"))
    unix.listen()

    def greet(server: socket.socket) -> None:
        while True:
            try:
                link, _ = server.accept()
            except OSError:
                return
            with link:
                link.sendall(b"welcome")

    for server in (tcp, unix):
        threading.Thread(target=greet, args=(server,), daemon=True).start()
    with socket.create_connection(tcp.getsockname()) as control:
        assert control.recv(9) == b"welcome", "whoever may connect is greeted"
    yield tcp.getsockname()[1], str(tmp_path / "socket")
    for server in (tcp, unix):
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its system call numbers are x86-64's")
@pytest.mark.parametrize(
    "without",
    ["", "seccomp", "namespaces", "landlock", "namespaces,landlock", "namespaces,seccomp"],
)
def test_hostile_code_reaches_nothing(
    without: str,
    servers: tuple[int, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEGVIGEN_STORE_S3_SECRET_KEY", SECRET)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    secret_file = tmp_path / ".env"
    secret_file.write_text(SECRET)
    port, unix = servers
    parser = Parser((sys.executable, "-c", HOSTILE, without))
    with secret_file.open() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        known = (os.getpid(), port, unix, secret_file, tmp_path, secret_file.stat().st_ino)
        request = "|".join(map(str, known)).encode()
        try:
            facts, granted = ask(parser, request)
        finally:
            parser.close()
    skip_unless_granted(granted, without)
    if granted.landlock == 0:
        assert SECRET in facts.pop("secret_file"), "readable for all: only Landlock hides it"
    check_always(facts)
    if granted.is_offline:
        assert facts["tcp"] in ("PermissionError", "OSError")
    if granted.has_seccomp:
        check_seccomp(facts)
    if granted.landlock:
        assert facts["secret_file"] == facts["worker_environ"] == "PermissionError"
    if granted.has_seccomp or granted.landlock:
        assert facts["write_there"] == "PermissionError"
    if granted.is_blind:
        assert facts["worker_memory"] == facts["worker_environ"] == "PermissionError"
    assert secret_file.read_text() == SECRET and not (tmp_path / "x").exists()


def ask(parser: Parser, request: bytes) -> tuple[dict[str, Any], Confinement]:
    budget = ParserBudget(60.0, 16.0, is_sandbox_required=False)
    parsed = parser.parse_mesh(request, "glb", {}, MeshLimits(), budget)
    return dict(parsed.facts), parsed.confinement


def skip_unless_granted(granted: Confinement, without: str) -> None:
    has = {
        "namespaces": granted.has_namespaces,
        "landlock": granted.landlock > 0,
        "seccomp": granted.has_seccomp,
    }
    for step in without.split(","):
        assert not has.pop(step, False), f"{step} was to be left out"
    if not any(has.values()):
        pytest.skip(f"this machine grants {granted.describe()}")


def check_always(facts: dict[str, Any]) -> None:
    """What needs neither namespaces nor Landlock nor seccomp."""
    assert SECRET not in str(facts)
    assert set(facts["environment"]).isdisjoint({"SEGVIGEN", "AWS"})
    assert not facts["has_inherited"]
    assert facts["no_new_privs"] == 1 and facts["dumpable"] == 0
    assert facts["core"] == 0 and facts["file_size"] == 0
    assert "segvigen-empty" in facts["here"]
    assert facts["write_here"] in ("PermissionError", "OSError")
    assert facts["raise_limit"] in ("ValueError", "PermissionError")
    assert facts["template_environ"] == facts["template_memory"] == "PermissionError"


def check_seccomp(facts: dict[str, Any]) -> None:
    for name in (
        *("tcp", "unix", "io_uring", "fork", "program", "remove", "signal_worker", "trace"),
        *("escape_group", "limit_worker"),
    ):
        assert facts[name] == "PermissionError", f"{name}: {facts[name]}"
    assert facts["survive_parent"] == "got [-1]"
    assert facts["thread"].startswith("got"), "libraries may have threads"


def test_a_machine_that_grants_nothing_is_refused_unless_allowed() -> None:
    everything = "--without=namespaces,seccomp"
    parser = Parser((*LIBRARY_PROGRAM, everything))
    try:
        with pytest.raises(SandboxUnavailable, match="IS_SANDBOX_REQUIRED=false"):
            parser.list_side_names(b"mtllib a.mtl", "obj", 9, ParserBudget())
        allowed = ParserBudget(is_sandbox_required=False)
        assert parser.list_side_names(b"mtllib a.mtl", "obj", 9, allowed) == ["a.mtl"]
        assert not parser.ask_confinement().is_offline
    finally:
        parser.close()


def test_the_environment_is_made_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGVIGEN_CATALOGUE_URL", "postgresql://u:pw@db/x")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["relative", "/opt/libraries"]))
    made = make_environment()
    assert not [name for name in made if name.startswith("SEGVIGEN")]
    assert "/opt/libraries" in made["PYTHONPATH"].split(os.pathsep)
    assert "relative" not in made["PYTHONPATH"].split(os.pathsep)
    assert list(Path(made["HOME"]).iterdir()) == []


def test_a_report_names_what_is_lacking() -> None:
    full = Confinement(True, True, 6, True)
    assert full.describe() == ("own user and network namespace, Landlock 6, seccomp, no_new_privs")
    assert Confinement().describe() == (
        "limits only; not granted: own user and network namespace, Landlock, seccomp, no_new_privs"
    )


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_jumps_of_the_filter_stay_inside(machine: str) -> None:
    code = make_filter(machine, 4711)
    steps = [code[i : i + 8] for i in range(0, len(code), 8)]
    assert len(code) % 8 == 0 and len(steps) < 4096, "BPF_MAXINSNS"
    for number, step in enumerate(steps):
        if step[0] in (0x15, 0x25, 0x45):
            assert number + 1 + max(step[2], step[3]) < len(steps)
    assert steps[-1][0] == 0x06
    with pytest.raises(OSError, match="no seccomp filter for 'riscv64'"):
        make_filter("riscv64", 1)
