"""The parent of one container: keeps its output, serves execs, and records how it ended.

Forked from the launcher, single-threaded, one loop over descriptors. It needs nothing of the
daemon: output is kept and the exit code recorded whether or not anybody listens. When the
monitor itself is killed, the kernel kills the container with it, so that no container runs
that nobody looks after.

Messages on its socket (`runtime.linux.sockets`):
  {"op": "watch"}                 answered by {"exited": {...}} once the exit is on disk
  {"op": "exec", "config": {...}} answered by {"started": pid} with the descriptors of its
                                  input, output and error (or its terminal), then {"exit_code"}
  {"op": "attach", ...}           see `runtime.container.attach`
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from runtime.cgroups.manager import Cgroup, open_cgroup
from runtime.container import exec, init, prepare
from runtime.container.attach import Attachments
from runtime.container.children import Outcome, become, close, describe, stdio
from runtime.container.config import ContainerConfig, ExecConfig
from runtime.container.logs import LogWriter
from runtime.container.monitored_exec import MonitoredExec
from runtime.container.mounting import step
from runtime.container.paths import ContainerPaths, Instance, is_id
from runtime.container.record import (
    ExitRecord,
    StartRecord,
    boot_id,
    exit_reserve,
    read_start,
    reserve_exit,
    write_exit,
    write_start,
)
from runtime.container.sessions import start_error
from runtime.errors import RuntimeFault
from runtime.linux import namespaces, process, sockets

_CHUNK = 64 * 1024

# Enough for the interpreter to specialise what is run (PEP 659).
_ROUNDS = 16

# How long a container that is to be attached to waits for that, in seconds.
_HOLD = 10.0


class Monitor:
    def __init__(self, instance: Instance, config: ContainerConfig) -> None:
        config = _with_shared_namespaces(instance, config)
        self._instance = instance
        self._config = config
        self._paths: ContainerPaths = instance.container(config.id)
        self._cgroup: Cgroup = open_cgroup(*instance.cgroup(config.id, config.cgroup_parent))
        self._selector = selectors.DefaultSelector()
        self._preparation = prepare.prepare(config, self._paths, instance.seccomp_cache)
        self._connections: set[socket.socket] = set()
        self._watchers: set[socket.socket] = set()
        self.sessions: set[MonitoredExec] = set()
        self._attachments = Attachments(self)
        self._outputs: dict[int, str] = {}
        self._reading = False
        self._held_until: float | None = None
        self._stdin = init.NULL
        self.terminal: int | None = None
        self._listening = False
        self._exit: ExitRecord | None = None

    def run(self, starter: socket.socket) -> None:
        """Start the container, answer `starter`, and stay until the container has ended."""
        process.set_name(f"bay:{self._config.id[:11]}")
        process.set_command_line(f"bay: monitor of {self._config.id}")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._paths.run_directory.mkdir(parents=True, exist_ok=True)
        self._listener = sockets.listen(str(self._paths.socket))
        try:
            self._start()
        except BaseException:
            self._discard()
            raise
        # Whoever asked may be dead by now; the container runs all the same.
        with contextlib.suppress(OSError):
            sockets.send(starter, {"started": dataclasses.asdict(self._started)})
        starter.close()
        self._loop()

    # --- start ---------------------------------------------------------------------------

    def _start(self) -> None:
        self._cgroup.create(self._config.resources, prepare.rules(self._config))
        self._log = LogWriter(self._paths.directory, self._config.log)
        reserve_exit(self._paths.exit)
        child_ends, own_ends = stdio(self._config.stdin_open, tty=self._config.tty)
        with self._children_in_pid_namespace():
            self._pid, report = self._fork(
                lambda report: init.run(self._preparation, self._cgroup, report, child_ends)
            )
        close(child_ends)
        self._pidfd = os.pidfd_open(self._pid)
        terminal = self._await_exec(report, own_ends)
        self._started = StartRecord(
            pid=self._pid,
            pid_started=process.start_time(self._pid) or 0,
            monitor=os.getpid(),
            monitor_started=process.start_time(os.getpid()) or 0,
            started_at=time.time_ns(),
            cgroup_parent=self._config.cgroup_parent,
        )
        write_start(self._paths.state, self._started)
        self._adopt_output(own_ends, terminal)
        self._selector.register(self._pidfd, selectors.EVENT_READ, self._on_exit)
        self._listen()

    @contextlib.contextmanager
    def _children_in_pid_namespace(self) -> Iterator[None]:
        """Let the next child be in the container's pid namespace; later ones are not."""
        kind = self._config.pid_namespace
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with step("namespace", "enter the pid namespace"):
                if kind == "private":
                    namespaces.unshare(namespaces.CLONE_NEWPID)
                elif kind != "host":
                    namespaces.join_path(kind, namespaces.CLONE_NEWPID)
            yield
            namespaces.join(own, namespaces.CLONE_NEWPID)
        finally:
            os.close(own)

    def _fork(self, body: Callable[[socket.socket], None]) -> tuple[int, socket.socket]:
        """Fork into the control group; the child runs `body`, which ends in exec or raises.

        The socket that is returned gives what the child reports and then its end.
        """
        group = self._cgroup.open()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = process.fork(into=group)
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
            if group is not None:
                os.close(group)

    def _listen(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ, self._on_connect)
        self._listening = True

    def _await_exec(self, report: socket.socket, own_ends: list[int]) -> int | None:
        """Wait until the child has become the container's program; its terminal, if any."""
        outcome = Outcome()
        outcome.take_all(report)
        report.close()
        if outcome.error is not None:
            close(own_ends if outcome.terminal is None else [outcome.terminal])
            os.waitpid(self._pid, 0)
            os.close(self._pidfd)
            raise start_error(outcome.error)
        return outcome.terminal

    def _adopt_output(self, own_ends: list[int], terminal: int | None) -> None:
        if terminal is not None:
            self.terminal = terminal
            self._outputs = {terminal: "stdout"}
        else:
            # Held open for as long as the container runs, or until somebody attaches and ends it.
            self._stdin = own_ends[0]
            self._outputs = {own_ends[1]: "stdout", own_ends[2]: "stderr"}
        for fd in self._outputs:
            os.set_blocking(fd, False)
        if self._config.await_attach:
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
        self._listener.close()
        with contextlib.suppress(OSError):
            self._paths.socket.unlink()
            self._paths.run_directory.rmdir()
        with contextlib.suppress(RuntimeFault):
            self._cgroup.kill()
        with contextlib.suppress(RuntimeFault):
            self._cgroup.remove()
        for path in (self._paths.state, exit_reserve(self._paths.exit)):
            path.unlink(missing_ok=True)

    # --- the loop ------------------------------------------------------------------------

    def _loop(self) -> None:
        while self._exit is None:
            for key, _events in self._selector.select(self._patience()):
                # What came before in this round may have closed it, or ended everything.
                if self._exit is None and self._selector.get_map().get(key.fileobj) is key:
                    key.data(key.fd)
            if not self._listening:
                self._listen()
            if self._held_until is not None and time.monotonic() >= self._held_until:
                self._release()

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
        with contextlib.suppress(RuntimeFault):
            self._cgroup.kill()
        for fd in list(self._outputs):
            self._drain(fd)
        self._log.close()
        for session in list(self.sessions):
            session.finish()
        code = os.waitstatus_to_exitcode(status)
        record = ExitRecord(
            exit_code=code if code >= 0 else 128 - code,
            oom_killed=self._cgroup.oom_kills() > 0,
            started_at=self._started.started_at,
            finished_at=time.time_ns(),
        )
        # Whoever learns of the exit may start the container again: clear the place first.
        with contextlib.suppress(RuntimeFault):
            self._cgroup.remove()
        self._paths.socket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._paths.run_directory.rmdir()
        write_exit(self._paths.exit, record)
        self._exit = record
        # Nobody is let go before: that a connection ends tells that the exit is on disk.
        self._accept_late()
        for watcher in self._watchers:
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
            case other:
                with contextlib.suppress(OSError):  # it may not stay for the answer
                    sockets.send(connection, {"error": {"message": f"unknown request {other}"}})
                self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._connections.discard(connection)
        self._watchers.discard(connection)
        connection.close()

    # --- attach --------------------------------------------------------------------------

    def input_for(self, *, wanted: bool) -> int | None:
        """What a client writes the process's input to: its terminal, which also takes a size,
        or its pipe where it has one."""
        if self.terminal is not None:
            return self.terminal
        return self._stdin if wanted and self._stdin != init.NULL else None

    def end_input(self) -> None:
        close([self._stdin])
        self._stdin = init.NULL

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    # --- exec ----------------------------------------------------------------------------

    def _exec(self, connection: socket.socket, request: dict[str, Any]) -> None:
        try:
            if self._exit is not None:
                raise RuntimeFault("start a process in a container that has ended")
            wanted = ExecConfig(**{**request["config"], **_tuples(request["config"])})
            session = self._open_session(connection, wanted)
        except Exception as error:
            # Nothing that is asked for may end the monitor, and the container with it.
            with contextlib.suppress(OSError):
                sockets.send(connection, {"error": describe(error)})
            connection.close()
            return
        self.sessions.add(session)

    def _open_session(self, connection: socket.socket, wanted: ExecConfig) -> MonitoredExec:
        preparation = self._preparation
        if wanted.privileged and not self._config.privileged:
            preparation = prepare.prepare(
                self._config.replace(privileged=True), self._paths, self._instance.seccomp_cache
            )
        child_ends, own_ends = stdio(wanted.stdin, tty=wanted.tty, output=not wanted.detach)
        try:
            pid, report = self._fork(
                lambda report: exec.run(
                    preparation, wanted, self._pidfd, self._cgroup, report, child_ends
                )
            )
        except OSError as error:
            close(own_ends)
            raise RuntimeFault("start a process in a container that is ending") from error
        finally:
            close(child_ends)
        return MonitoredExec(self, connection, pid, report, own_ends)

    @property
    def selector(self) -> selectors.BaseSelector:
        return self._selector


