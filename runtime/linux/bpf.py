"""BPF programs on control groups: bpf(2)."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_int, c_uint, c_uint32, c_uint64

from runtime.linux import libc

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2


class _Load(ctypes.Structure):
    _fields_ = (
        ("prog_type", c_uint32),
        ("insn_cnt", c_uint32),
        ("insns", c_uint64),
        ("license", c_uint64),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_uint64),
        ("kern_version", c_uint32),
        ("prog_flags", c_uint32),
    )


class _Attach(ctypes.Structure):
    _fields_ = (
        ("target_fd", c_uint32),
        ("attach_bpf_fd", c_uint32),
        ("attach_type", c_uint32),
        ("attach_flags", c_uint32),
    )


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    return libc.syscall(
        libc.NR_BPF,
        "bpf",
        c_int(command),
        ctypes.byref(attributes),
        c_uint(ctypes.sizeof(attributes)),
    )


def attach_device_program(program: bytes, cgroup: int) -> None:
    """Put `program` in charge of device access in the v2 group `cgroup` (a descriptor).

    The kernel keeps it as long as the group exists.
    """
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    load = _Load(
        prog_type=_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=len(program) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(licence),
    )
    fd = _bpf(_PROG_LOAD, load)
    try:
        attach = _Attach(
            target_fd=cgroup,
            attach_bpf_fd=fd,
            attach_type=_CGROUP_DEVICE,
            attach_flags=_ALLOW_MULTI,
        )
        _bpf(_PROG_ATTACH, attach)
    finally:
        os.close(fd)
