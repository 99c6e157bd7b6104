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
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.cgroups.manager import Cgroup, open_cgroup
from runtime.container.children import report_fault
from runtime.container.claims import claim, disclaim
from runtime.container.record import ExitRecord, read_exit, read_start, write_exit, write_exits
from runtime.errors import RuntimeFault
from runtime.linux import sockets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.container.keeper import Keeper
    from runtime.container.monitor import Monitor
    from runtime.container.paths import ContainerPaths

_KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """A container whose first process has ended, and what is to be recorded of it."""

    monitor: Monitor
    cgroup: Cgroup
    record: ExitRecord

    @property
    def paths(self) -> ContainerPaths:
        return self.monitor.keeper.instance.container(self.monitor.id)


def end(monitor: Monitor) -> None:
    """Its first process has ended: keep the last of its output; the keeper does the rest with
    `settle`, once for all that have ended at the same time."""
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
    monitor.selector.discard(monitor.pidfd)
    monitor.keeper.ended.append(Ended(monitor, cgroup, record))


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
    monitor.selector.discard(monitor.pidfd)
    monitor.keeper.ended.append(Ended(monitor, cgroup, record))


def settle(keeper: Keeper, ended: Sequence[Ended]) -> None:
    """Record the exits and tell who watches, in a child."""

    def body(_report: socket.socket) -> None:
        for one in ended:
            one.monitor.selector.begin_anew()
        _finish(ended)
        os._exit(0)

    try:
        pid, report = keeper.spawn(body, kept=[fd for e in ended for fd in e.monitor.descriptors()])
    except OSError:
        # No process is to be had: then everybody has to wait for it.
        _finish(ended)
        for one in ended:
            one.monitor.let_go()
            keeper.drop(one.monitor)
        return
    for one in ended:
        one.monitor.let_go()
    selector = ended[0].monitor.selector

    def on_report(_fd: int) -> None:
        # It reports nothing but its end, and an error that ends it.
        if said := report.recv(16 * 1024):
            report_fault(RuntimeFault(said.decode(errors="replace")))
            return
        selector.close()
        lost = keeper.wait(pid) != 0
        for one in ended:
            if lost:
                _record_late(one)
            keeper.drop(one.monitor)

    selector.register(report, selectors.EVENT_READ, on_report)


def _finish(ended: Sequence[Ended]) -> None:
    # Whoever learns of an exit may start the container again: clear the place first.
    for one in ended:
        _clear(one)
        disclaim(os.dup(one.monitor.claim))
    write_exits([(one.paths.exit, one.record) for one in ended])
    for one in ended:
        _tell(one)
    # Last, and of these those whose clients have to read first, which may take them for ever.
    for one in sorted(ended, key=lambda one: one.monitor.attachments.full):
        one.monitor.attachments.finish(one.record.exit_code)


def _clear(one: Ended) -> None:
    with contextlib.suppress(RuntimeFault):
        one.cgroup.remove()
    one.paths.socket.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        one.paths.run_directory.rmdir()


def _tell(one: Ended) -> None:
    """Nobody is let go before: that a connection ends tells that the exit is on disk."""
    monitor = one.monitor
    monitor.hear_late()
    for watcher in monitor.watchers:
        # Who has not read what it was told before learns it from the end of the connection.
        watcher.setblocking(False)
        with contextlib.suppress(OSError):
            sockets.send(watcher, {"exited": dataclasses.asdict(one.record)})


def _record_late(one: Ended) -> None:
    """The child was killed, or has failed: nobody else knows the exit, unless it was written."""
    monitor = one.monitor
    with contextlib.suppress(RuntimeFault, OSError):
        claimed = claim(str(one.paths.directory), monitor.id)
        try:
            started = read_start(one.paths.state)
            if started is None or started.pid != monitor.pid:
                return
            if read_exit(one.paths.exit) is None:
                _clear(one)
                write_exit(one.paths.exit, one.record)
        finally:
            disclaim(claimed)
