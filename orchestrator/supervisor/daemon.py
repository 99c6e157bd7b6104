"""The daemon's process: one per state directory, on a Unix socket, ended by a signal or a call.

Started as `python -I -m orchestrator.supervisor.daemon --root DIR --run DIR [--ready-fd N]
[--guard] [--webhook HOST:PORT]`. Once the socket accepts connections it writes a byte to the
descriptor N; ending without one means that it could not start. With --guard it is started again
when it is killed. Containers run on when it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    # 50,000 objects come to stay, which need not be looked at again and again (20 ms).
    gc.disable()

from orchestrator.engine import memory
from orchestrator.engine.errors import EngineError, chain
from orchestrator.engine.host import Host
from orchestrator.engine.local import LocalBackend
from orchestrator.supervisor import api
from orchestrator.supervisor.controller import Controller
from orchestrator.supervisor.gitops import keep_sources, take_deliveries
from orchestrator.supervisor.guard import guarded
from orchestrator.supervisor.instance import Instance
from orchestrator.supervisor.journal import Journal
from orchestrator.supervisor.listening import SOCKET, Listening
from orchestrator.supervisor.logs import configure
from orchestrator.supervisor.metrics import Metrics
from orchestrator.supervisor.oneoff import remove_ended
from orchestrator.supervisor.operations import Operations
from orchestrator.supervisor.routes_rollouts import resume_unfinished
from orchestrator.supervisor.triggers import follow_events

_log = logging.getLogger("orchestrator.supervisor")

LOCK = "daemon.lock"
THREADS = 16
SHUTDOWN_TIMEOUT = 5.0
START_TIMEOUT = 10.0


class AlreadyRunning(Exception):
    """Another daemon has this state directory; `here` with this run directory."""

    def __init__(self, root: Path, run: Path, pid: str, place: str) -> None:
        self.here = not place or place == str(run)
        about = f"a daemon (process {pid}) runs already for {root}"
        if self.here:
            super().__init__(
                f"{about}, but does not answer at {run / SOCKET}; if it hangs, end it by "
                f"kill -9 {pid}: containers run on"
            )
        else:
            super().__init__(f"{about}, with --run {place}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="orchestrator.supervisor.daemon")
    parser.add_argument("--root", type=Path, default=Path("/var/lib/bayplan"))
    parser.add_argument("--run", type=Path, default=Path("/run/bayplan"))
    parser.add_argument("--ready-fd", type=int, default=None)
    parser.add_argument("--guard", action="store_true")
    parser.add_argument("--webhook", default="", metavar="HOST:PORT")
    options = parser.parse_args(arguments)
    configure()
    memory.keep_small()
    os.umask(0o022)
    root, run = options.root.absolute(), options.run.absolute()
    # Who has a supervisor of his own starts it again by that.
    guard = options.guard and "INVOCATION_ID" not in os.environ
    try:
        with _sole_daemon(root, run):
            asyncio.run(serve(root, run, options.ready_fd, guard=guard, webhook=options.webhook))
    except AlreadyRunning as exc:
        if options.ready_fd is not None and exc.here and _answers(run / SOCKET):
            _say_ready(options.ready_fd)
            return 0
        _log.error("%s", exc)
        return 1
    except Exception as exc:
        _log.error("the daemon cannot run: %s", chain(exc), exc_info=exc)
        return 1
    return 0


async def serve(
    root: Path, run: Path, ready_fd: int | None, *, guard: bool = False, webhook: str = ""
) -> None:
    """Run until told to end; raises what the parts raise when they cannot be opened.

    `webhook` is where deliveries are taken, instead of where the instance is set to take them.
    """
    loop = asyncio.get_running_loop()
    # Most calls wait for the kernel or the launcher, so there are more of them than cores.
    loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="host"))
    async with contextlib.AsyncExitStack() as stack:
        host = Host.open(root, run)
        stack.callback(host.close)
        backend = LocalBackend(host)
        operations, metrics = Operations(backend), Metrics()
        instance = Instance(
            host=host,
            backend=backend,
            controller=Controller(backend, random.Random(), operations.exclusive, metrics),
            operations=operations,
            journal=Journal(root, host.bus, host.endpoints),
            metrics=metrics,
        )
        instance.sources = keep_sources(instance)
        instance.webhooks = take_deliveries(instance.sources)
        stack.callback(instance.journal.close)
        stack.callback(instance.tidying.close)
        instance.journal.open()
        stack.enter_context(host.bus.listen(metrics.follow))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, instance.ending.set)
        await stack.enter_async_context(instance.controller.drift.watching())
        await instance.sources.open()
        await instance.controller.resume()
        stack.push_async_callback(backend.networks.stop_resolver)
        work = asyncio.create_task(_work(instance), name="controller")
        stack.push_async_callback(_cancel, work)
        resume_unfinished(instance)
        server = api.server(instance)
        stack.push_async_callback(server.close, SHUTDOWN_TIMEOUT)
        stack.push_async_callback(instance.end_runs)
        await stack.enter_async_context(Listening(instance, server).accepting())
        stack.push_async_callback(instance.webhooks.close)
        await _take_deliveries(instance, webhook)
        memory.settle()
        gc.enable()
        _log.info("the daemon serves %s on %s", root, run / SOCKET)
        if ready_fd is not None:
            _say_ready(ready_fd)
        if guard:
            await stack.enter_async_context(guarded(host))
        ending = asyncio.ensure_future(instance.ending.wait())
        await asyncio.wait((ending, work), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if work.done():
            await work
        _log.info("the daemon ends; containers run on")


async def _take_deliveries(instance: Instance, address: str) -> None:
    """Listen where the command line or the instance's own setting says; sources are polled all
    the same where that cannot be had."""
    address = address or instance.host.store.gitops.setting("webhook")
    try:
        await instance.webhooks.listen(address)
    except EngineError as exc:
        _log.error("%s", chain(exc))


def _say_ready(fd: int) -> None:
    os.write(fd, b"1")
    os.close(fd)


def _answers(path: Path) -> bool:
    """Whether the daemon that was first comes to accept connections: it may be starting."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                probe.connect(f"/proc/self/fd/{directory}/{path.name}")
            finally:
                os.close(directory)
            return True
        # It says when it is ready to whoever started it, and to nobody else.
        time.sleep(0.02)
    return False


async def _work(instance: Instance) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(instance.controller.run())
        group.create_task(remove_ended(instance))
        group.create_task(follow_events(instance.host.bus, instance.controller))
        group.create_task(instance.sources.run())


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.contextmanager
def _sole_daemon(root: Path, run: Path) -> Iterator[None]:
    """Hold the state directory; raises AlreadyRunning."""
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    fd = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            pid, _, place = os.pread(fd, 8192, 0).decode(errors="replace").strip().partition("\n")
            raise AlreadyRunning(root, run, pid, place) from exc
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n{run}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
