"""Processes are recognised by pid and start time, and stopped with what they started."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra import processes
from infra.processes import ProcessId, StackError

SLEEPER = "import time; time.sleep(60)"
PARENT = (
    "import subprocess, sys, time\n"
    f"child = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True)\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(60)\n"
)


def _spawn(tmp_path: Path, code: str) -> ProcessId:
    argv = [sys.executable, "-c", code]
    return processes.spawn_process(argv, dict(os.environ), tmp_path, tmp_path / "x.log")


def _wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_stop_ends_the_process(tmp_path):
    process = _spawn(tmp_path, SLEEPER)
    assert processes.is_running(process)
    assert processes.stop_process(process)
    assert not processes.is_running(process)
    assert not processes.stop_process(process), "a second stop has nothing to do"


def test_stop_ends_children_in_other_sessions(tmp_path):
    process = _spawn(tmp_path, PARENT)
    log = tmp_path / "x.log"
    _wait_for(lambda: log.read_text().strip(), "the parent told no child")
    child = int(log.read_text())
    started = processes.read_start_time(child)
    assert started
    processes.stop_process(process)
    assert processes.read_start_time(child) != started


def test_stop_kills_what_ignores_the_polite_signal(tmp_path):
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True);"
    process = _spawn(tmp_path, code + SLEEPER)
    _wait_for((tmp_path / "x.log").read_text, "it did not start")
    assert processes.stop_process(process, grace_s=0.3)
    assert not processes.is_running(process)


def test_a_reused_pid_is_never_signalled():
    with subprocess.Popen([sys.executable, "-c", SLEEPER]) as other_process:
        try:
            stale = ProcessId(other_process.pid, "another time")
            assert not processes.is_running(stale)
            assert not processes.stop_process(stale)
            assert other_process.poll() is None
        finally:
            other_process.kill()


def test_an_early_end_shows_the_log(tmp_path):
    process = _spawn(tmp_path, "raise SystemExit('no such option: --colour')")
    with pytest.raises(StackError, match="no such option"):
        processes.wait_until_ready(
            process, lambda: False, name="x", log=tmp_path / "x.log", timeout_s=10
        )


def test_a_time_out_reports_it(tmp_path):
    process = _spawn(tmp_path, SLEEPER)
    with pytest.raises(StackError, match=r"did not answer within 0\.3 s"):
        processes.wait_until_ready(
            process, lambda: False, name="x", log=tmp_path / "x.log", timeout_s=0.3
        )
    processes.stop_process(process)


def test_the_log_of_the_start_before_is_kept(tmp_path):
    for text in ("first", "second"):
        process = _spawn(tmp_path, f"print({text!r})")
        _wait_for(lambda p=process: not processes.is_running(p), "it did not end")
    assert (tmp_path / "x.log").read_text() == "second\n"
    assert (tmp_path / "x.old.log").read_text() == "first\n"


def test_free_port_prefers_the_old_one():
    port = processes.find_free_port()
    assert processes.find_free_port(port) == port
