"""Files of a store that is a local folder: made whole or not at all.

A folder that others write into is not trusted: links are followed to where they lead, which must be
inside the folder, and only regular files are opened.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tasks.storage.errors import UnsafePlace
from tasks.storage.leftovers import TEMPORARY_PREFIX

log = logging.getLogger(__name__)

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


def check_place(root: Path, path: Path) -> Path:
    """Follow links to the file that a path stands for; nothing is opened.

    Args:
        root: folder that it must lie in.
        path: below it by its name.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafePlace: it lies elsewhere, or is no regular file: a pipe would never end.
    """
    base = root.resolve()
    try:
        whole = path.resolve(strict=True)
    except (FileNotFoundError, RuntimeError, OSError) as err:  # RuntimeError: a circle of links
        if not path.is_symlink():
            raise
        raise UnsafePlace(
            "not_a_file", f"{path} is a link that leads nowhere; put the file itself there"
        ) from err
    if not whole.is_relative_to(base):
        raise UnsafePlace(
            "outside_root",
            f"{path} is a link out of the folder, to {whole}; put the file itself there",
        )
    _check_kind(path, whole.stat().st_mode)
    return whole


def read_file(root: Path, path: Path, start: int | None = None, end: int | None = None) -> bytes:
    """Read a regular file inside a folder, or a range of it; raises as `check_place`, OSError."""
    # The place is checked, then opened without following a link or waiting for a pipe's writer,
    # then checked again: it may have been exchanged in between.
    whole = check_place(root, path)
    handle = os.open(whole, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        _check_kind(path, os.fstat(handle).st_mode)
        now, opened = check_place(root, path).stat(), os.fstat(handle)
        if (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino):
            raise UnsafePlace(
                "outside_root", f"{path} was exchanged while it was opened; try again"
            )
        file.seek(start or 0)
        return file.read(-1 if end is None else max(end - (start or 0), 0))


def list_files(root: Path, below: Path) -> dict[str, dict[str, Any]]:
    """Everything in a folder that is no folder, by its whole path, without judging what it is.

    Args:
        root: of the store.
        below: folder or file in it; links to folders are not followed, but listed.
    """
    if not below.resolve().is_relative_to(root.resolve()):
        log.warning("store=%s not listed, a link out of the folder: %s", root, below)
        return {}
    if below.is_file():
        return {str(below): describe_file(below)}
    found = {}
    for place, folders, files in os.walk(below):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in (*files, *links):
            path = Path(place, name)
            try:
                found[str(path)] = describe_file(path)
            except FileNotFoundError:
                continue  # deleted meanwhile
    return found


def describe_file(path: Path) -> dict[str, Any]:
    """Size, time and number of a file, of what a link leads to; raises FileNotFoundError."""
    try:
        about = path.stat()
    except (FileNotFoundError, RuntimeError, OSError) as err:
        if isinstance(err, OSError) and not path.is_symlink():
            raise
        about = path.lstat()  # a link that leads nowhere, or in a circle
    if stat.S_ISDIR(about.st_mode) and path.is_symlink():
        about = path.lstat()  # what goes on in that folder is no change of the link
    kind = "file" if stat.S_ISREG(about.st_mode) else "other"
    return {"size": about.st_size, "mtime": about.st_mtime, "ino": about.st_ino, "type": kind}


def _check_kind(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode) and not path.is_symlink():
        raise IsADirectoryError(path)
    if not stat.S_ISREG(mode):
        raise UnsafePlace("not_a_file", f"{path} is a pipe, device, socket or folder; remove it")


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
