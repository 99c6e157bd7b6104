"""Capabilities: capabilities(7), capset(2), the bounding set."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from runtime.linux import libc
from runtime.linux.process import PR_CAPBSET_DROP, prctl

# In the order of their numbers (include/uapi/linux/capability.h).
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def last_capability() -> int:
    """The highest capability number that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def effective() -> int:
    """This process's effective capabilities, as bits."""
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    libc.check(libc.capget(ctypes.byref(header), ctypes.byref(data)), "capget")
    return int(data[0].effective) | int(data[1].effective) << 32


def limit_bounding_set(keep: Iterable[int], last: int) -> None:
    """Drop every capability but `keep` from the bounding set; needs CAP_SETPCAP."""
    kept = set(keep)
    for number in range(last + 1):
        if number not in kept:
            prctl(PR_CAPBSET_DROP, number)


def set_capabilities(numbers: Iterable[int]) -> None:
    """Hold exactly `numbers` as effective and permitted; inheritable stays empty.

    An empty inheritable set empties the ambient set too (capabilities(7)).
    """
    bits = 0
    for number in numbers:
        bits |= 1 << number
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    for index in (0, 1):
        half = bits >> (32 * index) & 0xFFFFFFFF
        data[index] = _Data(half, half, 0)
    libc.check(libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")
