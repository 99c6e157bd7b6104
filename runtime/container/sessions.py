"""The other end of a monitor's socket: exec in a container, wait for its end.

Needs neither the daemon nor the launcher, and imports little: the command line uses it
directly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from runtime.container.config import ExecConfig
from runtime.container.record import ExitRecord
from runtime.errors import ContainerStartError, InvalidState, LauncherError, Unreachable
from runtime.linux import sockets


@dataclass(slots=True)
class ExecSession:
    """A process that was started in a container.

    With a terminal `terminal` is its descriptor and the others are None; else `stdin` (if it
    was asked for), `stdout` and `stderr` are pipes. The descriptors are the caller's to close.
    """

    connection: socket.socket
    pid: int
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    terminal: int | None = None

    def fileno(self) -> int:
        """Becomes readable when the exit code is known."""
        return self.connection.fileno()

    def wait(self) -> int:
        """The exit code, 128 + signal where one ended it; raises LauncherError when it is lost."""
        answer, _fds = self._answer()
        return int(answer["exit_code"])

    def _answer(self) -> tuple[dict[str, Any], list[int]]:
        try:
            return sockets.receive(self.connection)
        except (EOFError, OSError) as error:
            raise LauncherError("the container's monitor ended before the command did") from error

    def close(self) -> None:
        for fd in (self.stdin, self.stdout, self.stderr, self.terminal):
            if fd is not None:
                os.close(fd)
        self.stdin = self.stdout = self.stderr = self.terminal = None
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_exec(monitor_socket: str, config: ExecConfig, *, told: bool = True) -> ExecSession:
    """Run a process in the container whose monitor listens at `monitor_socket`; who watches
    hears of it where it is `told`.

    Raises InvalidState when it does not run, ContainerStartError when the command cannot be
    executed (exit_code 126 or 127).
    """
    connection = _connect(monitor_socket)
    try:
        request = {"op": "exec", "config": dataclasses.asdict(config), "untold": not told}
        sockets.send(connection, request)
        answer, fds = sockets.receive(connection)
        if "error" in answer:
            raise start_error(answer["error"])
    except (EOFError, OSError) as error:
        connection.close()
        raise InvalidState("the container", "not running", "execute in") from error
    except BaseException:
        connection.close()
        raise
    session = ExecSession(connection, int(answer["started"]))
    if config.detach:
        # Monitors of former versions hand over the terminal of a detached one, too.
        for fd in fds:
            os.close(fd)
    elif config.tty:
        (session.terminal,) = fds
    elif config.stdin:
        session.stdin, session.stdout, session.stderr = fds
    else:
        session.stdout, session.stderr = fds
    return session


@dataclass(slots=True)
class AttachSession(ExecSession):
    """A place at a container's first process; `pid` is 0, as it is nobody's business here.

    With a terminal, `terminal` takes the input and `stdout` gives the output.
    """

    def signal(self, number: int) -> None:
        """Send a signal to the process; one that has ended gets none."""
        self._say({"op": "signal", "number": number})

    def end_input(self) -> None:
        """Let the process see the end of its input; the caller has closed its own end."""
        self._say({"op": "end_input"})

    def _say(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            sockets.send(self.connection, message)

    def wait(self) -> int:
        answer, _fds = self._answer()
        if "error" in answer:
            raise LauncherError(str(answer["error"]["message"]))
        return int(answer["exit_code"])


def open_attach(monitor_socket: str, *, stdin: bool, complete: bool = False) -> AttachSession:
    """Follow the output of the container whose monitor listens at `monitor_socket`, and write
    to its input where it has one and `stdin` asks for it.

    A `complete` session makes the container wait when it is not read. Raises InvalidState when
    the container does not run.
    """
    connection = _connect(monitor_socket)
    try:
        sockets.send(connection, {"op": "attach", "stdin": stdin, "complete": complete})
        answer, fds = sockets.receive(connection)
    except (EOFError, OSError) as error:
        connection.close()
        raise InvalidState("the container", "not running", "attach to") from error
    if "error" in answer:
        connection.close()
        raise InvalidState("the container", "not running", "attach to")
    session = AttachSession(connection, 0)
    given = fds.pop(0) if answer["stdin"] else None
    if answer["tty"]:
        session.terminal = given
        (session.stdout,) = fds
    else:
        session.stdin = given
        session.stdout, session.stderr = fds
    return session


def open_watch(monitor_socket: str, *, execs: bool = False, end: bool = False) -> socket.socket:
    """A connection that becomes readable once the container's exit is on disk; with `execs`
    it tells of execs before (`read_exec`), with `end` of the end itself (`read_end`).

    Raises InvalidState when no monitor listens, that is when it has ended already.
    """
    connection = _connect(monitor_socket)
    try:
        sockets.send(connection, {"op": "watch", "execs": execs, "end": end})
    except OSError as error:
        connection.close()
        raise InvalidState("the container", "not running", "watch") from error
    return connection


def read_watch(connection: socket.socket) -> ExitRecord | None:
    """What `open_watch`'s connection says: the exit, or None where the monitor was killed."""
    try:
        answer, _fds = sockets.receive(connection)
    except (EOFError, OSError):
        return None
    return ExitRecord(**answer["exited"])


def read_end(connection: socket.socket) -> ExitRecord | None:
    """What a watch that asked for the `end` says first: the exit, all output being in the log,
    before it is on disk; None where the monitor was killed."""
    try:
        answer, _fds = sockets.receive(connection)
    except (EOFError, OSError):
        return None
    return ExitRecord(**(answer.get("ended") or answer["exited"]))


def read_exec(connection: socket.socket) -> dict[str, Any] | None:
    """What a watch says, where that is of an exec: its `id`, and `argv` at its start or
    `exit_code` at its end. None where the container has ended."""
    try:
        answer, _fds = sockets.receive(connection)
    except (EOFError, OSError, ValueError):
        return None
    about: dict[str, Any] | None = answer.get("exec")
    return about


@contextlib.contextmanager
def hold(monitor_socket: str) -> Iterator[None]:
    """Freeze the container in the block. It goes on when the block, or this process, ends; one
    that somebody has paused stays so. Raises InvalidState when it does not run."""
    with _connect(monitor_socket) as connection:
        try:
            sockets.send(connection, {"op": "hold"})
            answer, _fds = sockets.receive(connection)
        except (EOFError, OSError) as error:
            raise InvalidState("the container", "not running", "pause") from error
        if "error" in answer:
            raise LauncherError(
                f"the container's monitor cannot hold it: {answer['error']['message']}",
                hint="it is of a former version: restart the container, or use --pause=false",
            )
        yield


def _connect(monitor_socket: str) -> socket.socket:
    try:
        return sockets.connect(monitor_socket)
    except FileNotFoundError as error:
        raise Unreachable(monitor_socket) from error
    except ConnectionRefusedError as error:
        raise InvalidState("the container", "not running", "reach") from error


def start_error(described: dict[str, object]) -> ContainerStartError:
    """The error that a monitor described (`runtime.container.children.describe`)."""
    error = ContainerStartError(
        str(described.get("message")),
        step=str(described.get("step", "start")),
        exit_code=int(str(described.get("exit_code", 125))),
        hint=str(described["hint"]) if described.get("hint") else None,
    )
    error.path = str(described["path"]) if described.get("path") else None
    error.errno = int(str(described.get("errno") or 0))
    return error
