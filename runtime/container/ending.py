"""The end of a container: what is left to do once its first process has ended.

What may take a while (the control group, syncing the record, clients that have not read all) is
done by a child, so that the keeper goes on with its other containers. Should the child be
killed, the keeper writes the record itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING

from runtime.cgroups.manager import Cgroup, open_cgroup
from runtime.container.children import report_fault
from runtime.container.claims import claim, disclaim
from runtime.container.record import ExitRecord, read_exit, read_start, write_exit
from runtime.errors import RuntimeFault
from runtime.linux import sockets

if TYPE_CHECKING:
    from runtime.container.monitor import Monitor

_KILLED = 128 + signal.SIGKILL


def end(monitor: Monitor) -> None:
    """Its first process has ended: keep the last of its output, record the exit, tell who
    watches."""
    code = os.waitstatus_to_exitcode(monitor.keeper.wait(monitor.pid))
    # All of the pid namespace is dead by now; with the host's, the rest is ended here.
    cgroup = open_cgroup(*monitor.kit.cgroup)
    with contextlib.suppress(RuntimeFault):
        cgroup.kill()
    monitor.drain()
    for session in list(monitor.sessions):
        session.finish()
    record = ExitRecord(
        exit_code=code if code >= 0 else 128 - code,
        oom_killed=cgroup.oom_kills() > 0,
        started_at=monitor.started_at,
        finished_at=time.time_ns(),
    )
    monitor.ended = True
    _settle(monitor, cgroup, record)


def end_failed(monitor: Monitor, error: Exception) -> None:
    """Our own code for it has failed: the container is killed, as nobody looks after it."""
    if monitor.ended:
        monitor.let_go()
        monitor.keeper.drop(monitor)
        return
    monitor.ended = True
    monitor.signal(signal.SIGKILL)
    cgroup = open_cgroup(*monitor.kit.cgroup)
    with contextlib.suppress(RuntimeFault):
        cgroup.kill()
    with contextlib.suppress(ChildProcessError):
        monitor.keeper.wait(monitor.pid)
    for session in list(monitor.sessions):
        session.finish()
    record = ExitRecord(
        exit_code=_KILLED,
        oom_killed=False,
        started_at=monitor.started_at,
        finished_at=time.time_ns(),
        error=f"its monitor failed: {error!r}",
    )
    _settle(monitor, cgroup, record)


def _settle(monitor: Monitor, cgroup: Cgroup, record: ExitRecord) -> None:
    keeper = monitor.keeper

    def body(_report: socket.socket) -> None:
        monitor.selector.begin_anew()
        _finish(monitor, cgroup, record)
        os._exit(0)

    try:
        pid, report = keeper.spawn(body, kept=monitor.descriptors())
    except OSError:
        # No process is to be had: then everybody has to wait for it.
        _finish(monitor, cgroup, record)
        monitor.let_go()
        keeper.drop(monitor)
        return
    monitor.let_go()

    def on_report(_fd: int) -> None:
        # It reports nothing but its end, and an error that ends it.
        if (said := report.recv(16 * 1024)) and b"message" in said:
            report_fault(RuntimeFault(said.decode(errors="replace")))
            return
        monitor.selector.close()
        if keeper.wait(pid) != 0:
            _record_late(monitor, cgroup, record)
        keeper.drop(monitor)

    monitor.selector.register(report, selectors.EVENT_READ, on_report)


def _finish(monitor: Monitor, cgroup: Cgroup, record: ExitRecord) -> None:
    # Whoever learns of the exit may start the container again: clear the place first.
    with contextlib.suppress(RuntimeFault):
        cgroup.remove()
    paths = monitor.keeper.instance.container(monitor.id)
    paths.socket.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        paths.run_directory.rmdir()
    disclaim(os.dup(monitor.claim))
    with contextlib.suppress(FileNotFoundError):  # somebody has removed its directory
        write_exit(paths.exit, record)
    # Nobody is let go before: that a connection ends tells that the exit is on disk.
    monitor.hear_late()
    for watcher in monitor.watchers:
        # Who has not read what it was told before learns it from the end of the connection.
        watcher.setblocking(False)
        with contextlib.suppress(OSError):
            sockets.send(watcher, {"exited": dataclasses.asdict(record)})
    monitor.attachments.finish(record.exit_code)


def _record_late(monitor: Monitor, cgroup: Cgroup, record: ExitRecord) -> None:
    """The child was killed, or has failed: nobody else knows the exit, unless it was written."""
    paths = monitor.keeper.instance.container(monitor.id)
    with contextlib.suppress(RuntimeFault, OSError):
        claimed = claim(str(paths.directory), monitor.id)
        try:
            started = read_start(paths.state)
            if started is None or started.pid != monitor.pid or read_exit(paths.exit) is not None:
                return
            with contextlib.suppress(RuntimeFault):
                cgroup.remove()
            paths.socket.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                paths.run_directory.rmdir()
            write_exit(paths.exit, record)
        finally:
            disclaim(claimed)
