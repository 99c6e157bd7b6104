"""Runs one health probe in a container: a command, its exit code, the first of its output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from time import time

from orchestrator.engine.exits import readable
from orchestrator.engine.host import Host
from orchestrator.engine.records import ContainerRecord
from orchestrator.planning.health import KEPT_OUTPUT, TIMED_OUT, HealthCheck, ProbeResult
from runtime.container.config import ExecConfig
from runtime.container.sessions import ExecSession
from runtime.errors import ContainerStartError
from runtime.linux import process

_CHUNK = 64 * 1024


async def probe(host: Host, record: ContainerRecord, check: HealthCheck) -> ProbeResult:
    """Raises RuntimeFault where the container has ended or its monitor does not answer; a
    command that cannot be executed is a failed probe."""
    started = time()
    config = ExecConfig(argv=check.argv(record.process.shell))
    try:
        # Nobody wants to read of each: what comes of them is told as health_status.
        session = await asyncio.to_thread(host.containers.exec, record.id, config, told=False)
    except ContainerStartError as exc:
        return ProbeResult(
            started_at=started, finished_at=time(), exit_code=exc.exit_code, output=str(exc)
        )
    # What it took to set up is not the command's time.
    started = time()
    identity = process.start_time(session.pid)
    with session:
        output = Output(session)
        try:
            async with asyncio.timeout(check.timeout):
                await readable(session.connection)
            exit_code = session.wait()
        except TimeoutError:
            end_process(session.pid, identity)
            exit_code = TIMED_OUT
            output.say(f"health check exceeded timeout ({check.timeout:g}s)")
        finally:
            output.close()
    return ProbeResult(
        started_at=started, finished_at=time(), exit_code=exit_code, output=output.text()
    )


class Output:
    """Collects the first bytes of both streams and drops the rest, so that nothing blocks."""

    def __init__(self, session: ExecSession) -> None:
        self._loop = asyncio.get_running_loop()
        self._kept = bytearray()
        self._said = ""
        self._open: set[int] = set()
        for fd in (session.stdout, session.stderr):
            if fd is not None:
                os.set_blocking(fd, False)
                self._open.add(fd)
                self._loop.add_reader(fd, self._read, fd)

    def _read(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(fd, _CHUNK)
            self._kept += chunk[: max(0, KEPT_OUTPUT - len(self._kept))]
            if not chunk:
                self._open.discard(fd)
                self._loop.remove_reader(fd)

    def say(self, text: str) -> None:
        self._said = text

    def close(self) -> None:
        """Take what is there already, and read no more; the session closes the descriptors."""
        for fd in list(self._open):
            self._read(fd)
        for fd in self._open:
            self._loop.remove_reader(fd)
        self._open.clear()

    def text(self) -> str:
        return self._said or self._kept.decode(errors="replace")


def end_process(pid: int, identity: int | None) -> None:
    """Kill a command by its pid, if it is still the one that started at `identity`."""
    if identity is None:
        return
    pidfd = process.open_pidfd(pid, identity)
    if pidfd is None:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
