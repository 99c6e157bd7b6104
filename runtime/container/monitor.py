"""The parent of one container: keeps its output, serves execs, and records how it ended.

Forked from the launcher, single-threaded, one loop over descriptors. It needs nothing of the
daemon: output is kept and the exit code recorded whether or not anybody listens. When the
monitor itself is killed, the kernel kills the container with it, so that no container runs
that nobody looks after.

Messages on its socket (`runtime.linux.sockets`):
  {"op": "watch"}                 answered by {"exited": {...}} once the exit is on disk; with
                                  "execs": true by {"exec": {...}} for each that starts or ends
  {"op": "exec", "config": {...}} answered by {"started": pid} with the descriptors of its
                                  input, output and error (or its terminal), then {"exit_code"}
  {"op": "attach", ...}           see `runtime.container.attach`
  {"op": "hold"}                  see `runtime.container.holds`
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime.container.attach import Attachments
from runtime.container.children import NULL, Outcome, become, close, describe, stdio
from runtime.container.kit import take_kit
from runtime.container.logs import LogWriter
from runtime.container.monitored_exec import MonitoredExec
from runtime.errors import NotFound, RuntimeFault
from runtime.linux import files, process, sockets

if TYPE_CHECKING:
    from runtime.container.holds import Holds
    from runtime.container.paths import ContainerPaths, Instance
    from runtime.container.record import ExitRecord

_CHUNK = 64 * 1024

# How long a container that is to be attached to waits for that, in seconds.
_HOLD = 10.0


class Monitor:
    def __init__(
        self,
        instance: Instance,
        id: str,
        *,
        start: Callable[..., None],
        start_exec: Callable[..., None],
    ) -> None:
        """`start` and `start_exec` do, in a child, what those of `runtime.container.starter` do."""
        self._instance = instance
        self._id = id
        self._starts = start
        self._starts_exec = start_exec
        self._selector = selectors.DefaultSelector()
        self._connections: set[socket.socket] = set()
        self._watchers: set[socket.socket] = set()
        self._followers: set[socket.socket] = set()
        self._holds: Holds | None = None
        self.sessions: set[MonitoredExec] = set()
        self._attachments = Attachments(self)
        self._outputs: dict[int, str] = {}
        self._reading = False
        self._held_until: float | None = None
        self._stdin = NULL
        self.terminal: int | None = None
        self._listening = False
        self._exit: ExitRecord | None = None
        self._claimed: int | None = None

    def run(self, request: dict[str, Any], client: socket.socket) -> None:
        """Start the container as `request` says, answer `client`, and stay until it has ended."""
        self.start(request, client)
        while self._exit is None:
            self.turn(self._patience())

    # --- start ---------------------------------------------------------------------------

    def start(self, request: dict[str, Any], client: socket.socket) -> None:
        process.set_own_name(f"bay:{self._id[:11]}")
        process.set_command_line(f"bay: monitor of {self._id}")
        self._claim()
        try:
            started = self._start(request)
        except BaseException:
            self._discard()
            self._disclaim()
            raise
        # Whoever asked may be dead by now; the container runs all the same.
        with contextlib.suppress(OSError):
            sockets.send_raw(client, f'{{"started": {started}}}'.encode())
        client.close()

    def _claim(self) -> None:
        """Become the only monitor of the container, for as long as this process lives.

        Raises NotFound, and RuntimeFault while another one starts or runs it.
        """
        try:
            self._claimed = files.try_lock_directory(self._instance.directory(self._id))
        except FileNotFoundError as error:
            raise NotFound("container", self._id) from error
        if self._claimed is None:
            raise RuntimeFault(f"container {self._id[:12]} is being started, or runs")

    def _disclaim(self) -> None:
        if self._claimed is not None:
            os.close(self._claimed)
            self._claimed = None

    def _start(self, request: dict[str, Any]) -> str:
        """Have a starter start the container; what is written down of it."""
        child, report = self._fork(lambda report: self._starts(self._instance, request, report))
        outcome = Outcome()
        outcome.take_all(report)
        report.close()
        os.waitpid(child, 0)
        if outcome.error is not None:
            from runtime.container.sessions import start_error

            raise start_error(outcome.error)
        if outcome.kit is None:
            raise RuntimeFault("start the container: the process that did it was killed")
        self._kit = kit = take_kit(outcome.kit, outcome.kit_fds)
        self._pid, record = kit.pid, kit.record
        if outcome.pid is not None:
            os.waitpid(self._pid, 0)
            self._pid = outcome.pid
            record = _of_sibling(record, self._pid)
        self._pidfd = os.pidfd_open(self._pid)
        self._listener = socket.socket(fileno=kit.listener)
        self._log = LogWriter(kit.directory, kit)
        self._started_at = time.time_ns()
        record = f'{record[:-1]}, "started_at": {self._started_at}}}'
        files.write_atomically(kit.state, record.encode(), mode=0o600, durable=False)
        self._adopt_output(outcome.terminal)
        if self._held_until is None:
            self._selector.register(self._pidfd, selectors.EVENT_READ, self._on_exit)
        self._listen()
        return record

    @property
    def _paths(self) -> ContainerPaths:
        return self._instance.container(self._id)

    def _fork(
        self, body: Callable[[socket.socket], None], into: int | None = None
    ) -> tuple[int, socket.socket]:
        """Fork, into a control group where one is given; the child runs `body`.

        The socket that is returned gives what the child reports and then its end.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = process.fork(into=into)
        except OSError:
            ours.close()
            raise
        else:
            if pid == 0:
                ours.close()
                become(body, theirs)
            return pid, ours
        finally:
            theirs.close()

    def close(self) -> None:
        """Let go of all descriptors; only where there is no container."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        for fd in (self._pidfd, *self._outputs):
            os.close(fd)
        self._disclaim()
        self._log.close()
        self._selector.close()

    def _listen(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ, self._on_connect)
        self._listening = True

    def _adopt_output(self, terminal: int | None) -> None:
        if terminal is not None:
            self.terminal = terminal
            self._outputs = {terminal: "stdout"}
        else:
            # Held open for as long as the container runs, or until somebody attaches and ends it.
            self._stdin = self._kit.stdin
            self._outputs = {self._kit.stdout: "stdout", self._kit.stderr: "stderr"}
        for fd in self._outputs:
            os.set_blocking(fd, False)
        if self._kit.await_attach:
            self._held_until = time.monotonic() + _HOLD
        self.resume_output()

    def resume_output(self) -> None:
        """Read the output, unless it has to wait for a client."""
        if self._reading or self._held_until is not None or self._attachments.full:
            return
        self._reading = True
        for fd in self._outputs:
            self._selector.register(fd, selectors.EVENT_READ, self._on_output)

    def _pause_output(self) -> None:
        self._reading = False
        for fd in self._outputs:
            self._selector.unregister(fd)

    def _release(self) -> None:
        """The first client is there, or none has come in time."""
        self._held_until = None
        self.resume_output()
        if self._pidfd not in self._selector.get_map():
            self._selector.register(self._pidfd, selectors.EVENT_READ, self._on_exit)

    def _discard(self) -> None:
        """Undo a start that failed; what cannot be undone is left to the daemon's sweep."""
        from runtime.cgroups.manager import open_cgroup
        from runtime.container.config import ContainerConfig
        from runtime.container.record import exit_reserve

        paths = self._paths
        try:
            raw = paths.config.read_bytes()
            parent = ContainerConfig.from_json(raw).cgroup_parent
            cgroup = open_cgroup(*self._instance.cgroup(self._id, parent))
        except (OSError, ValueError, TypeError, RuntimeFault):
            return  # not even its description could be read: nothing was made
        with contextlib.suppress(RuntimeFault):
            cgroup.kill()
        # Whoever has said all that it had to say is in the group by now, or has ended.
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        with contextlib.suppress(RuntimeFault):
            cgroup.remove()
        for path in (paths.state, exit_reserve(paths.exit), paths.socket):
            path.unlink(missing_ok=True)
        # Last, as it tells a sweep that there is something to undo.
        with contextlib.suppress(OSError):
            paths.run_directory.rmdir()

    # --- the loop ------------------------------------------------------------------------

    def turn(self, patience: float | None) -> bool:
        """Wait for `patience` seconds at most, and do what has come; whether there was any."""
        events = self._selector.select(patience)
        for key, _events in events:
            # What came before in this round may have closed it, or ended everything.
            if self._exit is None and self._selector.get_map().get(key.fileobj) is key:
                key.data(key.fd)
        if not self._listening:
            self._listen()
        if self._held_until is not None and time.monotonic() >= self._held_until:
            self._release()
        return bool(events)

    def _patience(self) -> float | None:
        """How long to wait for something to happen, in seconds; None for ever."""
        if self._held_until is not None:
            return max(0.0, self._held_until - time.monotonic())
        return None if self._listening else 1.0

    def _on_output(self, fd: int) -> None:
        if not self._read_output(fd):
            if self._reading:
                self._selector.unregister(fd)
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
        if self._attachments:
            self._attachments.write(stream, chunk)
            if self._reading and self._attachments.full:
                self._pause_output()

    def _on_exit(self, _fd: int) -> None:
        if self._held_until is not None:
            # Whoever wants its output has not come yet.
            self._selector.unregister(self._pidfd)
            return
        _, status = os.waitpid(self._pid, 0)
        # All of the pid namespace is dead by now; with the host's, the rest is ended here.
        from runtime.cgroups.manager import open_cgroup
        from runtime.container.record import ExitRecord, write_exit

        cgroup = open_cgroup(*self._kit.cgroup)
        with contextlib.suppress(RuntimeFault):
            cgroup.kill()
        for fd in list(self._outputs):
            self._drain(fd)
        self._log.close()
        for session in list(self.sessions):
            session.finish()
        code = os.waitstatus_to_exitcode(status)
        record = ExitRecord(
            exit_code=code if code >= 0 else 128 - code,
            oom_killed=cgroup.oom_kills() > 0,
            started_at=self._started_at,
            finished_at=time.time_ns(),
        )
        # Whoever learns of the exit may start the container again: clear the place first.
        with contextlib.suppress(RuntimeFault):
            cgroup.remove()
        paths = self._paths
        paths.socket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            paths.run_directory.rmdir()
        self._disclaim()
        write_exit(paths.exit, record)
        self._exit = record
        # Nobody is let go before: that a connection ends tells that the exit is on disk.
        self._accept_late()
        for watcher in self._watchers:
            # Who has not read what it was told before learns it from the end of the connection.
            watcher.setblocking(False)
            with contextlib.suppress(OSError):
                sockets.send(watcher, {"exited": dataclasses.asdict(record)})
        self._attachments.finish(record.exit_code)

    def _accept_late(self) -> None:
        """Hear those whose request came too late to be seen in the loop."""
        self._listener.setblocking(False)
        with contextlib.suppress(OSError):
            while True:
                self._await_request(self._listener.accept()[0])
        for connection in list(self._connections):
            connection.setblocking(False)
            self._on_request(connection)

    def _drain(self, fd: int) -> None:
        """Take what is still in the pipe; somebody outside may hold its other end open."""
        while True:
            try:
                chunk = os.read(fd, _CHUNK)
            except OSError:
                break
            if not chunk:
                break
            self._keep(self._outputs[fd], chunk)

    def _on_connect(self, _fd: int) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            # No descriptor is free: who connects has to wait, the output has not.
            self._selector.unregister(self._listener)
            self._listening = False
            return
        self._await_request(connection)

    def _await_request(self, connection: socket.socket) -> None:
        self._connections.add(connection)
        self._selector.register(
            connection, selectors.EVENT_READ, lambda _fd: self._on_request(connection)
        )

    def _on_request(self, connection: socket.socket) -> None:
        try:
            request, fds = sockets.receive(connection)
        except (EOFError, OSError, ValueError):
            self._forget(connection)
            return
        for fd in fds:
            os.close(fd)
        match request.get("op"):
            case "watch":
                self._connections.discard(connection)
                self._watchers.add(connection)
                if request.get("execs"):
                    self._followers.add(connection)
            case "exec":
                # From here on the session reads and writes this connection.
                self._selector.unregister(connection)
                self._connections.discard(connection)
                self._exec(connection, request)
            case "attach" if self._exit is None:
                self._selector.unregister(connection)
                self._connections.discard(connection)
                self._attachments.open(connection, request)
                if self._held_until is not None:
                    self._release()
            case "attach":
                with contextlib.suppress(OSError):
                    sockets.send(connection, {"error": {"message": "the container has ended"}})
                self._forget(connection)
            case "hold" if self._exit is None:
                self._selector.unregister(connection)
                self._connections.discard(connection)
                self._hold(connection)
            case other:
                with contextlib.suppress(OSError):  # it may not stay for the answer
                    sockets.send(connection, {"error": {"message": f"unknown request {other}"}})
                self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._connections.discard(connection)
        self._watchers.discard(connection)
        self._followers.discard(connection)
        connection.close()

    def _hold(self, connection: socket.socket) -> None:
        if self._holds is None:
            from runtime.container.holds import Holds

            self._holds = Holds(self, self._kit.cgroup)
        self._holds.open(connection)

    # --- attach --------------------------------------------------------------------------

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
            signal.pidfd_send_signal(self._pidfd, number)

    # --- exec ----------------------------------------------------------------------------

    def _exec(self, connection: socket.socket, request: dict[str, Any]) -> None:
        try:
            if self._exit is not None:
                raise RuntimeFault("start a process in a container that has ended")
            session = self._open_session(connection, request)
        except Exception as error:
            # Nothing that is asked for may end the monitor, and the container with it.
            with contextlib.suppress(OSError):
                sockets.send(connection, {"error": describe(error)})
            connection.close()
            return
        self.sessions.add(session)

    def _open_session(self, connection: socket.socket, request: dict[str, Any]) -> MonitoredExec:
        kit, wanted = self._kit, request["config"]
        child_ends, own_ends = stdio(
            bool(wanted.get("stdin")),
            tty=bool(wanted.get("tty")),
            output=not wanted.get("detach"),
        )
        try:
            pid, report = self._fork(
                lambda report: self._starts_exec(
                    self._instance, kit, wanted, self._pidfd, report, child_ends
                ),
                into=kit.group if kit.group >= 0 else None,
            )
        except OSError as error:
            close(own_ends)
            raise RuntimeFault("start a process in a container that is ending") from error
        finally:
            close(child_ends)
        return MonitoredExec(self, connection, pid, report, own_ends, request)

    def tell_exec(self, about: dict[str, Any]) -> None:
        """Tell who follows of an exec; who does not read learns nothing and delays nobody."""
        for connection in self._followers:
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                sockets.send(connection, {"exec": about})
            connection.setblocking(True)

    @property
    def selector(self) -> selectors.BaseSelector:
        return self._selector


def _of_sibling(record: str, pid: int) -> str:
    """The start record where the first process is a sibling of the one that the starter made."""
    own = {"pid": pid, "pid_started": process.start_time(pid) or 0}
    return json.dumps({**json.loads(record), **own})
