"""The keepers that one launcher has forked, and which of them gets what is to be started."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.container import starter
from runtime.container.children import report_fault
from runtime.container.keeper import Keeper
from runtime.container.paths import Instance
from runtime.linux import process, sockets

# So many containers are ended when a keeper is killed; each keeper costs about 1.5 MB.
CAPACITY = 10


@dataclass(slots=True, eq=False)
class _Link:
    """The connection to one keeper, how many containers it was given and how many have ended."""

    connection: socket.socket
    group: str
    given: int = 0
    ended: int = 0

    @property
    def containers(self) -> int:
        return self.given - self.ended


class Keepers:
    """`selector` has the connections, with what to call as their data; `abandon` is called in
    each child, which is a keeper then and nothing else."""

    def __init__(
        self, instance: Instance, selector: selectors.BaseSelector, abandon: Callable[[], None]
    ) -> None:
        self._instance = instance
        self._selector = selector
        self._abandon = abandon
        self._links: list[_Link] = []

    def hand_over(self, request: dict[str, Any], client: socket.socket) -> None:
        """Have a keeper of the request's "group" start a container and answer `client`; without
        a group, one of its own. Raises OSError where none can be forked."""
        group = str(request.get("group") or "")
        for link in list(self._links):
            if link.group == group and link.containers < CAPACITY and _give(link, request, client):
                return
        link = self._fork(group or str(request.get("id")), group, client)
        if not _give(link, request, client):
            link.connection.close()
            raise OSError("the keeper has ended")
        if not group:
            link.connection.close()
            return
        self._links.append(link)
        self._selector.register(
            link.connection, selectors.EVENT_READ, lambda: self._on_message(link)
        )

    def _on_message(self, link: _Link) -> None:
        try:
            link.ended = int(sockets.receive(link.connection)[0]["ended"])
        except (EOFError, OSError, ValueError, KeyError, TypeError):
            self._drop(link)
            return
        if link.containers == 0:
            self._drop(link)

    def _drop(self, link: _Link) -> None:
        """Give it nothing more; it ends with its last container."""
        self._selector.unregister(link.connection)
        link.connection.close()
        self._links.remove(link)

    def _fork(self, name: str, group: str, client: socket.socket) -> _Link:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                child = os.fork()
            except OSError:
                ours.close()
                raise
            if child == 0:
                ours.close()
                client.close()  # it is handed over like any other
                self._become_keeper(name, theirs)
        ours.setblocking(False)
        return _Link(ours, group)

    def _become_keeper(self, name: str, launcher: socket.socket) -> None:
        """The child: never returns into the launcher's loop."""
        code = 1
        try:
            self._abandon()
            for link in self._links:
                link.connection.close()
            os.setsid()
            process.reap_children()
            process.set_own_name(f"bay:{name[:11]}")
            process.set_command_line(f"bay: monitor of {name}")
            keeper = Keeper(
                self._instance, launcher, start=starter.run, start_exec=starter.run_exec
            )
            keeper.run()
            code = 0
        except Exception as error:
            report_fault(error)
        finally:
            os._exit(code)


def _give(link: _Link, request: dict[str, Any], client: socket.socket) -> bool:
    """Whether it took the request: one that is ending, or that does not read, does not."""
    with contextlib.suppress(OSError):
        sockets.send(link.connection, request, [client.fileno()])
        link.given += 1
        return True
    return False
