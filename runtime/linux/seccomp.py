"""System call filters: compiled by libseccomp (seccomp_init(3) and kin), loaded by prctl(2).

A filter is compiled once and kept as bytes (an array of `struct sock_filter`), so that
starting a container loads a program and compiles nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_int, c_uint, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Literal

from runtime.linux import libc
from runtime.linux.process import prctl

PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

Comparison = Literal["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]
_OPERATORS: dict[Comparison, int] = {
    "NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7,
}  # fmt: skip


def refuse(number: int) -> int:
    """The action that makes a system call fail with errno `number`."""
    return _ERRNO | (number & 0xFFFF)


@dataclass(frozen=True, slots=True)
class Argument:
    """A condition on one argument; for MASKED_EQ `value` is the mask and `equals` the result."""

    index: int
    comparison: Comparison
    value: int
    equals: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """`action` for the system calls `names` where all of `arguments` hold."""

    names: tuple[str, ...]
    action: int = ALLOW
    arguments: tuple[Argument, ...] = ()


class _ArgCmp(ctypes.Structure):
    _fields_ = (("arg", c_uint), ("op", c_int), ("datum_a", c_uint64), ("datum_b", c_uint64))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", c_void_p))


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = c_void_p
    library.seccomp_init.argtypes = (c_uint32,)
    library.seccomp_release.restype = None
    library.seccomp_release.argtypes = (c_void_p,)
    library.seccomp_arch_add.argtypes = (c_void_p, c_uint32)
    library.seccomp_arch_resolve_name.restype = c_uint32
    library.seccomp_arch_resolve_name.argtypes = (c_char_p,)
    library.seccomp_syscall_resolve_name.argtypes = (c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        c_void_p, c_uint32, c_int, c_uint, POINTER(_ArgCmp),
    )  # fmt: skip
    library.seccomp_export_bpf.argtypes = (c_void_p, c_int)
    library.seccomp_attr_set.argtypes = (c_void_p, c_int, c_uint32)
    return library


_NR_SCMP_ERROR = -1
_ATTR_BADARCH_ACTION = 2
_ATTR_OPTIMIZE = 8


def compile_filter(
    rules: Sequence[Rule], *, default: int, architectures: Sequence[str], newest: Sequence[str]
) -> bytes:
    """A filter program for the native architecture and `architectures` (libseccomp's names).

    Names that this libseccomp does not know are left out. System calls with a number above
    all of `newest`, the newest calls that the rules' author knew, fail with ENOSYS instead of
    `default`, so that programs fall back as they would on an older kernel.

    Raises OSError when libseccomp is missing or refuses a rule.
    """
    library = _library()
    context = library.seccomp_init(default)
    if not context:
        raise OSError(0, "seccomp_init failed")
    try:
        for architecture in architectures:
            token = library.seccomp_arch_resolve_name(architecture.encode())
            result = library.seccomp_arch_add(context, token)
            if result not in (0, -17):  # EEXIST: the native one is there already
                raise OSError(-result, "seccomp_arch_add", architecture)
        # A tree instead of a list of comparisons: a syscall costs log(n) (seccomp_attr_set(3)).
        library.seccomp_attr_set(context, _ATTR_OPTIMIZE, 2)
        for rule in rules:
            _add(library, context, rule, default)
        program = _export(library, context)
        threshold = max(library.seccomp_syscall_resolve_name(name.encode()) for name in newest)
    finally:
        library.seccomp_release(context)
    return _unknown_is_enosys(program, threshold)


def _add(library: ctypes.CDLL, context: int, rule: Rule, default: int) -> None:
    if rule.action == default:
        return  # libseccomp refuses a rule that says what holds anyway
    conditions = (_ArgCmp * len(rule.arguments))(
        *(
            _ArgCmp(item.index, _OPERATORS[item.comparison], item.value, item.equals)
            for item in rule.arguments
        )
    )
    for name in rule.names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _NR_SCMP_ERROR:
            continue
        result = library.seccomp_rule_add_array(
            context, rule.action, number, len(conditions), conditions
        )
        if result < 0:
            raise OSError(-result, f"seccomp rule: {os.strerror(-result)}", name)


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        result = library.seccomp_export_bpf(context, fd)
        if result < 0:
            raise OSError(-result, "seccomp_export_bpf")
        os.lseek(fd, 0, os.SEEK_SET)
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read()
    finally:
        os.close(fd)


_INSTRUCTION = struct.Struct("HBBI")
_LD_W_ABS = 0x20
_JGT = 0x25
_JEQ = 0x15
_JGE = 0x35
_RET = 0x06
_OFFSET_NR = 0
_OFFSET_ARCH = 4
_AUDIT_ARCH = {
    "x86_64": 0xC000003E,
    "aarch64": 0xC00000B7,
    "riscv64": 0xC00000F3,
    "s390x": 0x80000016,
    "ppc64le": 0xC0000015,
}
_X32_BIT = 0x40000000


def _unknown_is_enosys(program: bytes, newest_number: int) -> bytes:
    """`program` behind a check of the number: native, above `newest_number` → ENOSYS."""
    native = _AUDIT_ARCH.get(os.uname().machine)
    if native is None or newest_number < 0:
        return program
    prologue = (
        _INSTRUCTION.pack(_LD_W_ABS, 0, 0, _OFFSET_ARCH),
        _INSTRUCTION.pack(_JEQ, 0, 4, native),
        _INSTRUCTION.pack(_LD_W_ABS, 0, 0, _OFFSET_NR),
        _INSTRUCTION.pack(_JGE, 2, 0, _X32_BIT),
        _INSTRUCTION.pack(_JGT, 0, 1, newest_number),
        _INSTRUCTION.pack(_RET, 0, 0, refuse(38)),
    )
    return b"".join(prologue) + program


def load(program: bytes) -> None:
    """Confine this thread, and all that it starts, by `program` (seccomp(2)).

    Needs CAP_SYS_ADMIN or no_new_privs.
    """
    length = len(program) // _INSTRUCTION.size
    buffer = ctypes.create_string_buffer(program, len(program))
    argument = _Program(length, ctypes.cast(buffer, c_void_p))
    libc.check(
        libc.prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(argument), 0, 0),
        "prctl(PR_SET_SECCOMP)",
    )


def no_new_privileges() -> None:
    prctl(38, 1)
