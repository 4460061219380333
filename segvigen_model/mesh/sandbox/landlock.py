"""Landlock: a process reads the folders of Python and nothing else, and writes nowhere.

It also keeps a process from looking into others (`/proc/PID/environ`), from TCP and, on newer
kernels, from signals and abstract sockets of processes outside.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from segvigen_model.mesh.sandbox.libc import syscall

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture
_GET_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Rights by the version that brought them: all of a version's are taken away.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # version -> number of rights
_NET_VERSION, _ALL_TCP = 4, 0b11
_SCOPE_VERSION, _ALL_SCOPES = 6, 0b11


def restrict_to(readable: Iterable[Path]) -> int:
    """Allow reading below some places and nothing else, for ever; needs no_new_privs.

    Args:
        readable: folders and files; those that are absent are left out.

    Returns:
        The kernel's version of Landlock.

    Raises:
        OSError: the kernel has none, or it is turned off.
    """
    version = syscall(_CREATE, None, 0, _GET_VERSION)
    number = max(count for since, count in _FILE_RIGHTS.items() if since <= version)
    words = [(1 << number) - 1]
    words += [_ALL_TCP] if version >= _NET_VERSION else []
    words += [_ALL_SCOPES] if version >= _SCOPE_VERSION else []
    attributes = struct.pack(f"={len(words)}Q", *words)
    rules = syscall(_CREATE, ctypes.create_string_buffer(attributes), len(attributes), 0)
    try:
        for place in readable:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                _allow_reading(rules, place)
        syscall(_RESTRICT, rules, 0)
    finally:
        os.close(rules)
    return version


def _allow_reading(rules: int, place: Path) -> None:
    rights = _READ_FILE | (_READ_DIR if place.is_dir() else 0)
    handle = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, handle)
        syscall(_ADD, rules, _PATH_BENEATH, ctypes.create_string_buffer(rule), 0)
    finally:
        os.close(handle)
