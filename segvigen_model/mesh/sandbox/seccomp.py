"""A seccomp filter for a process that parses one file: no network, writes, programs, processes.

Refused calls fail with an error, they do not kill: a library that merely tries goes on. System
calls newer than this list are refused as unknown. Numbers are the kernel's, per architecture
(`arch/x86/entry/syscalls/syscall_64.tbl`, `include/uapi/asm-generic/unistd.h`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping

from segvigen_model.mesh.sandbox.libc import prctl

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NR, _ARCH, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_LAST_KNOWN = 463  # Linux 6.12
_CLONE_THREAD = 0x10000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# name -> (x86_64, aarch64); None = not there. Refused whatever their arguments are.
_REFUSED: Mapping[str, tuple[int | None, int | None]] = {
    # network, and io_uring, which would do any of this unseen
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "sendto": (44, 206),
    "sendmsg": (46, 211), "bind": (49, 200), "listen": (50, 201), "socketpair": (53, 199),
    "accept4": (288, 242), "sendmmsg": (307, 269), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # programs and processes; threads come by `clone`
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    # other processes
    "ptrace": (101, 117), "kill": (62, 129), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "setpriority": (141, 140), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "ioprio_set": (251, 30), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180),
    "setsid": (112, 157), "setpgid": (109, 154),  # the whole group is killed when time is over
    # the machine
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "personality": (135, 92),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None),
    "ioperm": (173, None), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "syslog": (103, 116), "quotactl": (179, 60), "fanotify_init": (300, 262),
    # files: nothing is made, changed or removed (opening for writing: `_OPENS`)
    "creat": (85, None), "openat2": (437, 437), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "truncate": (76, 45), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34),
    "rmdir": (84, None), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "unlink": (87, None), "unlinkat": (263, 35), "mknod": (133, None),
    "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "inotify_init1": (294, 26), "ioctl": (16, 29),
}  # fmt: skip
_OPENS: Mapping[str, tuple[int | None, int | None, int]] = {  # and which argument has the flags
    "open": (2, None, 1),
    "openat": (257, 56, 2),
}
_CLONE, _CLONE3, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (234, 131), (302, 261)
_PRCTL = (157, 167)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install_filter() -> None:
    """Take system calls away from this thread and all that it will start, for ever.

    Needs no_new_privs to be set.

    Raises:
        OSError: the kernel has no seccomp, or this architecture is not known.
    """
    code = make_filter(platform.machine(), os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))


def make_filter(machine: str, pid: int) -> bytes:
    """The filter as the kernel's classic BPF.

    Args:
        machine: architecture, e.g. "x86_64".
        pid: of the process that it is for: it may signal and limit nobody else.

    Raises:
        OSError: the architecture is not known.
    """
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no seccomp filter for {machine!r}")
    column, audit = _ARCHITECTURES[machine]
    code = [
        *_when(_ARCH, _JUMP_EQUAL, audit, skip=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NR),
        # x32's numbers have bit 30 set: above the last known one as well.
        *_refuse_if(_JUMP_GREATER, _LAST_KNOWN, errno.ENOSYS),
        *_refuse_if(_JUMP_EQUAL, _CLONE3[column], errno.ENOSYS),  # libraries then use clone
    ]
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number is not None:
            code += _refuse_if(_JUMP_EQUAL, number, errno.EPERM)
    for *places, argument in _OPENS.values():
        number = places[column]
        if number is not None:
            code += _inspect(number, argument, [*_refuse_if(_JUMP_ANY_BIT, _WRITES, errno.EACCES)])
    code += _inspect(_CLONE[column], 0, _refuse_unless(_JUMP_ANY_BIT, (_CLONE_THREAD,)))
    code += _inspect(_TGKILL[column], 0, _refuse_unless(_JUMP_EQUAL, (pid,)))
    for option in (_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE):
        code += _inspect(_PRCTL[column], 0, _refuse_if(_JUMP_EQUAL, option, errno.EPERM))
    code += _inspect(_PRLIMIT[column], 0, _refuse_unless(_JUMP_EQUAL, (0, pid)))
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _when(place: int, jump: int, value: int, skip: int) -> list[bytes]:
    """Load a word, and leave out the next `skip` steps if it fits."""
    return [_step(_LOAD, place), _step(jump, value, skip, 0)]


def _refuse_if(jump: int, value: int, error: int) -> list[bytes]:
    return [_step(jump, value, 0, 1), _step(_RETURN, _ERRNO | error)]


def _refuse_unless(jump: int, values: tuple[int, ...]) -> list[bytes]:
    """Refuse what fits none of the values."""
    tests = [_step(jump, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [*tests, _step(_RETURN, _ERRNO | errno.EPERM)]


def _inspect(number: int, argument: int, steps: list[bytes]) -> list[bytes]:
    """Run steps on the low word of an argument of one system call; else, and after, go on."""
    body = [_step(_LOAD, _ARGUMENT + 8 * argument), *steps, _step(_LOAD, _NR)]
    return [_step(_JUMP_EQUAL, number, 0, len(body)), *body]
