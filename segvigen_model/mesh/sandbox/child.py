"""The confined process: requests on its input, each answered by a process of its own.

    python -P -m segvigen_model.mesh.sandbox.child MODULE [--without=namespaces,landlock,seccomp]

MODULE is imported and its `handle_request` answers. A frame, either way, is one line of JSON and
the bytes whose sizes it announces. The first frame tells what the machine granted. Each request is
answered by a fork with hard limits, so that no file can disturb the reading of the next one. When
it dies, the process that forked it ends in the same way; when the input ends, so do both.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from segvigen_model.errors import AssetRejected, MissingExtra, strip_addresses
from segvigen_model.mesh.formats.isolation import mark_isolated
from segvigen_model.mesh.formats.scratch import provide_scratch
from segvigen_model.mesh.sandbox.confinement import (
    Confinement,
    give_up_rights,
    leave_namespaces,
    limit_process,
)

Reply = tuple[Mapping[str, Any], Sequence[bytes]]
Handler = Callable[[Mapping[str, Any], Sequence[bytes]], Reply]
_OFFLINE_HINT = (
    "this machine grants neither namespaces nor seccomp, so that a parser could use the network; "
    "allow one of them, or set SEGVIGEN_INGEST_IS_SANDBOX_REQUIRED=false"
)
log = logging.getLogger(__name__)


def serve(
    handle: Handler, without: Collection[str] = (), has_namespaces: bool | None = None
) -> None:
    """Answer requests until the input ends.

    Args:
        handle: makes head and blobs of a reply from those of a request.
        without: steps of confinement left out.
        has_namespaces: whether `leave_namespaces` has moved this process; None = to be done here.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if has_namespaces is None:
        has_namespaces = leave_namespaces(without)
    source, nothing = sys.stdin.buffer, os.open(os.devnull, os.O_RDONLY)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no reply
        confinement = give_up_rights(has_namespaces, without)
        _write_frame(replies, {"confinement": asdict(confinement)})
        while line := source.readline():
            head = json.loads(line)
            blobs = [_read_exactly(source, size) for size in head["sizes"]]
            if head["is_sandbox_required"] and not confinement.is_offline:
                _write_frame(replies, {"id": head["id"], "unavailable": _OFFLINE_HINT})
                continue
            pid = os.fork()
            if pid == 0:
                os.dup2(nothing, source.fileno())
                _answer(handle, head, blobs, replies, confinement)
            del blobs
            _wait_for(pid, source.fileno())


def _answer(
    handle: Handler,
    head: Mapping[str, Any],
    blobs: Sequence[bytes],
    replies: IO[bytes],
    confinement: Confinement,
) -> None:
    """Answer one request and end this process."""
    code = 1
    try:
        provide_scratch(str(head.get("suffix", "")), head["gib"])
        limit_process(head["gib"], head["seconds"], confinement)
        reply, out = _call_handler(handle, head, blobs)
        _write_frame(replies, {**reply, "id": head["id"]}, out)
        code = 0
    finally:
        os._exit(code)


def _call_handler(handle: Handler, head: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    mark_isolated()
    try:
        return handle(head, blobs)
    except AssetRejected as err:
        return {"reason": err.reason, "message": err.message}, ()
    except MissingExtra as err:
        return {"missing": [err.package, err.hint]}, ()
    except MemoryError:
        hint = "simplify the mesh or raise parse_gib"
        return {"reason": "too_much_memory", "message": f"over {head['gib']:g} GiB; {hint}"}, ()
    except Exception as err:
        log.exception("stage=ingest reader failed")
        return {"fault": strip_addresses(f"{type(err).__name__}: {err}")}, ()


def _write_frame(replies: IO[bytes], head: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
    line = json.dumps({**head, "sizes": [len(blob) for blob in blobs]}).encode() + b"\n"
    for part in (line, *blobs):
        replies.write(part)
    replies.flush()


def _read_exactly(source: IO[bytes], size: int) -> bytes:
    """So many bytes; fewer mean that the asking process is gone."""
    data = source.read(size)
    if len(data) < size:
        raise SystemExit(0)
    return data


def _wait_for(pid: int, source: int) -> None:
    """Wait for the answering process; end with it if it fails, and with the asking one."""
    with suppress(OSError, AttributeError):  # older systems have no such handle: plain waiting
        handle = os.pidfd_open(pid)
        try:
            watch = select.poll()
            watch.register(handle, select.POLLIN)
            watch.register(source, 0)  # tells only that the other end is closed
            while handle not in dict(ready := watch.poll()):
                if ready:
                    raise SystemExit(0)  # the answering process ends with this one
        finally:
            os.close(handle)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    if status:
        os._exit(abs(status))


def main(arguments: Sequence[str]) -> None:
    """Import a module between the steps of confinement, and answer with its `handle_request`."""
    name, *options = arguments
    without = [word for text in options for word in text.removeprefix("--without=").split(",")]
    has_namespaces = leave_namespaces(without)
    module = importlib.import_module(name)
    serve(module.handle_request, without, has_namespaces)


if __name__ == "__main__":
    main(sys.argv[1:])
