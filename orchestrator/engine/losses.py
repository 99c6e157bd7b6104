"""Tells at once when what containers stand on is taken away: files, volumes, namespaces.

The kernel says so by itself: directories are watched (inotify(7)), and so is the list of
mounts, by which namespaces are held (proc_pid_mountinfo(5): poll gives POLLPRI). An event is
only a reason to look; what is wrong is found by looking.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Iterable
from pathlib import Path

from bridge import namespaces
from bridge.watch import NetworkWatch
from orchestrator.engine.host import Host
from orchestrator.engine.records import ContainerRecord
from orchestrator.engine.sandboxes import own_sandbox
from runtime.errors import NotFound
from runtime.linux import inotify, mounts

_GONE = inotify.IN_DELETE | inotify.IN_MOVED_FROM
_CAME = inotify.IN_CREATE | inotify.IN_MOVED_TO


class LossWatch:
    """Calls `container(id)`, `volume(name)` and `namespaces()` when one of them may be gone.

    Belongs to one event loop, from `open` to `close`. What happened before is not told.
    """

    def __init__(
        self,
        host: Host,
        *,
        container: Callable[[str], None],
        volume: Callable[[str], None],
        namespaces: Callable[[], None],
    ) -> None:
        self._containers = host.root / "containers"
        self._volumes = host.root / "volumes"
        self._namespaces = host.run / "netns"
        self._container = container
        self._volume = volume
        self._sandboxes = namespaces
        self._places: dict[int, Path] = {}
        self._opened = contextlib.ExitStack()

    def open(self) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            self._inotify = stack.enter_context(inotify.Inotify())
            self._add(self._containers, _GONE)
            self._add(self._volumes, _GONE | _CAME)
            self.follow_namespaces()
            for entry in self._volumes.iterdir():
                self._follow_volume(entry.name)
            loop.add_reader(self._inotify, self._on_files)
            stack.callback(loop.remove_reader, self._inotify)
            mountinfo = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, mountinfo)
            # The list is readable at all times, so that a loop which asks for that alone would
            # never sleep; a set that asks for news is readable when there are some.
            self._mounts = stack.enter_context(select.epoll())
            self._mounts.register(mountinfo, select.EPOLLPRI)
            self._mounts.poll(0)
            loop.add_reader(self._mounts, self._on_mounts)
            stack.callback(loop.remove_reader, self._mounts)
            self._opened = stack.pop_all()

    def close(self) -> None:
        self._opened.close()

    def follow_namespaces(self) -> None:
        """Look after their directory, which is another one where it had been removed."""
        self._add(self._namespaces, _GONE)

    def _add(self, directory: Path, mask: int) -> None:
        self._places[self._inotify.add(directory, mask)] = directory

    def _follow_volume(self, name: str) -> None:
        if not name.startswith("."):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._add(self._volumes / name, _GONE)

    def _on_files(self) -> None:
        while events := self._inotify.read():
            for event in events:
                if event.mask & inotify.IN_Q_OVERFLOW:
                    self._everything()
                elif event.mask & inotify.IN_IGNORED:
                    self._places.pop(event.watch, None)
                else:
                    self._on_file(self._places.get(event.watch), event)

    def _on_file(self, place: Path | None, event: inotify.Event) -> None:
        if place is None or event.name.startswith("."):
            return
        if place == self._containers:
            self._container(event.name)
        elif place == self._namespaces:
            self._sandboxes()
        elif place == self._volumes:
            if event.mask & _CAME:
                self._follow_volume(event.name)
            else:
                self._volume(event.name)
        elif event.name in ("_data", "volume.json"):
            self._volume(place.name)

    def _on_mounts(self) -> None:
        self._mounts.poll(0)
        self._sandboxes()

    def _everything(self) -> None:
        self._sandboxes()
        for entry in self._volumes.iterdir():
            self._volume(entry.name)


def without_namespace(host: Host, ids: Iterable[str]) -> list[str]:
    """Those of the containers at whose namespace's place there is none. Blocking."""
    return [id for id in ids if not namespaces.is_bound(host.networks.namespace(id))]


def unbound(host: Host, record: ContainerRecord) -> bool:
    """Whether the namespace of a container that has one of its own is not at its place."""
    return own_sandbox(record.spec["service"]) and not namespaces.is_bound(
        host.networks.namespace(record.id)
    )


def bind_again(host: Host, record: ContainerRecord) -> bool:
    """Put the network namespace in which a container runs back to its place; False where the
    container has ended. Blocking."""
    pid = host.containers.get(record.id).pid
    if pid is None:
        return False
    path = host.networks.namespace(record.id)
    path.touch(mode=0o600)
    try:
        mounts.bind(f"/proc/{pid}/ns/net", str(path))
    except FileNotFoundError:
        return False
    return True


def volume_stands(host: Host, name: str) -> bool:
    """Whether a volume and its content's directory are there."""
    try:
        return os.path.isdir(host.volumes.get(name).mountpoint)
    except NotFound:
        return False


def end_remains(host: Host, record: ContainerRecord) -> None:
    """End what still runs of a container whose files are gone. Blocking."""
    parent = record.spec["service"].get("cgroup_parent")
    host.containers.end_remains(record.id, cgroup_parent=str(parent) if parent else None)


def watch_networks(host: Host) -> NetworkWatch:
    """Tells which networks want to be looked at (`Networks.ensure`)."""
    return NetworkWatch(host.networks)
