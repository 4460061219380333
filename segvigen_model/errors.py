"""Every error that this project raises on purpose.

One base class, so that a caller can catch "ours" and let bugs through. A message says what was
wrong, the value, and what to do.
"""

from __future__ import annotations

import re

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object in a library's message


def strip_addresses(text: str) -> str:
    """Leave out the addresses of objects that libraries put into their messages."""
    return _ADDRESS.sub("", text)


class SegvigenError(Exception):
    """Base of all errors raised on purpose."""


class AssetRejected(SegvigenError):
    """One asset cannot be used; the run goes on without it.

    Args:
        reason: short machine-readable word, e.g. "no_faces"; stored in the catalogue.
        message: what was wrong, the value, what to do. Memory addresses in it are left out, so that
            the same fault has the same text every time.
    """

    def __init__(self, reason: str, message: str) -> None:
        message = strip_addresses(message)
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[AssetRejected], tuple[str, str]]:
        return type(self), (self.reason, self.message)


class CorruptBlob(SegvigenError):
    """Stored bytes are not of the form that their key requires."""


class CheckpointMismatch(SegvigenError):
    """A checkpoint does not fit the model it is loaded into."""


class InvalidConfig(SegvigenError):
    """A configuration has an unknown setting, or a value outside its range."""


class NotReady(SegvigenError):
    """Something is missing on this machine, or a service that is needed does not run."""


class MissingExtra(NotReady):
    """An optional package is needed and absent; raised on use, never at import."""

    def __init__(self, package: str, hint: str) -> None:
        super().__init__(f"{package} is not installed; {hint}")
        self.package = package
        self.hint = hint

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.package, self.hint)
