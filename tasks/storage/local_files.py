"""Files of a store that is a local folder: made whole or not at all, leftovers cleared by age."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".tmp-"
COPY_CHUNK_BYTES = 8 * 2**20


def create_file(path: Path, data: bytes) -> None:
    """Create a file with its whole content or not at all; raise FileExistsError if it is there."""
    with _new_file(path) as file:
        file.write(data)


def create_copy(source: Path, path: Path) -> None:
    """Create a file with the content of another, as `create_file`."""
    with _new_file(path) as file, source.open("rb") as data:
        shutil.copyfileobj(data, file, COPY_CHUNK_BYTES)


def compute_file_sha256(file: Path) -> str:
    """Hex digest of a file's content."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY_PREFIX)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.link(temporary, path)
    finally:
        temporary.unlink()


def remove_leftovers(folder: Path, prefixes: tuple[str, ...], min_age_s: float) -> int:
    """Remove files and folders that a killed process left behind; returns their number.

    Args:
        folder: searched with all below it; links are not followed.
        prefixes: of the names of temporary files and folders.
        min_age_s: younger ones may be in use.
    """
    latest, num_removed = time.time() - min_age_s, 0
    for place, folders, files in os.walk(folder):
        for name in [each for each in (*folders, *files) if each.startswith(prefixes)]:
            path = Path(place, name)
            if _remove_old(path, latest):
                num_removed += 1
        folders[:] = [name for name in folders if not name.startswith(prefixes)]
    if num_removed:
        log.info("store=%s leftovers=%d removed", folder, num_removed)
    return num_removed


def _remove_old(path: Path, latest: float) -> bool:
    try:
        if path.lstat().st_mtime > latest:
            return False
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as err:  # another run was faster, or it is not ours
        log.warning("leftover=%s error=%r", path, err)
        return False
    return True
