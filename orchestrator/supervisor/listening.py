"""The daemon's socket in the run directory, and what becomes of both when somebody removes them.

Whoever cleans up below /run takes the way to the daemon, and that to every container's monitor.
The daemon makes its own again at once; a monitor's comes back when its container is restarted,
until when it can be stopped, but not entered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from orchestrator.engine.errors import chain
from orchestrator.engine.run_directory import RunDirectory
from orchestrator.serving.server import Server
from orchestrator.supervisor.guard import LOG
from orchestrator.supervisor.instance import Instance

_log = logging.getLogger(__name__)

SOCKET = "bayplan.sock"
SETTLING = 0.2


class Listening:
    """Requests are accepted from `open` to `close`, wherever the socket has to be made again."""

    def __init__(self, instance: Instance, server: Server) -> None:
        self._instance = instance
        self._host = instance.host
        self._server = server
        self._path = self._host.run / SOCKET
        self._changed = asyncio.Event()
        self._directory = RunDirectory(self._host, self._changed.set)
        self._listener: asyncio.Server | None = None
        self._inode: os.stat_result | None = None
        self._told: set[str] = set()

    @contextlib.asynccontextmanager
    async def accepting(self) -> AsyncIterator[None]:
        """Raises OSError."""
        self._directory.open()
        keeping: asyncio.Task[None] | None = None
        try:
            await self._listen()
            keeping = asyncio.create_task(self._keep(), name="listening")
            yield
        finally:
            if keeping is not None:
                keeping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeping
            if self._stands():
                self._path.unlink(missing_ok=True)
            self._directory.close()

    async def _keep(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await asyncio.to_thread(self._directory.let_launcher_go)
                self._directory.follow()
                _write_log_again(self._host.run / LOG)
                if not self._stands():
                    await self._restore()
            except OSError as exc:
                _log.error("the run directory cannot be put back: %s", chain(exc))
                await asyncio.sleep(SETTLING)
                self._changed.set()

    async def _restore(self) -> None:
        await self._listen()
        # Whoever removes a directory may not have come to its end.
        await asyncio.sleep(SETTLING)
        self._directory.follow()
        _write_log_again(self._host.run / LOG)
        _log.warning("%s was removed from outside: it is there again", self._path)
        controller = self._instance.controller
        controller.drift.restore_places()
        for record in self._host.store.containers():
            monitor = self._host.containers.monitor_socket(record.id)
            alive = record.id in controller.running
            if alive and not monitor.exists() and record.id not in self._told:
                self._told.add(record.id)
                controller.drift.tell_unreachable(record)

    def _stands(self) -> bool:
        try:
            return self._inode is not None and os.path.samestat(os.lstat(self._path), self._inode)
        except FileNotFoundError:
            return False

    async def _listen(self) -> None:
        """Accept connections at the path, from root alone; those that there are go on."""
        former = self._listener
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        before = os.umask(0o177)
        try:
            # By way of the directory: the path itself may be longer than unix(7) allows.
            listener.bind(f"/proc/self/fd/{directory}/{self._path.name}")
        except BaseException:
            listener.close()
            raise
        finally:
            os.umask(before)
            os.close(directory)
        self._inode = os.lstat(self._path)
        self._listener = await self._server.listen(listener)
        if former is not None:
            former.close()


def _write_log_again(path: Path) -> None:
    """Where our output goes to a log of this path that was removed, begin another."""
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}") == f"{path} (deleted)":
                log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                os.dup2(log, fd)
                os.close(log)
