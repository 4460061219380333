"""Untrusted files are read in a process of its own, so that none can take the run down with it.

    python -m tasks.ingest.sandbox

is that process: requests on its input, replies on its output. A frame is one line of JSON and the
bytes that it announces; a reply is one line of JSON.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import IO, Any

import numpy as np

from segvigen_model.errors import AssetRejected, SegvigenError
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.side_names import find_names
from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import AssetMesh

log = logging.getLogger(__name__)
PROGRAM = (sys.executable, "-m", "tasks.ingest.sandbox")
_NUM_TRIES = 2  # the machine may have run out of memory for another program's sake


class ParserFault(SegvigenError):
    """The reader failed in a way that no rule of ours foresaw; the message is its error."""


@dataclass(frozen=True, slots=True)
class ParserBudget:
    """Limits for parsing one file.

    Attributes:
        seconds: time limit.
        gib: address space of the process, GiB.
    """

    seconds: float
    gib: float


class Parser:
    """Has meshes read by another process, which is started when first needed and after a death.

    Args:
        program: that process.
    """

    def __init__(self, program: Sequence[str] = PROGRAM) -> None:
        self._program = tuple(program)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def measure_mesh(
        self,
        data: bytes,
        suffix: str,
        side_files: Mapping[str, bytes],
        limits: MeshLimits,
        budget: ParserBudget,
    ) -> dict[str, Any]:
        """Parse a mesh and describe it.

        Args:
            data: the whole file.
            suffix: its kind, e.g. "glb".
            side_files: name as written in the file -> bytes.
            limits: what the asset may cost.
            budget: of the process.

        Returns:
            Counts, area and bounds; see `facts_of`.

        Raises:
            AssetRejected: the file cannot be used, took too long, or killed its reader twice.
            ParserFault: a bug of ours or of a library.
        """
        head = {"suffix": suffix, "limits": asdict(limits), "names": list(side_files)}
        return dict(self._request(head, [data, *side_files.values()], budget)["facts"])

    def list_side_names(self, data: bytes, kind: str, most: int, budget: ParserBudget) -> list[str]:
        """Names of other files in a file.

        Args:
            data: the whole file.
            kind: "gltf", "obj", "mtl" or "ply".
            most: no more are searched.
            budget: of the process.

        Raises:
            AssetRejected, ParserFault: as for `measure`.
        """
        head = {"suffix": kind, "most": most}
        return [str(name) for name in self._request(head, [data], budget)["side_names"]]

    def _request(
        self, head: Mapping[str, Any], blobs: Sequence[bytes], budget: ParserBudget
    ) -> dict[str, Any]:
        """The reply to a request; raises the error that it carries or that its absence means."""
        request = {**head, "gib": budget.gib, "sizes": [len(blob) for blob in blobs]}
        frame = [json.dumps(request).encode() + b"\n", *blobs]
        with self._lock:
            for _ in range(_NUM_TRIES):
                reply, how = self._exchange(frame, budget.seconds)
                if reply is not None:
                    return _check_reply(reply)
                log.warning("stage=ingest reader ended: %s", how)
                if how == "late":
                    raise AssetRejected(
                        "parser_too_slow",
                        f"reading took over {budget.seconds:g} s; simplify the mesh or raise "
                        "parse_seconds",
                    )
        raise AssetRejected(
            "parser_died", f"reading ended with {how}, twice; export the mesh again, best as GLB"
        )

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):  # output that is no longer needed
                stream.close()  # type: ignore[union-attr]  # both are pipes
        process.wait()

    def _exchange(
        self, frame: Sequence[bytes], seconds: float
    ) -> tuple[dict[str, Any] | None, str]:
        """The reply, or None and how the process ended."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._program, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        process, late = self._process, threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            for part in frame:
                process.stdin.write(part)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if line.endswith(b"\n") and not late.is_set():
            return dict(json.loads(line)), ""
        self.close()
        return None, "late" if late.is_set() else _describe_exit(process.returncode)


@lru_cache(maxsize=1)
def get_shared_parser() -> Parser:
    """The one of this process; ended with it."""
    parser = Parser()
    atexit.register(parser.close)
    return parser


def summarize_mesh(mesh: AssetMesh) -> dict[str, Any]:
    """Description of a mesh for asset.json: counts, surface area, bounds (mesh frame)."""
    surface, used = measure_surface(mesh), mesh.used_vertices
    return {
        "num_faces": mesh.num_faces,
        "num_vertices": len(mesh.vertices),
        "num_geometries": max(len(mesh.geometry_names), 1),
        "num_materials": len(mesh.materials),
        "num_components": int(surface.components.max(initial=-1)) + 1,
        "is_textured": any(m.base_color_texture is not None for m in mesh.materials),
        "surface_area": float(surface.areas.sum()),
        "bounds": np.stack([used.min(0), used.max(0)]).tolist(),
    }


def _check_reply(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply; raises the error that it carries."""
    if "reason" in reply:
        raise AssetRejected(reply["reason"], reply["message"])
    if "fault" in reply:
        raise ParserFault(reply["fault"])
    return reply


def _describe_exit(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _handle_request(head: Mapping[str, Any], blobs: Sequence[bytes]) -> dict[str, Any]:
    """Read one file, in the process made for it."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(head["gib"] * 2**30)
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    try:
        if "most" in head:
            return {"side_names": find_names(blobs[0], head["suffix"], head["most"])}
        side_files = dict(zip(head["names"], blobs[1:], strict=True))
        limits = MeshLimits(**head["limits"])
        mesh = mesh_from_bytes(blobs[0], head["suffix"], side_files=side_files, limits=limits)
        return {"facts": summarize_mesh(mesh)}
    except AssetRejected as err:
        return {"reason": err.reason, "message": err.message}
    except MemoryError:
        hint = "simplify the mesh or raise parse_gib"
        return {"reason": "too_much_memory", "message": f"over {head['gib']:g} GiB; {hint}"}
    except Exception as err:
        log.exception("stage=ingest reader failed")
        return {"fault": f"{type(err).__name__}: {err}"}


def main() -> None:
    """Answer requests until the input ends."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    source = sys.stdin.buffer
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no reply
        while line := source.readline():
            head = json.loads(line)
            blobs = [_read_exactly(source, size) for size in head["sizes"]]
            replies.write(json.dumps(_handle_request(head, blobs)).encode() + b"\n")
            replies.flush()


def _read_exactly(source: IO[bytes], size: int) -> bytes:
    """So many bytes; fewer mean that the asking process is gone."""
    data = source.read(size)
    if len(data) < size:
        raise SystemExit(0)
    return data


if __name__ == "__main__":
    main()
