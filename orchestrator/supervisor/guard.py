"""Keeps the daemon under the launcher's guard, so that it comes back when it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from orchestrator.engine.errors import chain
from orchestrator.engine.exits import HOST_FAULTS
from orchestrator.engine.guard import release
from orchestrator.engine.host import Host

_log = logging.getLogger(__name__)

PAUSE = 1.0
LOG = "daemon.log"


def argv(root: Path, run: Path) -> list[str]:
    """The command line by which a daemon that was killed is started again."""
    module = "orchestrator.supervisor.daemon"
    places = ["--root", str(root), "--run", str(run)]
    return [sys.executable, "-I", "-m", module, *places, "--guard"]


@contextlib.asynccontextmanager
async def guarded(host: Host) -> AsyncIterator[None]:
    """Ask for the guard, and ask again whenever the launcher has gone; leaving this is an end
    that is meant."""
    held: list[socket.socket] = []
    task = asyncio.create_task(_keep(host, held), name="guard")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for connection in held:
            await asyncio.to_thread(host.containers.release_guard, connection)
        if not held:
            # It may not have come to ask, and be one that the launcher has started again.
            await asyncio.to_thread(release, str(host.run))


async def _keep(host: Host, held: list[socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    command, env, log = argv(host.root, host.run), dict(os.environ), host.run / LOG
    while True:
        asking = asyncio.ensure_future(asyncio.to_thread(host.containers.guard, command, env, log))
        try:
            connection = await asyncio.shield(asking)
        except asyncio.CancelledError:
            # Not to be lost: its end without a word would count as a daemon's that was killed.
            with contextlib.suppress(*HOST_FAULTS):
                held[:] = [await asking]
            raise
        except HOST_FAULTS as exc:
            _log.error("nobody guards the daemon: %s", chain(exc))
            await asyncio.sleep(PAUSE)
            continue
        held[:] = [connection]
        gone = loop.create_future()
        loop.add_reader(connection, _settle, gone)
        try:
            await gone
        finally:
            loop.remove_reader(connection)
        held.clear()
        connection.close()
        await asyncio.sleep(PAUSE)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
