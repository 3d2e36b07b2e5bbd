"""What a decoding process may not ask of the kernel, once it has said so itself.

In: nothing. Out: whether this process, with all its threads, is now kept from the network, from other programs and
processes, and from changing files. It may read files, take memory (limited elsewhere), start threads, and talk over the
sockets it has: all that a decoder needs. So a prepared file that takes a decoder over can send nothing anywhere and
leave nothing behind. The filter (seccomp, Linux) needs no privilege and costs nothing measurable. The alternatives: a
list of what *is* allowed, which breaks with the next C library; network and mount namespaces, or a container per
file, which many machines refuse to ordinary users. macOS has neither: there the limits of ``worker`` are all.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_ARCHITECTURES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}
"""Column of the tables below, AUDIT_ARCH of linux/audit.h, number of seccomp(2)."""

_FORBIDDEN: dict[str, tuple[int, int]] = {
    # the network: no socket can be made or connected
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242),
    # other programs and processes
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, -1), "vfork": (58, -1), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "tkill": (200, 130), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "setrlimit": (160, 164),
    # changes to files; opening them for writing is looked at below
    "creat": (85, -1), "truncate": (76, 45), "unlink": (87, -1), "unlinkat": (263, 35), "rename": (82, -1),
    "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, -1), "mkdirat": (258, 34), "rmdir": (84, -1),
    "link": (86, -1), "linkat": (265, 37), "symlink": (88, -1), "symlinkat": (266, 36), "mknod": (133, -1),
    "mknodat": (259, 33), "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1),
    "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "open_by_handle_at": (304, 265),
    # ways around, and doors to the kernel that no decoder knocks at
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "mount": (165, 40),
    "umount2": (166, 39), "chroot": (161, 51), "pivot_root": (155, 41), "unshare": (272, 97), "setns": (308, 268),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218),
}  # fmt: skip
_ABSENT: dict[str, tuple[int, int]] = {"clone3": (435, 435), "openat2": (437, 437)}
"""Their arguments lie where a filter cannot look; told that there is no such call, callers take the older one."""
_OWN_PROCESS: dict[str, tuple[int, int]] = {"kill": (62, 129), "tgkill": (234, 131)}
_CLONE, _OPEN, _OPENAT, _PRLIMIT = (56, 220), (2, -1), (257, 56), (302, 261)

_CLONE_THREAD = 0x10000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_X32 = 0x40000000  # x86_64's second table of calls begins here

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD | W | ABS, BPF_JMP | JEQ ...
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000

Instruction = tuple[int, int, int, int]
"""Code, jump where true, jump where false, operand: struct sock_filter."""


def confine() -> bool:
    """Give up what a decoder does not need, for good; False where this system has no such means."""
    known = _ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or known is None or sys.maxsize < 2**32:
        return False
    column, architecture, seccomp = known
    program = filter_program(column, architecture, os.getpid())
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("H6xP", len(program), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter, all_threads = 38, 1, 1  # linux/prctl.h, linux/seccomp.h
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.syscall(seccomp, set_filter, all_threads, header) == 0)


def filter_program(column: int, architecture: int, pid: int) -> list[Instruction]:
    """The filter as BPF instructions.

    Args:
        column: Of the tables: 0 x86_64, 1 aarch64.
        architecture: AUDIT_ARCH; calls by any other table are refused.
        pid: The process that may send signals to itself.
    """
    refused = (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    program = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), refused]
    program += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), refused]
    for numbers, answer in ((_FORBIDDEN, errno.EPERM), (_ABSENT, errno.ENOSYS)):
        for number in numbers.values():
            if number[column] >= 0:
                program += [(_EQUAL, 0, 1, number[column]), (_RETURN, 0, 0, _REFUSE | answer)]
    for number in _OWN_PROCESS.values():
        program += _where(number[column], [*_argument(0), (_EQUAL, 1, 0, pid), refused])
    program += _where(_CLONE[column], [*_argument(0), (_ANY_BIT, 1, 0, _CLONE_THREAD), refused])
    for number, flags in ((_OPEN, 1), (_OPENAT, 2)):
        read_only = (_RETURN, 0, 0, _REFUSE | errno.EACCES)
        program += _where(number[column], [*_argument(flags), (_ANY_BIT, 0, 1, _WRITES), read_only])
    asks_only = [*_argument(2), (_EQUAL, 1, 0, 0), refused, *_argument(2, high=True), (_EQUAL, 1, 0, 0), refused]
    program += _where(_PRLIMIT[column], asks_only)  # no new limits, of this process or another
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _where(number: int, then: list[Instruction]) -> list[Instruction]:
    """Instructions that allow a call unless some of ``then`` return before; none where there is no such call."""
    body = [*then, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body] if number >= 0 else []


def _argument(place: int, *, high: bool = False) -> list[Instruction]:
    return [(_LOAD, 0, 0, _ARGUMENTS + 8 * place + 4 * high)]
