"""Tells when the run directory, or a socket in it, is taken away under a daemon that runs.

What stood in it can be made again, but for the sockets of others that live on: of the launcher
a descriptor is kept, by which it can still be reached and let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.engine.host import Host
from runtime.container.launcher_client import LauncherClient
from runtime.container.paths import Instance
from runtime.linux import inotify

_EVENTS = (
    inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
)


class RunDirectory:
    """Calls `changed` when something came or went in the run directory, or itself did.

    Belongs to one event loop, from `open` to `close`.
    """

    def __init__(self, host: Host, changed: Callable[[], None]) -> None:
        self._host = host
        self._changed = changed
        self._launcher = -1
        self._opened = contextlib.ExitStack()

    def open(self) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            self._inotify = stack.enter_context(inotify.Inotify())
            stack.callback(self._forget_launcher)
            self.follow()
            loop.add_reader(self._inotify, self._on_events)
            stack.callback(loop.remove_reader, self._inotify)
            self._opened = stack.pop_all()

    def close(self) -> None:
        self._opened.close()

    def follow(self) -> None:
        """Make what is missing of the directory, and be told of what happens in it from now on.
        Raises OSError."""
        self._host.run.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._host.networks.make_places()
        self._inotify.add(self._host.run, _EVENTS)
        self._remember_launcher()

    def let_launcher_go(self) -> None:
        """End a launcher that nobody finds any more; the next start makes another. Blocking."""
        if self._launcher < 0 or self._same_launcher():
            return
        lost, self._launcher = self._launcher, -1
        try:
            # Its end takes the name away, whosever it is by then: that would be told, too.
            self._remember_launcher()
            LauncherClient(_Held(self._host.root, self._host.run, lost)).end()
        finally:
            os.close(lost)

    def _on_events(self) -> None:
        while self._inotify.read():
            pass  # what they say follows from looking
        self._remember_launcher()
        self._changed()

    def _remember_launcher(self) -> None:
        if self._launcher >= 0:
            return
        with contextlib.suppress(FileNotFoundError):
            path = Instance(self._host.root, self._host.run).launcher_socket
            self._launcher = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _same_launcher(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            path = Instance(self._host.root, self._host.run).launcher_socket
            return os.path.samestat(os.lstat(path), os.fstat(self._launcher))
        return False

    def _forget_launcher(self) -> None:
        if self._launcher >= 0:
            os.close(self._launcher)
        self._launcher = -1


@dataclass(frozen=True, slots=True)
class _Held(Instance):
    """An instance whose launcher's socket is known by a descriptor alone."""

    descriptor: int

    @property
    def launcher_socket(self) -> Path:
        return Path(f"/proc/self/fd/{self.descriptor}")
