"""Takes away what a process does not need in order to parse one file.

Three steps: `leave_namespaces` before anything is imported (only a process with one thread may),
`give_up_rights` when all modules are loaded, `limit_process` in the process of each single file.
A step that the machine refuses is left out and missing in the report. Standard library only.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segvigen_model.mesh.sandbox.landlock import restrict_to
from segvigen_model.mesh.sandbox.libc import call, prctl
from segvigen_model.mesh.sandbox.seccomp import install_filter

NAMESPACES, LANDLOCK, SECCOMP = "namespaces", "landlock", "seccomp"
# Namespaces of Linux (`linux/sched.h`): user, network, System V IPC, host name.
_NEW_USER, _NEW_OTHERS = 0x10000000, 0x40000000 | 0x08000000 | 0x04000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION = 0x20080522
_MAX_OPEN_FILES = 64
_MAX_THREADS = 64
# What Python and numerical libraries read besides their own folders.
_SYSTEM_PLACES = (
    "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/lib",
    "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/proc/cpuinfo", "/proc/meminfo",
    "/sys/devices/system/cpu", "/dev/null", "/dev/urandom", "/dev/zero",
)  # fmt: skip
_LIBRARY_FOLDERS = ("site-packages", "dist-packages", "lib-dynload")


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a machine granted.

    Attributes:
        has_namespaces: own user and network namespace: no network devices, no rights outside.
        has_no_new_privs: programs with more rights give none.
        landlock: version of the file restrictions, 0 = none.
        has_seccomp: the parsing process cannot open sockets, write files, start programs.
    """

    has_namespaces: bool = False
    has_no_new_privs: bool = False
    landlock: int = 0
    has_seccomp: bool = False

    @property
    def is_offline(self) -> bool:
        """Can the process reach no network?"""
        return self.has_namespaces or self.has_seccomp

    @property
    def is_blind(self) -> bool:
        """Can the process look into no other one, such as the worker with its secrets?"""
        return self.has_namespaces or self.landlock > 0

    def describe(self) -> str:
        """One line: what was granted, and what was not."""
        granted = {
            "own user and network namespace": self.has_namespaces,
            f"Landlock {self.landlock}" if self.landlock else "Landlock": self.landlock > 0,
            "seccomp": self.has_seccomp,
            "no_new_privs": self.has_no_new_privs,
        }
        lacking = [name for name, has in granted.items() if not has]
        text = ", ".join(name for name, has in granted.items() if has) or "limits only"
        return f"{text}; not granted: {', '.join(lacking)}" if lacking else text


def leave_namespaces(without: Collection[str] = ()) -> bool:
    """Move to a user and a network namespace of our own, where nothing is. For one thread only.

    Args:
        without: steps left out, for tests of what the others hold alone.
    """
    if NAMESPACES in without:
        return False
    for flags in (_NEW_USER | _NEW_OTHERS, _NEW_OTHERS):  # the second: root in a container
        with suppress(OSError):
            call("unshare", flags)
            return True
    return False


def give_up_rights(has_namespaces: bool, without: Collection[str] = ()) -> Confinement:
    """Give up privileges, other processes and files; everything needed has been imported.

    Args:
        has_namespaces: what `leave_namespaces` gave.
        without: as there.
    """
    has_no_new_privs, landlock = False, 0
    with suppress(OSError):
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        has_no_new_privs = True
    with suppress(OSError):
        prctl(_PR_SET_DUMPABLE, 0)  # no other process of this user looks in, no core is written
    with suppress(OSError):
        _drop_capabilities()
    if LANDLOCK not in without:
        with suppress(OSError):
            landlock = restrict_to(_list_readable())
    return Confinement(
        has_namespaces, has_no_new_privs, landlock, SECCOMP not in without and _has_seccomp()
    )


def limit_process(gib: float, seconds: float, confinement: Confinement) -> None:
    """Bind the process of one file, for ever: limits, its end with its parent's, system calls.

    Args:
        gib: address space, GiB.
        seconds: of CPU.
        confinement: what the steps before were granted.
    """
    with suppress(OSError):
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    limits = {
        resource.RLIMIT_AS: int(gib * 2**30),
        resource.RLIMIT_CPU: math.ceil(seconds) + 1,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
    }
    if confinement.has_namespaces:  # elsewhere it counts all that the user runs
        limits[resource.RLIMIT_NPROC] = _MAX_THREADS
    for kind, wanted in limits.items():
        most = resource.getrlimit(kind)[1]
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        with suppress(OSError, ValueError):  # not every system has every limit
            resource.setrlimit(kind, (limit, limit))
    if confinement.has_seccomp:
        install_filter()


def _has_seccomp() -> bool:
    """Try the filter on a process of its own: it cannot be taken off again."""
    pid = os.fork()
    if pid == 0:
        try:
            install_filter()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _drop_capabilities() -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    call("capset", header, ctypes.create_string_buffer(bytes(24)))


def _list_readable() -> Iterator[Path]:
    """Folders of Python and of its libraries, and of our own packages; not the folder they are in.

    A checkout holds `.env` and the local stack's databases beside the packages.
    """
    yield from map(Path, _SYSTEM_PLACES)
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield Path(sysconfig.get_path(name))
    for prefix in (sys.prefix, sys.base_prefix):
        yield Path(prefix) / "lib"
        yield Path(prefix) / "pyvenv.cfg"
    for entry in filter(None, sys.path):
        if Path(entry).name in _LIBRARY_FOLDERS or entry.endswith(".zip"):
            yield Path(entry)
    for name, module in list(sys.modules.items()):
        places = getattr(module, "__path__", None)
        if (
            places is not None and "." not in name
        ):  # packages that lie elsewhere: ours, editable ones
            yield from map(Path, places)
