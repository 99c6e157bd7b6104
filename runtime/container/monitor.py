"""One running container, as its keeper sees it: keeps its output, serves execs, and records how
it ended.

Output is kept and the exit code recorded whether or not anybody listens.

Messages on its socket (`runtime.linux.sockets`):
  {"op": "watch"}                 answered by {"exited": {...}} once the exit is on disk; with
                                  "execs": true by {"exec": {...}} for each that starts or ends,
                                  with "end": true by {"ended": {...}} before it is on disk
  {"op": "exec", "config": {...}} answered by {"started": pid} with the descriptors of its
                                  input, output and error (or its terminal), then {"exit_code"}
  {"op": "attach", ...}           see `runtime.container.attach`
  {"op": "hold"}                  see `runtime.container.holds`
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from runtime.container.attach import Attachments
from runtime.container.children import NULL, answer_error, close, report_fault, stdio
from runtime.container.ending import end, end_failed
from runtime.container.holds import Holds
from runtime.container.kit import Kit
from runtime.container.leftovers import leftovers
from runtime.container.logs import LogWriter
from runtime.container.monitored_exec import MonitoredExec
from runtime.errors import RuntimeFault
from runtime.linux import sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.container.keeper import Keeper
    from runtime.container.record import ExitRecord

# A turn's portion: with lines of two bytes it takes some ms to write them down.
_CHUNK = 16 * 1024

# How long a container that is to be attached to waits for that, in seconds.
_HOLD = 10.0

# Seconds until another client is taken where no descriptor was free for one.
_LISTEN_AGAIN = 1.0


class Monitor:
    """Takes over the container that `kit` tells of, with all its descriptors, `terminal` and
    `claim` among them; `pid` is its first process. Raises OSError where it cannot."""

    def __init__(
        self,
        keeper: Keeper,
        id: str,
        kit: Kit,
        *,
        pid: int,
        claim: int,
        terminal: int | None,
        started_at: int,
    ) -> None:
        self.keeper = keeper
        self.id = id
        self.kit = kit
        self.pid = pid
        self.claim = claim
        self.terminal = terminal
        self.started_at = started_at
        self.ended = False
        self.fault: Exception | None = None
        self.gone = False
        self.pidfd = os.pidfd_open(pid)
        try:
            self._log = LogWriter(kit.directory, kit)
        except OSError:
            os.close(self.pidfd)
            raise
        self.selector = keeper.selector_of(self)
        self.listener = socket.socket(fileno=kit.listener)
        self.listener.setblocking(False)
        self.sessions: set[MonitoredExec] = set()
        self.attachments = Attachments(self)
        self.watchers: set[socket.socket] = set()
        self._connections: set[socket.socket] = set()
        self._followers: set[socket.socket] = set()
        self._impatient: set[socket.socket] = set()
        self._holds: Holds | None = None
        self._outputs: dict[int, str] = {}
        self._stdin = NULL
        self._reading = False
        self._held_until: float | None = None
        try:
            self._adopt_output()
            if self._held_until is None:
                self._await_exit()
            self._listen()
        except BaseException:
            # What came with the kit is still the caller's.
            self.selector.clear()
            self.listener.detach()
            self._log.close()
            os.close(self.pidfd)
            raise

    def _await_exit(self) -> None:
        if self.pidfd not in self.selector:
            self.selector.register(self.pidfd, selectors.EVENT_READ, self._on_exit)

    def _listen(self) -> None:
        self.selector.register(self.listener, selectors.EVENT_READ, self._on_connect)
        self._listening = True

    def _adopt_output(self) -> None:
        kit = self.kit
        if self.terminal is not None:
            self._outputs = {self.terminal: "stdout"}
        else:
            # Held open for as long as the container runs, or until somebody attaches and ends it.
            self._stdin = kit.stdin
            self._outputs = {kit.stdout: "stdout", kit.stderr: "stderr"}
        for fd in self._outputs:
            os.set_blocking(fd, False)
        if kit.await_attach:
            self._held_until = time.monotonic() + _HOLD
        self.resume_output()

    # --- as a ward -------------------------------------------------------------------------

    def patience(self) -> float | None:
        if self._held_until is not None:
            return max(0.0, self._held_until - time.monotonic())
        return None if self._listening else _LISTEN_AGAIN

    def tick(self) -> None:
        if self.ended:
            return
        if not self._listening:
            self._listen()
        if self._held_until is not None and time.monotonic() >= self._held_until:
            self._release()

    def fail(self, error: Exception) -> None:
        end_failed(self, error)

    def descriptors(self) -> Iterator[int]:
        """All that are the container's, those of its execs left out."""
        yield from (self.claim, self.pidfd, self.listener.fileno(), *self._outputs)
        yield from (fd for fd in (self._stdin, self.kit.config, self.kit.group) if fd != NULL)
        yield from self.attachments.descriptors()
        yield from (watcher.fileno() for watcher in self.watchers)
        yield from self.selector

    def deafen(self) -> None:
        """Hear nobody any more: all that is waited for is the end of the first process."""
        for session in list(self.sessions):
            session.abandon()
        self._held_until = None
        self._reading = False
        self._listening = True
        self.selector.clear()
        if not self.ended:
            self._await_exit()

    def let_go(self) -> None:
        """Close all descriptors, and listen to none of them before: a child may have them too."""
        if self.gone:
            return
        self.gone = True
        self.selector.close()
        self.attachments.close()
        self.listener.close()
        self._log.close()
        for connection in (*self.watchers, *self._connections):
            connection.close()
        own = (self.claim, self.pidfd, self._stdin, self.kit.config, self.kit.group)
        close((*own, *self._outputs))
        self._outputs.clear()

    # --- output ----------------------------------------------------------------------------

    def resume_output(self) -> None:
        """Read the output, unless it has to wait for a client."""
        waits = self._held_until is not None or self.attachments.full
        if waits or self.ended or self.fault is not None or self._reading:
            return
        self._reading = True
        for fd in self._outputs:
            self.selector.register(fd, selectors.EVENT_READ, self._on_output, bulk=True)

    def _pause_output(self) -> None:
        self._reading = False
        for fd in self._outputs:
            self.selector.unregister(fd)

    def _release(self) -> None:
        """The first client is there, or none has come in time."""
        self._held_until = None
        self.resume_output()
        self._await_exit()

    def _on_output(self, fd: int) -> None:
        if not self._read_output(fd):
            if self._reading:
                self.selector.unregister(fd)
            del self._outputs[fd]
            os.close(fd)
            if fd == self.terminal:
                self.terminal = None

    def _read_output(self, fd: int) -> bool:
        """Keep what waits on `fd`; False at its end."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False  # EIO: the last holder of the terminal's other end has gone
        if chunk:
            self._keep(self._outputs[fd], chunk)
        return bool(chunk)

    def _keep(self, stream: str, chunk: bytes) -> None:
        self._log.write(stream, chunk)
        if self.attachments:
            self.attachments.write(stream, chunk)
            if self._reading and self.attachments.full:
                self._pause_output()

    def drain(self) -> None:
        """Take what is still in the pipes, and end the log."""
        if self._reading:
            self._pause_output()
        for fd, stream in list(self._outputs.items()):
            for chunk in leftovers(fd):
                self._keep(stream, chunk)
        self._log.close()

    # --- the end -----------------------------------------------------------------------------

    def tell_end(self, record: ExitRecord) -> None:
        """Tell who will not wait until it is on disk; one that does not read delays nobody."""
        for connection in self._impatient:
            with contextlib.suppress(OSError):
                sockets.send(connection, {"ended": dataclasses.asdict(record)})

    def _on_exit(self, _fd: int) -> None:
        if self._held_until is not None:
            # Whoever wants its output has not come yet.
            self.selector.unregister(self.pidfd)
            return
        end(self)

    def hear_late(self) -> None:
        """Hear those whose request came too late to be seen in the loop."""
        with contextlib.suppress(OSError):
            while True:
                self._await_request(self.listener.accept()[0])
        for connection in list(self._connections):
            self._on_request(connection)

    # --- requests ----------------------------------------------------------------------------

    def _on_connect(self, _fd: int) -> None:
        try:
            connection, _address = self.listener.accept()
        except OSError:
            # No descriptor is free: who connects has to wait, the output has not.
            self.selector.unregister(self.listener)
            self._listening = False
            return
        self._await_request(connection)

    def _await_request(self, connection: socket.socket) -> None:
        # Who does not read what it is told is not waited for.
        connection.setblocking(False)
        self._connections.add(connection)
        self.selector.register(
            connection, selectors.EVENT_READ, lambda _fd: self._on_request(connection)
        )

    def _on_request(self, connection: socket.socket) -> None:
        try:
            request, fds = sockets.receive(connection)
        except Exception:
            # It has gone, or what it says is no message: too deep for the parser, for one.
            self._forget(connection)
            return
        close(fds)
        try:
            self._serve(connection, request)
        except Exception as error:
            # Nothing that is asked for may end the container.
            report_fault(error)
            self._forget(connection)

    def _serve(self, connection: socket.socket, request: dict[str, Any]) -> None:
        match request.get("op"):
            case "watch":
                self._connections.discard(connection)
                self.watchers.add(connection)
                if request.get("execs"):
                    self._followers.add(connection)
                if request.get("end"):
                    self._impatient.add(connection)
            case "exec":
                # From here on the session reads and writes this connection.
                self._hand_over(connection)
                self._exec(connection, request)
            case "attach" if not self.ended:
                self._hand_over(connection)
                self.attachments.open(connection, request)
                if self._held_until is not None:
                    self._release()
            case "attach":
                self._refuse(connection, "the container has ended")
            case "hold" if not self.ended:
                self._hand_over(connection)
                self._hold(connection)
            case other:
                self._refuse(connection, f"unknown request {other}")

    def _refuse(self, connection: socket.socket, why: str) -> None:
        with contextlib.suppress(OSError):  # it may not stay for the answer
            sockets.send(connection, {"error": {"message": why}})
        self._forget(connection)

    def _hand_over(self, connection: socket.socket) -> None:
        if connection.fileno() >= 0:
            self.selector.discard(connection)
        for known in (self._connections, self.watchers, self._followers, self._impatient):
            known.discard(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._hand_over(connection)
        connection.close()

    def _hold(self, connection: socket.socket) -> None:
        self._holds = self._holds or Holds(self, self.kit.cgroup)
        self._holds.open(connection)

    # --- attach ------------------------------------------------------------------------------

    def input_for(self, *, wanted: bool) -> int | None:
        """What a client writes the process's input to: its terminal, which also takes a size,
        or its pipe where it has one."""
        if self.terminal is not None:
            return self.terminal
        return self._stdin if wanted and self._stdin != NULL else None

    def end_input(self) -> None:
        close([self._stdin])
        self._stdin = NULL

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    # --- exec --------------------------------------------------------------------------------

    def _exec(self, connection: socket.socket, request: dict[str, Any]) -> None:
        try:
            if self.ended:
                raise RuntimeFault("start a process in a container that has ended")
            session = self._open_session(connection, request)
        except Exception as error:
            # Nothing that is asked for may end the container.
            answer_error(connection, error)
            return
        self.sessions.add(session)

    def _open_session(self, connection: socket.socket, request: dict[str, Any]) -> MonitoredExec:
        kit, keeper, wanted = self.kit, self.keeper, request["config"]
        child_ends, own_ends = stdio(
            bool(wanted.get("stdin")),
            tty=bool(wanted.get("tty")),
            output=not wanted.get("detach"),
        )
        try:
            pid, report = keeper.spawn(
                lambda report: keeper.starts_exec(
                    keeper.instance, kit, wanted, self.pidfd, report, child_ends
                ),
                kept=(self.pidfd, kit.config, kit.group, *child_ends),
                into=kit.group if kit.group >= 0 else None,
                bearing=True,
            )
        except OSError as error:
            close(own_ends)
            raise RuntimeFault("start a process in a container that is ending") from error
        finally:
            close(child_ends)
        try:
            return MonitoredExec(self, connection, pid, report, own_ends, request)
        except BaseException:
            keeper.disown(pid)
            keeper.suspect_stray()
            report.close()
            close(own_ends)
            raise

    def tell_exec(self, about: dict[str, Any]) -> None:
        """Tell who follows of an exec; who does not read learns nothing and delays nobody."""
        for connection in self._followers:
            with contextlib.suppress(OSError):
                sockets.send(connection, {"exec": about})
