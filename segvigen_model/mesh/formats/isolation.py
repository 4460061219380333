"""Where decoders of compressed formats may run: in a confined process, or where a caller says so.

Draco, meshopt, KTX2, FBX, USD, ZIP and their like unfold a few bytes to gigabytes, and are decoded
by libraries that are not ours. Such a reader calls `require_isolation` before its first byte. The
parser's process calls `mark_isolated` once its limits hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from segvigen_model.errors import AssetRejected

NEEDS_SANDBOX = "needs_sandbox"

_is_allowed_here: ContextVar[bool] = ContextVar("is_allowed_here", default=False)
_process = {"is_isolated": False}


class NeedsIsolation(AssetRejected):
    """A file that only a confined process may decode; `load_mesh` and ingest start one."""

    def __init__(self, what: str) -> None:
        super().__init__(
            NEEDS_SANDBOX,
            f"{what} is decoded in a confined process only; use load_mesh, or "
            "allow_decoding_here() for a file that you trust",
        )
        self.what = what

    def __reduce__(self) -> tuple[type[NeedsIsolation], tuple[str]]:  # type: ignore[override]
        return type(self), (self.what,)


def require_isolation(what: str) -> None:
    """Refuse to go on where a decompression bomb or a library's fault would hurt.

    Args:
        what: the format, for the message, e.g. "Draco".

    Raises:
        NeedsIsolation: this process is not confined, and its caller has not allowed it.
    """
    if not (_process["is_isolated"] or _is_allowed_here.get()):
        raise NeedsIsolation(what)


@contextmanager
def allow_decoding_here() -> Iterator[None]:
    """Decode compressed formats in this process, without any limit on what they unfold to."""
    token = _is_allowed_here.set(True)
    try:
        yield
    finally:
        _is_allowed_here.reset(token)


def is_isolated() -> bool:
    """Is this a confined process, which can write no file?"""
    return _process["is_isolated"]


def mark_isolated() -> None:
    """Say that this process is confined; for the parser's process, once its limits hold."""
    _process["is_isolated"] = True
