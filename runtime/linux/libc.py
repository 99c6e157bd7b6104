"""The C library's prototypes, bound once, and the one place that turns errno into OSError.

Calls that glibc does not wrap go through `syscall()` by number. Numbers from 424 on are
the same on every architecture (include/uapi/asm-generic/unistd.h); older ones stand in a
table per machine.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_int64, c_long, c_size_t, c_uint, c_ulong, c_void_p

libc = ctypes.CDLL(None, use_errno=True)

# Common numbers (asm-generic).
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_FSOPEN = 430
NR_FSCONFIG = 431
NR_FSMOUNT = 432
NR_CLONE3 = 435
NR_CLOSE_RANGE = 436
NR_OPENAT2 = 437
NR_MOUNT_SETATTR = 442

# Older numbers differ per machine.
_MACHINE = os.uname().machine
NR_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}.get(_MACHINE)
NR_RT_SIGACTION = {"x86_64": 13, "aarch64": 134, "riscv64": 134, "ppc64le": 173, "s390x": 174}.get(
    _MACHINE
)
NR_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}.get(
    _MACHINE
)


def _bind(name: str, *argtypes: object, restype: object = c_int) -> ctypes._NamedFuncPointer:
    function = getattr(libc, name)
    function.argtypes = argtypes
    function.restype = restype
    return function  # type: ignore[no-any-return]  # CDLL attributes are untyped


mount = _bind("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
umount2 = _bind("umount2", c_char_p, c_int)
pivot_root = _bind("pivot_root", c_char_p, c_char_p)
unshare = _bind("unshare", c_int)
setns = _bind("setns", c_int, c_int)
prctl = _bind("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
capset = _bind("capset", c_void_p, c_void_p)
capget = _bind("capget", c_void_p, c_void_p)
sethostname = _bind("sethostname", c_char_p, c_size_t)
setdomainname = _bind("setdomainname", c_char_p, c_size_t)
fstatfs = _bind("fstatfs", c_int, c_void_p)
syncfs = _bind("syncfs", c_int)
sync_file_range = _bind("sync_file_range", c_int, c_int64, c_int64, c_uint)
inotify_init1 = _bind("inotify_init1", c_int)
inotify_add_watch = _bind("inotify_add_watch", c_int, c_char_p, c_uint)
inotify_rm_watch = _bind("inotify_rm_watch", c_int, c_int)

_syscall = libc.syscall
_syscall.restype = c_long


def oserror(call: str, path: str | bytes | None = None) -> OSError:
    """The OSError for the errno that the last call left; `call` names what was attempted."""
    number = ctypes.get_errno()
    error = OSError(number, f"{call}: {os.strerror(number)}")
    if path is not None:
        error.filename = os.fsdecode(path)
    return error


def check(result: int, call: str, path: str | bytes | None = None) -> int:
    """`result` where it is not negative; raises OSError otherwise."""
    if result < 0:
        raise oserror(call, path)
    return result


def syscall(number: int | None, call: str, *args: object, path: str | None = None) -> int:
    """Call the kernel by number with ctypes values; raises OSError.

    A number of None (not known for this machine) raises ENOSYS.
    """
    if number is None:
        ctypes.set_errno(38)
        raise oserror(call, path)
    result: int = _syscall(c_long(number), *args)
    return check(result, call, path)
