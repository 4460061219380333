"""Bytes as a file for a library that reads nothing else, in a process that may write no file.

The parser's process makes a few empty memory files before its limits hold. Later they are filled
through a mapping, cut to size, and read under `/proc/self/fd`: no file of the machine is written,
and none can be made. A process that is not confined takes a temporary file.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from segvigen_model.errors import AssetRejected

NUM_FILES = 32  # each can be used once: a file cannot grow again where nothing may be written
SCRATCH_SUFFIXES = ("usd", "usda", "usdc", "usdz", "zip")

_free: list[int] = []


def provide_scratch(suffix: str, gib: float) -> None:
    """Make the files that a format may need; for the parser's process, before its limits hold.

    Args:
        suffix: the format.
        gib: what the process may use; no file can be larger.
    """
    if suffix.lstrip(".").lower() not in SCRATCH_SUFFIXES or not hasattr(os, "memfd_create"):
        return
    for _ in range(NUM_FILES):
        handle = os.memfd_create("scratch")
        os.ftruncate(handle, int(gib * 2**30))  # takes no memory until it is filled
        _free.append(handle)


@contextmanager
def lend_file(data: bytes, is_confined: bool) -> Iterator[str]:
    """The path of a file with these bytes, for as long as the block runs.

    Args:
        data: at least one byte.
        is_confined: use what `provide_scratch` made; else a temporary file.

    Raises:
        AssetRejected: too_many_layers, when all files are used.
    """
    if not is_confined:
        with tempfile.NamedTemporaryFile(prefix="segvigen-") as file:
            file.write(data)
            file.flush()
            yield file.name
        return
    if not _free:
        raise AssetRejected(
            "too_many_layers",
            f"more than {NUM_FILES} binary layers; join them: usdcat --flatten IN -o OUT.usdc",
        )
    handle = _free.pop()
    try:
        os.ftruncate(handle, len(data))
        with mmap.mmap(handle, len(data)) as memory:
            memory[:] = data
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
