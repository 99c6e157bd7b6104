"""Processes: prctl(2), pidfd_send_signal(2), close_range(2), keyctl(2) and /proc/<pid>."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # it has no stubs
import ctypes
import functools
import os
import signal
from collections.abc import Iterable
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p

from runtime.linux import files, libc

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36

_SIGCHLD = int(signal.SIGCHLD)
_SIG_DFL = int(signal.SIG_DFL)
_SIG_SETMASK = int(signal.SIG_SETMASK)
_SIGNALS = tuple(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))

_KEYCTL_JOIN_SESSION_KEYRING = 1

_CLONE_PARENT = 0x00008000
_CLONE_INTO_CGROUP = 0x200000000

# Keeps the lock of the interpreter across the call, as os.fork() does.
_clone3 = ctypes.PyDLL(None, use_errno=True).syscall
_clone3.restype = ctypes.c_long


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size",
            "tls", "set_tid", "set_tid_size", "cgroup",
        )
    )  # fmt: skip


def fork(*, into: int | None = None, sibling: bool = False) -> int:
    """os.fork() by clone3(2): the child begins in the v2 control group `into` (a descriptor),
    or as a `sibling` is a child of this process's own parent.

    Moving a running process into a group waits for the whole machine (an RCU grace period,
    several ms); being born there does not. For processes with a single thread only: the C
    library's own fork handlers are not run.
    """
    if into is None and not sibling:
        return os.fork()  # which touches less memory
    flags = (_CLONE_PARENT if sibling else 0) | (_CLONE_INTO_CGROUP if into is not None else 0)
    # A sibling's end is told with the signal of the process that it comes from.
    arguments = _CloneArgs(
        flags=flags, exit_signal=0 if sibling else signal.SIGCHLD, cgroup=into or 0
    )
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _clone3(
        c_int(libc.NR_CLONE3), ctypes.byref(arguments), c_size_t(ctypes.sizeof(arguments))
    )
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    return libc.check(pid, "clone3")


_PR_SET_NAME = 15


def prctl(option: int, argument: int = 0) -> None:
    libc.check(libc.prctl(option, argument, 0, 0, 0), "prctl")


def set_name(name: str) -> None:
    """The name that ps shows; at most 15 bytes are kept (PR_SET_NAME, prctl(2)).

    Not by way of /proc/self/comm, which a process that has given up root may not write.
    See `set_own_name` for others.
    """
    raw = ctypes.create_string_buffer(name.encode()[:15])
    prctl(_PR_SET_NAME, ctypes.addressof(raw))


def set_own_name(name: str) -> None:
    """As `set_name`, for a process of root's outside of containers: it touches less memory."""
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, name.encode())
    os.close(fd)


def restore_reserved_signals() -> None:
    """Give signals 32 and 33 their default action.

    glibc keeps them for itself and refuses to change them (signal(7)), yet passes on what it
    has inherited: GNU make, for one, leaves them ignored in all that it starts.
    """
    action = ctypes.create_string_buffer(64)  # a struct sigaction of zeros is SIG_DFL
    for number in (32, 33):
        libc.syscall(
            libc.NR_RT_SIGACTION,
            "rt_sigaction",
            c_int(number),
            action,
            c_void_p(None),
            c_size_t(8),
        )


def set_command_line(text: str) -> None:
    """What /proc/<pid>/cmdline gives for this process and those that it forks (proc(5)).

    Overwrites the original arguments in place, so `text` is cut to their length.
    """
    start, end = _argument_area()
    content = text.encode()[: end - start - 1].ljust(end - start, b"\0")
    # Not by way of /proc/self/mem, which a process that has given up root may not write.
    ctypes.memmove(start, content, len(content))


@functools.cache
def _argument_area() -> tuple[int, int]:
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    return int(fields[45]), int(fields[46])


def reap_children() -> None:
    """Have the end of a child told to us, where who started us ignored it (signal(7), SIGCHLD)."""
    # Without the enumerations of the module above it: what a keeper touches it holds alone.
    _signal.signal(_SIGCHLD, _SIG_DFL)


def reset_signals() -> None:
    """Give every signal its default action, and block none (signal(7))."""
    for number in _SIGNALS:
        _signal.signal(number, _SIG_DFL)
    _signal.pthread_sigmask(_SIG_SETMASK, ())


def die_with_parent(number: int = signal.SIGKILL) -> None:
    prctl(PR_SET_PDEATHSIG, number)


def new_session_keyring() -> None:
    """Leave the caller's session keyring (keyctl(2)), so that no key of the host is reachable."""
    libc.syscall(libc.NR_KEYCTL, "keyctl", c_int(_KEYCTL_JOIN_SESSION_KEYRING), c_char_p(None))


def close_from(first: int) -> None:
    """Close every descriptor from `first` on (close_range(2))."""
    _close_range(first, 0xFFFFFFFF)


def close_others(kept: Iterable[int]) -> None:
    """Close every descriptor but 0, 1, 2 and `kept`."""
    first = 3
    for fd in sorted(kept):
        if fd > first:
            _close_range(first, fd - 1)
        first = max(first, fd + 1)
    close_from(first)


def _close_range(first: int, last: int) -> None:
    libc.syscall(libc.NR_CLOSE_RANGE, "close_range", c_uint(first), c_uint(last), c_uint(0))


def send_signal(pidfd: int, number: int) -> None:
    """Signal the process behind `pidfd`; raises ProcessLookupError when it has ended."""
    signal.pidfd_send_signal(pidfd, number)


def start_time(pid: int) -> int | None:
    """When `pid` was started, in clock ticks since boot (proc(5), stat field 22).

    None when there is no such process. Together with the pid it names one process for ever.
    """
    fields = _status(pid)
    return int(fields[19]) if fields else None


def runs(pid: int, started: int) -> bool:
    """Whether `pid` is still the process that started at `started`, and has not ended.

    One that has ended is there until its parent asks after it, and an adopting first process
    may take its time with that, or never do it.
    """
    fields = _status(pid)
    return bool(fields) and int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def _status(pid: int) -> list[bytes]:
    """The fields of /proc/<pid>/stat from the third one (the state) on; none without it."""
    try:
        text = files.read_small(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text[text.rindex(b")") + 2 :].split()


def open_pidfd(pid: int, started: int | None) -> int | None:
    """A pidfd of `pid` if it is still the process that started at `started`, else None."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if started is not None and start_time(pid) != started:
        os.close(fd)
        return None
    return fd


def handles_signal(pid: int, number: int) -> bool:
    """Whether `pid` catches or blocks signal `number` (proc(5), status SigCgt and SigBlk).

    The first process of a pid namespace never receives a signal that it does neither.
    """
    bit = 1 << (number - 1)
    try:
        with open(f"/proc/{pid}/status") as status:
            masks = [
                int(line.split()[1], 16)
                for line in status
                if line.startswith(("SigCgt:", "SigBlk:"))
            ]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(mask & bit for mask in masks)
