"""Starts the confined process and exchanges frames with it, within a time limit.

The process gets an environment made here, pipes instead of our descriptors, and an empty folder
that it cannot write into. Nothing that it sends is believed: lines and sizes are bounded, and a
reply has to carry the number of its request.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import site
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from segvigen_model.errors import NotReady, SegvigenError
from segvigen_model.mesh.sandbox.confinement import Confinement

log = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-P", "-m", "segvigen_model.mesh.sandbox.child")
_PACKAGES = ("segvigen_model", "tasks")
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_MAX_LINE_BYTES = 2**26  # of a reply's head: tens of thousands of names fit
_MAX_WORDS = 100  # lines of its standard error that are logged
_START_S = 120.0  # imports on a busy machine


class ParserFault(SegvigenError):
    """The parser failed in a way that no rule of ours foresaw; the message is its error."""


class SandboxUnavailable(NotReady):
    """This machine cannot start the parser, or cannot confine it."""


class ProcessEnded(SegvigenError):
    """The process ended without a reply.

    Attributes:
        is_late: its time was over.
    """

    def __init__(self, how: str, *, is_late: bool = False) -> None:
        super().__init__(how)
        self.is_late = is_late

    def __reduce__(self) -> tuple[type[ProcessEnded], tuple[str]]:
        return type(self), (str(self),)


def make_environment() -> dict[str, str]:
    """Everything that the process's environment holds: where Python is, one thread, no secrets."""
    empty = str(_make_empty_folder())
    roots = [str(root) for name in _PACKAGES if (root := _find_root(name))]
    given = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(p).is_absolute()]
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    user = {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
    return {
        **kept,
        **user,
        **dict.fromkeys(_THREADS, "1"),
        "HOME": empty,
        "TMPDIR": empty,
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([*roots, *given])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
    }


class ConfinedProcess:
    """One running process.

    Args:
        program: what to start.
        grace: seconds for its start.

    Attributes:
        confinement: what the machine granted, as the process says.

    Raises:
        SandboxUnavailable: it does not start.
    """

    def __init__(self, program: Sequence[str], grace: float = _START_S) -> None:
        self._process = subprocess.Popen(
            tuple(program),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=make_environment(),
            cwd=_make_empty_folder(),
            start_new_session=True,  # killed as a group
        )
        threading.Thread(target=self._log_words, name="parser-words", daemon=True).start()
        try:
            hello, _ = self._exchange((), grace, 0)
        except ProcessEnded as err:
            raise SandboxUnavailable(
                f"the parser does not start: {'no word in time' if err.is_late else err}; "
                "its last words are in the log"
            ) from err
        self.confinement = _read_confinement(hello)

    @property
    def pid(self) -> int:
        """Of the process that forks one for each request."""
        return self._process.pid

    def ask(
        self, head: Mapping[str, Any], blobs: Sequence[bytes], seconds: float, max_bytes: int
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Send a request and wait for its reply.

        Args:
            head: JSON-able.
            blobs: what comes with it.
            seconds: time limit; then the process is killed.
            max_bytes: of the reply's blobs together.

        Raises:
            ProcessEnded: no reply came, or none that can be one. The process is gone.
        """
        number = secrets.token_hex(8)
        request = {**head, "id": number, "sizes": [len(blob) for blob in blobs]}
        try:
            line = json.dumps(request).encode() + b"\n"
            reply, out = self._exchange([line, *blobs], seconds, max_bytes)
            if reply.get("id") != number:
                raise ProcessEnded("a reply to no request")
        except BaseException:
            self.close()
            raise
        return reply, out

    def close(self) -> None:
        """End the process and all that it has forked."""
        process = self._process
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):  # output that is no longer needed
                stream.close()  # type: ignore[union-attr]  # both are pipes
        process.wait()

    def _exchange(
        self, parts: Iterable[bytes], seconds: float, max_bytes: int
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Write a frame and read one; raises ProcessEnded."""
        process, late = self._process, threading.Event()
        assert process.stdin is not None and process.stdout is not None

        def stop() -> None:
            late.set()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        frame = None
        try:
            for part in parts:
                process.stdin.write(part)
            process.stdin.flush()
            frame = _read_frame(process.stdout, max_bytes)
        except (BrokenPipeError, ValueError, RecursionError):
            log.debug("stage=ingest parser ended or sent no reply", exc_info=True)
        finally:
            timer.cancel()
        if frame is None or late.is_set():
            self.close()
            code = process.returncode
            is_late = late.is_set() or code == -signal.SIGXCPU
            raise ProcessEnded(_describe_exit(code), is_late=is_late)
        return frame

    def _log_words(self) -> None:
        """What the process writes to its standard error, within bounds."""
        stream = self._process.stderr
        assert stream is not None
        with suppress(ValueError, OSError), stream:
            for number, line in enumerate(iter(lambda: stream.readline(1000), b"")):
                if number < _MAX_WORDS:
                    log.warning("parser: %s", line.decode("ascii", "backslashreplace").rstrip())


def _read_frame(stream: IO[bytes], max_bytes: int) -> tuple[dict[str, Any], list[bytes]] | None:
    """One frame, or None where the stream ends before it does; raises ValueError for nonsense."""
    line = stream.readline(_MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        return None
    head = json.loads(line)
    sizes = head.get("sizes") if isinstance(head, dict) else None
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError("a frame without sizes")
    if sum(sizes) > max_bytes:
        raise ValueError(f"a frame of {sum(sizes)} bytes")
    blobs = [stream.read(size) for size in sizes]
    return (head, blobs) if [len(blob) for blob in blobs] == sizes else None


def _read_confinement(hello: Mapping[str, Any]) -> Confinement:
    found = hello.get("confinement")
    return Confinement(**found) if isinstance(found, dict) else Confinement()


def _find_root(package: str) -> Path | None:
    """Folder that a package of ours lies in."""
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]).resolve().parent if places else None


def _make_empty_folder() -> Path:
    """A folder that is ours, empty, and not to be written; the same every time, so none is left."""
    folder = Path(tempfile.gettempdir()) / f"segvigen-empty-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o500)
    about = folder.lstat()
    is_ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
    if is_ours and not about.st_mode & 0o222 and not any(folder.iterdir()):
        return folder
    return Path(tempfile.mkdtemp(prefix="segvigen-empty-"))  # another put something there


def _describe_exit(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
