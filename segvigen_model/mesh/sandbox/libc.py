"""Calls of the C library that Python has no name for. Standard library only."""

from __future__ import annotations

import ctypes
import os


def _load() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library.

    Raises:
        OSError: it returned -1; or the library has no such function.
    """
    try:
        function = getattr(_load(), name)
    except AttributeError:
        raise OSError(f"no function {name} in this C library") from None
    function.restype = ctypes.c_long
    result = int(function(*map(_widen, arguments)))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: object) -> int:
    """Call the kernel by a system call's number; raises OSError."""
    return call("syscall", number, *arguments)


def prctl(option: int, *arguments: object) -> int:
    """Change a property of this process; raises OSError."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    return call("prctl", option, *padded)


def _widen(argument: object) -> object:
    # Variadic functions take whole words: ctypes would pass 32 bits and leave the rest to chance.
    return ctypes.c_long(argument) if isinstance(argument, int) else argument
