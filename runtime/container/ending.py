"""The end of a container: what is left to do once its first process has ended.

What may take a while (the control group, syncing the record, clients that have not read all) is
done by a child, so that the keeper goes on with its other containers. Should the child be
killed, or the record not be written, as the disk is full, another one tries until it is: for as
long as the keeper lives nobody else can tell that the container has ended.
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

# Seconds until what could not be done is tried again: twice as many each time, up to these.
_AGAIN = 1.0
_AGAIN_AT_MOST = 16.0


@dataclass(slots=True, eq=False)
class Ended:
    """A container whose first process has ended, and what is to be recorded of it once it is
    `due` (time.monotonic)."""

    monitor: Monitor
    cgroup: Cgroup
    record: ExitRecord
    due: float = 0.0
    pause: float = _AGAIN

    @property
    def paths(self) -> ContainerPaths:
        return self.monitor.keeper.instance.container(self.monitor.id)


def end(monitor: Monitor) -> None:
    """Its first process has ended: keep the last of its output; the keeper does the rest with
    `settle`, once for all that have ended at the same time."""
    code = os.waitstatus_to_exitcode(monitor.keeper.wait(monitor.pid))
    monitor.ended = True
    monitor.selector.discard(monitor.pidfd)
    cgroup = open_cgroup(*monitor.kit.cgroup)
    # All of the pid namespace is dead by now; with the host's, the rest is ended here.
    for do in (cgroup.kill, monitor.drain, *(session.finish for session in monitor.sessions)):
        try:
            do()
        except RuntimeFault:
            continue  # of a group that has gone
        except Exception as error:
            report_fault(error)
            monitor.fault = monitor.fault or error
    fault = monitor.fault
    for session in list(monitor.sessions):
        session.abandon()
    record = ExitRecord(
        exit_code=_KILLED if fault is not None else code if code >= 0 else 128 - code,
        oom_killed=cgroup.oom_kills() > 0,
        started_at=monitor.started_at,
        finished_at=time.time_ns(),
        error=None if fault is None else f"its monitor failed: {fault!r}",
    )
    monitor.tell_end(record)
    monitor.keeper.ended.append(Ended(monitor, cgroup, record))


def end_failed(monitor: Monitor, error: Exception) -> None:
    """Our own code for it has failed: the container is killed, as nobody looks after it. What
    is left is to see its end."""
    monitor.fault = monitor.fault or error
    monitor.deafen()
    if monitor.ended:
        return
    monitor.signal(signal.SIGKILL)
    with contextlib.suppress(RuntimeFault):
        open_cgroup(*monitor.kit.cgroup).kill()


def settle(keeper: Keeper, ended: Sequence[Ended]) -> None:
    """Record the exits and tell who watches, in a child; those that are late each in its own.
    What cannot be done now is due again later."""
    # Of others a child had all descriptors, and did not come to its end.
    first = [one for one in ended if not one.monitor.gone]
    batches = [[one] for one in ended if one.monitor.gone]
    for batch in [first, *batches] if first else batches:
        try:
            _spawn(keeper, batch)
        except OSError as error:
            # No process is to be had.
            report_fault(error)
            _do_later(keeper, batch)


def _do_later(keeper: Keeper, ended: Sequence[Ended]) -> None:
    for one in ended:
        one.due = time.monotonic() + one.pause
        one.pause = min(2 * one.pause, _AGAIN_AT_MOST)
    keeper.ended += ended


def _spawn(keeper: Keeper, ended: Sequence[Ended]) -> None:
    late = ended[0].monitor.gone

    def body(_report: socket.socket) -> None:
        if late:
            for one in ended:
                _record_late(one)
        else:
            for one in ended:
                one.monitor.selector.begin_anew()
            _finish(ended)
        os._exit(0)

    kept = [] if late else [fd for one in ended for fd in one.monitor.descriptors()]
    pid, report = keeper.spawn(body, kept=kept, at_any_rate=True)
    for one in ended:
        one.monitor.let_go()
    selector = keeper.selector_of(ended[0].monitor)

    def on_report(_fd: int) -> None:
        # It reports nothing but its end, and an error that ends it.
        if said := report.recv(16 * 1024):
            report_fault(RuntimeFault(said.decode(errors="replace")))
            return
        selector.close()
        if keeper.wait(pid) == 0:
            for one in ended:
                keeper.drop(one.monitor)
        elif late:
            _do_later(keeper, ended)
        else:
            keeper.ended += ended

    selector.register(report, selectors.EVENT_READ, on_report)


def _finish(ended: Sequence[Ended]) -> None:
    # Whoever learns of an exit may start the container again: clear the place first.
    for one in ended:
        _clear(one)
        disclaim(os.dup(one.monitor.claim))
    passing = {one.paths.exit for one in ended if one.monitor.kit.volatile}
    failures = write_exits([(one.paths.exit, one.record) for one in ended], passing=passing)
    told = [one for one in ended if one.paths.exit not in failures]
    for one in told:
        _tell(one)
    # Last, and of these those whose clients have to read first, which may take them for ever.
    for one in sorted(told, key=lambda one: one.monitor.attachments.full):
        one.monitor.attachments.finish(one.record.exit_code)
    for failure in failures.values():
        raise failure


def _clear(one: Ended) -> None:
    with contextlib.suppress(RuntimeFault):
        one.cgroup.remove()
    # What cannot be removed must not keep the exit from being recorded.
    with contextlib.suppress(OSError):
        one.paths.socket.unlink(missing_ok=True)
        one.paths.run_directory.rmdir()


def _tell(one: Ended) -> None:
    """Nobody is let go before: that a connection ends tells that the exit is on disk."""
    monitor = one.monitor
    monitor.hear_late()
    for watcher in monitor.watchers:
        # Who has not read what it was told before learns it from the end of the connection.
        with contextlib.suppress(OSError):
            sockets.send(watcher, {"exited": dataclasses.asdict(one.record)})


def _record_late(one: Ended) -> None:
    """A child was killed, or has failed: nobody else knows the exit, unless it was written."""
    monitor = one.monitor
    try:
        claimed = claim(str(one.paths.directory), monitor.id)
    except RuntimeFault:
        return  # it runs again, or is no more
    try:
        started = read_start(one.paths.state)
        if started is None or started.pid != monitor.pid:
            return
        if read_exit(one.paths.exit) is None:
            _clear(one)
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                write_exit(one.paths.exit, one.record)
    finally:
        disclaim(claimed)
