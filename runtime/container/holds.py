"""A container that stands still for as long as a client stays: for a copy of what it has written.

The monitor freezes it and thaws it again when the client's connection ends, however that
happens, so that a client that is killed in the middle leaves nothing frozen.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from typing import TYPE_CHECKING

from runtime.cgroups.manager import open_cgroup
from runtime.errors import RuntimeFault
from runtime.linux import sockets

if TYPE_CHECKING:
    from runtime.container.monitor import Monitor


class Holds:
    """The clients for whose sake one monitor's container is frozen."""

    def __init__(self, monitor: Monitor, cgroup: tuple[str, str]) -> None:
        self._monitor = monitor
        self._cgroup = open_cgroup(*cgroup)
        self._clients: set[socket.socket] = set()

    def open(self, connection: socket.socket) -> None:
        """Freeze, and answer whether that is this client's doing: what somebody has paused
        stays so when the client goes."""
        held = bool(self._clients) or not self._cgroup.frozen()
        if held:
            self._clients.add(connection)
        self._monitor.selector.register(
            connection, selectors.EVENT_READ, lambda _fd: self._on_end(connection)
        )
        try:
            if len(self._clients) == 1:
                self._cgroup.freeze(True)
            sockets.send(connection, {"held": held})
        except (OSError, RuntimeFault, KeyError):
            # KeyError: of v1 hierarchies this host has no freezer.
            self._on_end(connection)

    def _on_end(self, connection: socket.socket) -> None:
        self._monitor.selector.unregister(connection)
        connection.close()
        if connection not in self._clients:
            return
        self._clients.discard(connection)
        if not self._clients:
            with contextlib.suppress(RuntimeFault, KeyError):
                self._cgroup.freeze(False)