def _with_shared_namespaces(instance: Instance, config: ContainerConfig) -> ContainerConfig:
    """Replace "container:<id>" by the namespaces that the container has now.

    They are opened and then proven to be its own: a pid alone may be somebody else's by now.
    Raises RuntimeFault where it does not run.
    """
    shared = {}
    for kind, wanted in (("pid", config.pid_namespace), ("ipc", config.ipc_namespace)):
        if not wanted.startswith("container:"):
            continue
        other = wanted.removeprefix("container:")
        started = read_start(instance.container(other).state) if is_id(other) else None
        try:
            if started is None or started.boot != boot_id():
                raise ProcessLookupError
            fd = os.open(f"/proc/{started.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            if process.start_time(started.pid) != started.pid_started:
                os.close(fd)
                raise ProcessLookupError
        except (FileNotFoundError, ProcessLookupError) as error:
            raise RuntimeFault(
                f"share the {kind} namespace of container {other[:12]}: it does not run"
            ) from error
        # The children find it at the same place.
        shared[f"{kind}_namespace"] = f"/proc/self/fd/{fd}"
    return config.replace(**shared) if shared else config


def warm_up(instance: Instance) -> None:
    """Do in the launcher what each monitor begins with, some times over.

    What is imported, cached and specialised by the interpreter here lies in pages that all
    monitors share. Raises RuntimeFault where a start would.
    """
    raw = ContainerConfig(id="warm-up", layers=("/",), argv=("true",)).to_json()
    for _ in range(_ROUNDS):
        monitor = Monitor(instance, ContainerConfig.from_json(raw))
        monitor._selector.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            sockets.send(ours, {"op": "watch"})
            sockets.receive(theirs)


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
