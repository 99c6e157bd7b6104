"""One exec, as its container's monitor sees it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runtime.container.children import NULL, Outcome, close, report_fault
from runtime.linux import sockets

if TYPE_CHECKING:
    from runtime.container.keeper import Callback
    from runtime.container.monitor import Monitor

_CHUNK = 64 * 1024

# The status of a process that was (waitpid(2)).
_KILLED = int(signal.SIGKILL)


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
        self._pidfd = NULL
        self._argv = request["config"].get("argv")
        self._untold = bool(request.get("untold"))
        self._detached = bool(request["config"].get("detach"))
        self._terminal = NULL
        self._name = ""
        self._listen(report, self._on_report)

    def _listen(self, what: int | socket.socket, callback: Callback, *, bulk: bool = False) -> None:
        """Call back, where a failure ends this process and not the container."""

        def guarded(fd: int) -> None:
            try:
                callback(fd)
            except Exception as error:
                report_fault(error)
                self.abandon()

        self._monitor.selector.register(what, selectors.EVENT_READ, guarded, bulk=bulk)

    def _on_report(self, _fd: int) -> None:
        self._outcome.take(self._report)
        if self._outcome.complete:
            self._started()

    def _started(self) -> None:
        """All reports are in: the forerunner has ended, the process runs or is ending too."""
        keeper = self._monitor.keeper
        self._monitor.selector.unregister(self._report)
        self._report.close()
        outcome = self._outcome
        if outcome.pid is None:
            # Killed in the middle, it may have brought forth one.
            keeper.suspect_stray()
        else:
            keeper.adopt(outcome.pid)
        keeper.wait(self._forerunner)
        ends = self._own_ends if outcome.terminal is None else [outcome.terminal]
        self._own_ends = []
        if outcome.error is not None or outcome.pid is None:
            ended = {"message": "start a process in a container that is ending", "hint": None}
            self._say({"error": outcome.error or ended})
            close(ends)
            if outcome.pid is not None:
                keeper.disown(outcome.pid)
            self._end()
            return
        if self._detached and outcome.terminal is not None:
            # Who left it to itself hears nothing of it; without us it would be hung up on.
            self._terminal = outcome.terminal
            self._listen(self._terminal, self._drop, bulk=True)
            ends = []
        # A list: a tuple of an iterator stays with the interpreter, one for each of 2,000.
        self._say({"started": outcome.pid}, [fd for fd in ends if fd != NULL])
        close(ends)
        self._pidfd = os.pidfd_open(outcome.pid)
        self._tell({"argv": self._argv})
        self._listen(self._pidfd, self._on_exit)

    def _on_exit(self, _fd: int) -> None:
        """Take the exit code of the process, which has ended."""
        assert self._outcome.pid is not None
        status = self._monitor.keeper.take_status(self._outcome.pid)
        self._outcome.pid = None
        code = os.waitstatus_to_exitcode(_KILLED if status is None else status)
        code = code if code >= 0 else 128 - code
        self._tell({"exit_code": code})
        self._say({"exit_code": code})
        self._end()

    def finish(self) -> None:
        """The container has ended, and the process with it, or it will not start any more."""
        if self._outcome.complete:
            self._on_exit(self._pidfd)
        else:
            self.abandon("start a process in a container that is ending")

    def abandon(self, why: str = "the process is not looked after any more") -> None:
        """Kill it, and wait for nothing."""
        keeper = self._monitor.keeper
        if not self._outcome.complete:
            keeper.disown(self._forerunner)
            keeper.suspect_stray()
            close([NULL if self._outcome.terminal is None else self._outcome.terminal])
        if self._outcome.pid is not None:
            keeper.adopt(self._outcome.pid)
            keeper.disown(self._outcome.pid)
        self._say({"error": {"message": why, "hint": None}})
        self._end()

    def _drop(self, fd: int) -> None:
        try:
            ended = not os.read(fd, _CHUNK)
        except OSError:
            ended = True  # EIO: the last holder of the other end has gone
        if ended:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._terminal != NULL:
            self._monitor.selector.discard(self._terminal)
            os.close(self._terminal)
            self._terminal = NULL

    def _tell(self, about: dict[str, Any]) -> None:
        if not self._untold:
            self._name = self._name or os.urandom(32).hex()
            self._monitor.tell_exec({"id": self._name, **about})

    def _end(self) -> None:
        self._hang_up()
        if self._report.fileno() >= 0:
            self._monitor.selector.discard(self._report)
            self._report.close()
        if self._pidfd != NULL:
            self._monitor.selector.discard(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = NULL
        close(self._own_ends)
        self._own_ends = []
        self._connection.close()
        self._monitor.sessions.discard(self)

    def _say(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        # Nobody has to wait for the end of an exec.
        with contextlib.suppress(OSError):
            sockets.send(self._connection, message, fds)
