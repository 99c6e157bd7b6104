"""A child of the keeper between fork and exec: its ends of the pipes, and what it reports."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from runtime.errors import ContainerStartError, RuntimeFault
from runtime.linux import sockets

# Stands for a standard input that is the container's own null device.
NULL = -1

# The descriptor on which a failure is told once all others are closed.
REPORT = 3

# Bytes of one report, and characters of each text in one that would be longer.
_LONGEST_REPORT = 16 * 1024
_SHORTENED = 400


class Outcome:
    """What a child says on its way to exec: what it started, its terminal, the pid of a sibling
    that goes on in its place, an error, or nothing."""

    def __init__(self) -> None:
        self.complete = False
        self.terminal: int | None = None
        self.pid: int | None = None
        self.kit: bytes | None = None
        self.kit_fds: list[int] = []
        self.error: dict[str, Any] | None = None

    def take(self, report: socket.socket) -> None:
        raw, fds, flags, _address = socket.recv_fds(report, _LONGEST_REPORT, 8)
        for fd in fds:
            os.set_inheritable(fd, False)
        if flags & socket.MSG_CTRUNC:
            close(fds)
            self.error = describe(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        elif raw == b"terminal":
            self.terminal = fds[0]
        elif raw.startswith(b"kit "):
            self.kit = raw[4:]
            self.kit_fds = fds
        elif raw.startswith(b"pid "):
            self.pid = int(raw[4:])
        elif raw:
            self.error = json.loads(raw)
        else:
            self.complete = True


def stdio(stdin: bool, *, tty: bool, output: bool = True) -> tuple[list[int], list[int]]:
    """The child's 0, 1, 2 and our ends of them; none with a terminal.

    Without `stdin` the first of each is NULL: the child opens its own null device. So are
    the others without `output`.
    """
    if tty:
        return [], []
    ends: list[tuple[int, int]] = []
    try:
        for wanted in (stdin, output, output):
            ends.append(os.pipe() if wanted else (NULL, NULL))
    except OSError:
        for pair in ends:
            close(pair)
        raise
    (in_read, in_write), (out_read, out_write), (err_read, err_write) = ends
    return [in_read, out_write, err_write], [in_write, out_read, err_read]


def close(fds: Iterable[int]) -> None:
    for fd in fds:
        if fd != NULL:
            os.close(fd)


def become(body: Callable[[socket.socket], None], report: socket.socket) -> NoReturn:
    """The child's side of a fork: never returns, and tells why where `body` fails."""
    try:
        body(report)
    except Exception as error:
        described = describe(error)
        message = json.dumps(described).encode()
        if len(message) > _LONGEST_REPORT:
            message = json.dumps({k: _shortened(v) for k, v in described.items()}).encode()
        with contextlib.suppress(OSError):
            # `init.close_all_but` has moved it.
            moved = report.fileno() < 0
            channel = socket.socket(fileno=REPORT) if moved else report
            channel.send(message)
    finally:
        os._exit(125)


def describe(error: BaseException) -> dict[str, Any]:
    """An error as plain data, for the way through a socket."""
    match error:
        case OSError():
            about = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
            message = about + (error.strerror or str(error)).lower()
        case RuntimeFault():
            message = str(error)
        case _:
            message = repr(error)
    described: dict[str, Any] = {"message": message, "hint": getattr(error, "hint", None)}
    if isinstance(error, ContainerStartError):
        described |= {
            "step": error.step,
            "path": error.path,
            "errno": error.errno,
            "exit_code": error.exit_code,
        }
    return described


def _shortened(value: object) -> object:
    if isinstance(value, str) and len(value) > _SHORTENED:
        half = _SHORTENED // 2  # what it is about comes first, and why it failed comes last
        return f"{value[:half]}…{value[-half:]}"
    return value


def answer_error(client: socket.socket, error: BaseException) -> None:
    """Tell who asked that it has failed; whoever that was may be dead by now."""
    with client, contextlib.suppress(OSError):
        sockets.send(client, {"error": describe(error)})


def report_fault(error: BaseException) -> None:
    """Write down an error that is nobody's but ours."""
    sys.excepthook(type(error), error, error.__traceback__)
