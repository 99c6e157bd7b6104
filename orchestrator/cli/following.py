"""Follows the output of a project's containers until the last of them has ended.

Two things wake it: a log file that changed, and the daemon's stream of events. Neither is
believed: files are read to their end, and the containers are listed again. Should
the daemon go away, output is followed all the same until a new one answers.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from typing import Any, Protocol

from orchestrator.cli.logs import Printer, Source, Window, show
from orchestrator.cli.session import Session
from orchestrator.client import daemon
from orchestrator.client.errors import DaemonUnreachable
from orchestrator.client.http import Response
from orchestrator.engine.changes import FileChanges

OnChange = Callable[[list[dict[str, Any]]], None]

_ENDED = ("exited", "dead")
_RETRY = 1000  # milliseconds between attempts to find a new daemon


class Keys(Protocol):
    """Where keys come from, and what they do."""

    def fileno(self) -> int: ...

    def take(self) -> None: ...


class Follower:
    """What is being followed: of the project's containers those that `chosen` picks; `run`
    returns when all of them have ended."""

    def __init__(
        self,
        session: Session,
        project: str,
        chosen: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
        printer: Printer,
        *,
        stay: bool = False,
        keys: Keys | None = None,
    ) -> None:
        """With `stay` containers that ended are waited for, as somebody may start them again;
        `keys` takes what is typed meanwhile, and may raise to end it all."""
        self.stay = stay
        self._keys = keys
        self._session = session
        self._path = session.project_path("containers", project)
        self._project = project
        self._chosen = chosen
        self._printer = printer
        self._sources: dict[str, Source] = {}
        self._events: Response | None = None
        self._changes = FileChanges()
        self._containers: list[dict[str, Any]] = []
        self._all: list[dict[str, Any]] = []

    def run(self, window: Window, *, on_change: OnChange | None = None) -> None:
        """Print the past within `window`, then what comes; `on_change` gets every new list
        of all the project's containers."""
        try:
            self._look()
            show(list(self._sources.values()), window, self._printer)
            while True:
                ended = all(container["state"] in _ENDED for container in self._containers)
                self._drain()
                if on_change is not None:
                    on_change(self._all)
                if ended and not self.stay:
                    return
                self._wait()
        finally:
            self._printer.end()
            self._changes.close()
            if self._events is not None:
                self._events.close()

    def _look(self) -> None:
        """Subscribe before listing, so that no change falls between the two."""
        try:
            client = daemon.answering(self._session.run)
            if client is None:
                return
            if self._events is None:
                self._events = client.stream("GET", "/v1/events", project=self._project, follow="1")
            found = client.get(self._path, all=1)
        except DaemonUnreachable:
            self._lost()
            return
        self._containers = self._chosen(found)
        self._all = found
        self._let_go({container["id"] for container in found})
        self._printer.know(container["name"] for container in self._containers)
        for container in self._containers:
            if container["id"] not in self._sources:
                # One that is just being made has no directory yet: that it is made is an event.
                with contextlib.suppress(FileNotFoundError):
                    self._changes.watch(os.path.dirname(container["log_path"]))
                    self._sources[container["id"]] = Source(container)

    def _let_go(self, listed: set[str]) -> None:
        """Print the rest of what removed containers have printed, and close their files."""
        for id in self._sources.keys() - listed:
            source = self._sources.pop(id)
            for entry in source.new():
                self._printer.write(entry)
            source.close()

    def _wait(self) -> None:
        """Until something may have changed."""
        poll = select.poll()
        poll.register(self._changes.fileno(), select.POLLIN)
        if self._keys is not None:
            poll.register(self._keys.fileno(), select.POLLIN)
        if self._events is not None:
            poll.register(self._events.fileno(), select.POLLIN)
        ready = [fd for fd, _ in poll.poll(_RETRY if self._events is None else None)]
        if self._keys is not None and self._keys.fileno() in ready:
            self._keys.take()
        if self._changes.fileno() in ready:
            self._changes.clear()
        if self._events is None:
            self._look()
        elif self._events.fileno() in ready:
            if not self._events.discard():
                self._lost()
            self._look()

    def _lost(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _drain(self) -> None:
        for source in self._sources.values():
            for entry in source.new():
                self._printer.write(entry)
        self._printer.flush()
