"""Parses untrusted meshes by a confined process, which is started when first needed."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from segvigen_model.errors import AssetRejected, MissingExtra
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.sandbox.confinement import Confinement
from segvigen_model.mesh.sandbox.process import (
    PROGRAM,
    ConfinedProcess,
    ParserFault,
    ProcessEnded,
    SandboxUnavailable,
)

log = logging.getLogger(__name__)

LIBRARY_PROGRAM = (*PROGRAM, "segvigen_model.mesh.sandbox.handlers")
_NUM_TRIES = 2  # the machine may have run out of memory for another program's sake


@dataclass(frozen=True, slots=True)
class ParserBudget:
    """Limits for parsing one file.

    Attributes:
        seconds: time limit, of the clock and of the CPU.
        gib: address space of the process, GiB.
        is_sandbox_required: parse only where the network can be taken away.
    """

    seconds: float = 600.0
    gib: float = 16.0
    is_sandbox_required: bool = True


@dataclass(frozen=True, slots=True)
class ParsedMesh:
    """What came out of a file.

    Attributes:
        canonical: the mesh, for `mesh_from_canonical`.
        facts: counts, area and bounds, where the process describes them.
        confinement: of the process that parsed it.
    """

    canonical: bytes = field(repr=False)
    facts: Mapping[str, Any]
    confinement: Confinement


class Parser:
    """Has files parsed by another process, which is started again after a death.

    Args:
        program: that process.
    """

    def __init__(self, program: Sequence[str] = LIBRARY_PROGRAM) -> None:
        self._program = tuple(program)
        self._process: ConfinedProcess | None = None
        self._lock = threading.Lock()

    def parse_mesh(
        self,
        data: bytes,
        suffix: str,
        side_files: Mapping[str, bytes],
        limits: MeshLimits,
        budget: ParserBudget,
    ) -> ParsedMesh:
        """Parse a mesh.

        Args:
            data: the whole file.
            suffix: its kind, e.g. "glb".
            side_files: name as written in the file -> bytes.
            limits: what the asset may cost.
            budget: of the process.

        Raises:
            AssetRejected: the file cannot be used, took too long, or killed its parser twice.
            ParserFault: a bug of ours or of a library.
            SandboxUnavailable: this machine cannot confine the process.
            MissingExtra: the format's decoder is not installed.
        """
        head = {"suffix": suffix, "limits": asdict(limits), "names": list(side_files)}
        reply, blobs, confinement = self._request(head, [data, *side_files.values()], budget)
        if len(blobs) != 1 or not isinstance(reply.get("facts"), dict):
            raise ParserFault("the parser sent no mesh")
        return ParsedMesh(blobs[0], reply["facts"], confinement)

    def list_side_names(self, data: bytes, kind: str, most: int, budget: ParserBudget) -> list[str]:
        """Names of other files in a file.

        Args:
            data: the whole file.
            kind: "gltf", "obj", "mtl" or "ply".
            most: no more are searched.
            budget: of the process.

        Raises:
            AssetRejected, ParserFault, SandboxUnavailable: as for `parse_mesh`.
        """
        reply, _, _ = self._request({"suffix": kind, "most": most}, [data], budget)
        names = reply.get("side_names")
        if not isinstance(names, list):
            raise ParserFault("the parser sent no names")
        return [str(name) for name in names[:most]]

    def ask_confinement(self) -> Confinement:
        """What this machine grants the process, which is started for it.

        Raises:
            SandboxUnavailable: it does not start.
        """
        with self._lock:
            return self._start().confinement

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _request(
        self, head: Mapping[str, Any], blobs: Sequence[bytes], budget: ParserBudget
    ) -> tuple[dict[str, Any], list[bytes], Confinement]:
        """The reply to a request; raises the error that it carries or that its absence means."""
        request = {
            **head,
            "gib": budget.gib,
            "seconds": budget.seconds,
            "is_sandbox_required": budget.is_sandbox_required,
        }
        with self._lock:
            for number in range(_NUM_TRIES):
                try:
                    process = self._start()
                    most = int(budget.gib * 2**30)
                    reply, out = process.ask(request, blobs, budget.seconds, most)
                    return _check_reply(reply), out, process.confinement
                except ProcessEnded as err:
                    self._process = None
                    log.warning("stage=ingest parser ended: %s", err)
                    if err.is_late:
                        raise AssetRejected(
                            "parser_too_slow",
                            f"reading took over {budget.seconds:g} s; simplify the mesh or raise "
                            "parse_seconds",
                        ) from err
                    if number == _NUM_TRIES - 1:
                        raise AssetRejected(
                            "parser_died",
                            f"reading ended with {err}, twice; export the mesh again, best as GLB",
                        ) from err
        raise AssertionError("unreachable")

    def _start(self) -> ConfinedProcess:
        if self._process is None:
            self._process = ConfinedProcess(self._program)
            log.info("stage=ingest parser started: %s", self._process.confinement.describe())
        return self._process


@lru_cache(maxsize=1)
def get_library_parser() -> Parser:
    """The one of this process that describes nothing; ended with it."""
    parser = Parser()
    atexit.register(parser.close)
    return parser


def _check_reply(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply; raises the error that it carries."""
    if "reason" in reply:
        raise AssetRejected(str(reply["reason"]), str(reply.get("message")))
    if "missing" in reply:
        package, hint = map(str, reply["missing"])
        raise MissingExtra(package, hint)
    if "fault" in reply:
        raise ParserFault(str(reply["fault"]))
    if "unavailable" in reply:
        raise SandboxUnavailable(str(reply["unavailable"]))
    return reply
