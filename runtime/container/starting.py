"""One start of a container, from the request to the answer, as its keeper sees it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from typing import TYPE_CHECKING, Any

from runtime.cgroups.manager import open_cgroup
from runtime.container.children import NULL, Outcome, answer_error, close, report_fault
from runtime.container.claims import claim, disclaim
from runtime.container.config import ContainerConfig
from runtime.container.kit import Kit, descriptors_of, take_kit
from runtime.container.monitor import Monitor
from runtime.container.record import exit_reserve
from runtime.container.sessions import start_error
from runtime.errors import RuntimeFault
from runtime.linux import files, process, sockets

if TYPE_CHECKING:
    from runtime.container.keeper import Keeper


class Starting:
    """Has a starter do it (`runtime.container.starter`), and undoes what one that failed has
    left. What runs is a Monitor's from then on.

    Raises NotFound, and RuntimeFault while another monitor starts or runs the container.
    """

    def __init__(
        self, keeper: Keeper, id: str, request: dict[str, Any], client: socket.socket
    ) -> None:
        self._keeper = keeper
        self._id = id
        self._client = client
        self._claim = claim(keeper.instance.directory(id), id)
        self._outcome = Outcome()
        self._kit: Kit | None = None
        self._error: Exception | None = None
        self._over = False
        self._selector = keeper.selector_of(self)
        try:
            self._starter, self._report = keeper.spawn(
                lambda report: keeper.starts(keeper.instance, request, report), bearing=True
            )
        except OSError:
            disclaim(self._claim)
            raise
        self._selector.register(self._report, selectors.EVENT_READ, self._on_report)

    def patience(self) -> float | None:
        return None

    def tick(self) -> None:
        """Nothing is due before the report."""

    def fail(self, error: Exception) -> None:
        if self._error is None:
            self._undo(error)
        else:
            self._undone()

    def let_go(self) -> None:
        self._selector.close()
        if self._kit is not None:
            close(descriptors_of(self._kit))
            self._kit = None
        if self._outcome.terminal is not None:
            os.close(self._outcome.terminal)
            self._outcome.terminal = None
        if self._claim != NULL:
            disclaim(self._claim)
            self._claim = NULL

    def _on_report(self, _fd: int) -> None:
        self._outcome.take(self._report)
        if not self._outcome.complete:
            return
        self._selector.close()
        try:
            started = self._complete()
        except Exception as error:
            if not isinstance(error, RuntimeFault | OSError):
                report_fault(error)
            self._undo(error)
            return
        # Whoever asked may be dead by now; the container runs all the same.
        with self._client, contextlib.suppress(OSError):
            sockets.send_raw(self._client, f'{{"started": {started}}}'.encode())

    def _complete(self) -> str:
        """All reports are in: hand the container over to a monitor; what is written down of it."""
        outcome, keeper = self._outcome, self._keeper
        if outcome.kit is not None:
            self._kit = take_kit(outcome.kit, outcome.kit_fds)
            keeper.adopt(self._kit.pid)
        if outcome.pid is not None:
            keeper.adopt(outcome.pid)
        self._over = True
        keeper.wait(self._starter)
        if outcome.error is not None:
            raise start_error(outcome.error)
        kit = self._kit
        if kit is None:
            raise RuntimeFault("start the container: the process that did it was killed")
        pid, record = kit.pid, kit.record
        if outcome.pid is not None:
            keeper.wait(kit.pid)
            pid = outcome.pid
            record = _of_sibling(record, pid)
        started_at = time.time_ns()
        record = f'{record[:-1]}, "started_at": {started_at}}}'
        files.write_atomically(kit.state, record.encode(), mode=0o600, durable=False)
        monitor = Monitor(
            keeper,
            self._id,
            kit,
            pid=pid,
            claim=self._claim,
            terminal=outcome.terminal,
            started_at=started_at,
        )
        keeper.take(monitor, instead=self)
        return record

    def _undo(self, error: Exception) -> None:
        """Clear what there is, in a child; what cannot be undone is left to the daemon's sweep."""
        self._error = error
        self._selector.close()
        if not self._over:
            self._over = True
            self._keeper.disown(self._starter)
        for pid in (self._kit.pid if self._kit else None, self._outcome.pid):
            if pid is not None and self._keeper.has(pid):
                self._keeper.disown(pid)
        # There may be one of which we were not told.
        self._keeper.suspect_stray()
        try:
            child, report = self._keeper.spawn(lambda _report: self._discard())
        except OSError:
            # No process is to be had: then everybody has to wait for it.
            self._attempt_discard()
            self._undone()
            return

        def on_report(_fd: int) -> None:
            if said := report.recv(16 * 1024):
                report_fault(RuntimeFault(said.decode(errors="replace")))
                return
            self._selector.close()
            if os.WIFSIGNALED(self._keeper.wait(child)):
                self._attempt_discard()
            self._undone()

        self._selector.register(report, selectors.EVENT_READ, on_report)

    def _undone(self) -> None:
        assert self._error is not None
        self.let_go()
        answer_error(self._client, self._error)
        self._keeper.drop(self)

    def _attempt_discard(self) -> None:
        try:
            self._discard()
        except Exception as error:
            report_fault(error)

    def _discard(self) -> None:
        instance = self._keeper.instance
        paths = instance.container(self._id)
        try:
            raw = paths.config.read_bytes()
            parent = ContainerConfig.from_json(raw).cgroup_parent
            cgroup = open_cgroup(*instance.cgroup(self._id, parent))
        except (OSError, ValueError, TypeError, RuntimeFault):
            return  # not even its description could be read: nothing was made
        # Whoever has said all that it had to say is in the group by now, or has ended.
        with contextlib.suppress(RuntimeFault):
            cgroup.kill()
        with contextlib.suppress(RuntimeFault):
            cgroup.remove()
        for path in (paths.state, exit_reserve(paths.exit), paths.socket):
            path.unlink(missing_ok=True)
        # Last, as it tells a sweep that there is something to undo.
        with contextlib.suppress(OSError):
            paths.run_directory.rmdir()


def _of_sibling(record: str, pid: int) -> str:
    """The start record where the first process is a sibling of the one that the starter made."""
    own = {"pid": pid, "pid_started": process.start_time(pid) or 0}
    return json.dumps({**json.loads(record), **own})
