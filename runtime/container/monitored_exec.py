"""One exec, as its container's monitor sees it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runtime.container.children import NULL, Outcome, close
from runtime.linux import sockets

if TYPE_CHECKING:
    from runtime.container.monitor import Monitor

_CHUNK = 64 * 1024


class MonitoredExec:
    """One exec: reports its start, hands over its ends, then its exit code.

    `forerunner` is the child that enters the container; the process proper is its sibling, so
    that it is born in the container's pid namespace with nothing of the host's about it.
    """

    def __init__(
        self,
        monitor: Monitor,
        connection: socket.socket,
        forerunner: int,
        report: socket.socket,
        own_ends: list[int],
        request: dict[str, Any],
    ) -> None:
        self._monitor = monitor
        self._connection = connection
        self._forerunner = forerunner
        self._report = report
        self._own_ends = own_ends
        self._outcome = Outcome()
        self._pidfd = -1
        self._argv = request["config"].get("argv")
        self._untold = bool(request.get("untold"))
        self._detached = bool(request["config"].get("detach"))
        self._terminal = NULL
        self._name = ""
        monitor.selector.register(report, selectors.EVENT_READ, self._on_report)

    def _on_report(self, _fd: int) -> None:
        self._outcome.take(self._report)
        if self._outcome.complete:
            self._started()

    def _started(self) -> None:
        """All reports are in: the forerunner has ended, the process runs or is ending too."""
        self._monitor.selector.unregister(self._report)
        self._report.close()
        self._monitor.keeper.wait(self._forerunner)
        outcome = self._outcome
        ends = self._own_ends if outcome.terminal is None else [outcome.terminal]
        if self._detached and outcome.terminal is not None and outcome.error is None:
            # Who left it to itself hears nothing of it; without us it would be hung up on.
            self._terminal = outcome.terminal
            self._monitor.selector.register(self._terminal, selectors.EVENT_READ, self._drop)
            ends = []
        if outcome.error is None and outcome.pid is not None:
            # A list: a tuple of an iterator stays with the interpreter, one for each of 2,000.
            self._say({"started": outcome.pid}, [fd for fd in ends if fd != NULL])
            self._pidfd = os.pidfd_open(outcome.pid)
            self._tell({"argv": self._argv})
            self._monitor.selector.register(self._pidfd, selectors.EVENT_READ, self._on_exit)
        else:
            ended = {"message": "start a process in a container that is ending", "hint": None}
            self._say({"error": outcome.error or ended})
            if outcome.pid is not None:
                self._monitor.keeper.wait(outcome.pid)
            self._end()
        close(ends)

    def _on_exit(self, _fd: int) -> None:
        """Take the exit code of the process, which has ended."""
        self._monitor.selector.unregister(self._pidfd)
        os.close(self._pidfd)
        code = os.waitstatus_to_exitcode(self._monitor.keeper.wait(self._outcome.pid or 0))
        code = code if code >= 0 else 128 - code
        self._tell({"exit_code": code})
        self._say({"exit_code": code})
        self._end()

    def finish(self) -> None:
        """The container has ended, and the process with it, or it will not start any more."""
        if not self._outcome.complete:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._forerunner, signal.SIGKILL)
            self._outcome.take_all(self._report)
            self._started()
        if self in self._monitor.sessions:
            self._on_exit(self._pidfd)

    def _drop(self, fd: int) -> None:
        try:
            ended = not os.read(fd, _CHUNK)
        except OSError:
            ended = True  # EIO: the last holder of the other end has gone
        if ended:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._terminal != NULL:
            self._monitor.selector.unregister(self._terminal)
            os.close(self._terminal)
            self._terminal = NULL

    def _tell(self, about: dict[str, Any]) -> None:
        if not self._untold:
            self._name = self._name or os.urandom(32).hex()
            self._monitor.tell_exec({"id": self._name, **about})

    def _end(self) -> None:
        self._hang_up()
        self._connection.close()
        self._monitor.sessions.discard(self)

    def _say(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        # Nobody has to wait for the end of an exec.
        with contextlib.suppress(OSError):
            sockets.send(self._connection, message, fds)
