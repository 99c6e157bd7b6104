"""The end of a container: wait for it without polling, and write down how it came."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
from time import time

from bridge.errors import NetworkError
from orchestrator.engine.errors import EngineError
from orchestrator.engine.host import Host
from orchestrator.engine.keepsakes import Keepsakes
from orchestrator.engine.records import ContainerRecord
from orchestrator.engine.traffic import published_ports
from orchestrator.planning.health import HealthState
from orchestrator.planning.restart import (
    Exit,
    Restart,
    RestartPolicy,
    RestartState,
    after_exit,
    restarts_unhealthy,
)
from runtime.container.containers import ContainerState
from runtime.container.sessions import read_exec
from runtime.errors import ContainerStartError, InvalidState, NotFound, RuntimeFault

UNKNOWN_EXIT = 137
CANNOT_START = 125
WRITING = 0.005

HOST_FAULTS = (RuntimeFault, NetworkError, EngineError, OSError)
"""What calls of the runtime and the bridge raise when this host does not play along."""


async def ended(host: Host, id: str, timeout: float | None = None) -> bool:
    """Return True once the container has ended and its exit is recorded, False if it has not
    within `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                connection = await watch(host, id)
                if connection is not None:
                    with connection:
                        await readable(connection)
                state = await asyncio.to_thread(state_of, host, id)
                if state is None or state.status not in ("running", "paused"):
                    return True
                # Its monitor listens no more and is writing the exit down; nothing tells when
                # it has, but it is a matter of one fsync.
                await asyncio.sleep(WRITING)
    except TimeoutError:
        return False


def state_of(host: Host, id: str) -> ContainerState | None:
    """The runtime's state of a container, None where it does not know it. Blocking."""
    with contextlib.suppress(NotFound):
        return host.containers.get(id)
    return None


def look(
    host: Host, id: str, keepsakes: Keepsakes
) -> tuple[ContainerRecord | None, ContainerState | None]:
    """A container's record and state; a copy is kept of the record of what stands. Blocking."""
    record = host.store.container(id)
    state = state_of(host, id) if record is not None else None
    if state is not None:
        keepsakes.keep_container(id)
    return record, state


async def watch(host: Host, id: str, *, execs: bool = False) -> socket.socket | None:
    """A connection that becomes readable at the container's end, and with `execs` when it tells
    of one (`tell_exec`); None where the container has ended."""
    try:
        return await asyncio.to_thread(host.containers.watch, id, execs=execs)
    except InvalidState:
        return None


def tell_exec(host: Host, id: str, connection: socket.socket) -> bool:
    """Publish what a watch says of an exec, in Docker's words; False where it does not, as the
    container has ended."""
    about = read_exec(connection)
    if about is None:
        return False
    record = host.store.container(id)
    if record is not None and "argv" in about:
        command = " ".join(about["argv"])
        host.tell(f"exec_create: {command}", record, execID=about["id"])
        host.tell(f"exec_start: {command}", record, execID=about["id"])
    elif record is not None:
        host.tell("exec_die", record, execID=about["id"], exitCode=about["exit_code"])
    return True


async def readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def settle_start(host: Host, record: ContainerRecord, state: ContainerState) -> ContainerRecord:
    """Write a start that the runtime knows and the record does not into the record: a daemon
    was killed between the two. Blocking."""
    if knows_start(record, state):
        return record
    updated = host.store.update_container(
        record.id,
        started_at=(state.started_at or 0) / 1e9,
        finished_at=None,
        restart_at=None,
        exit_code=None,
        error="",
        ports=published_ports(host, record),
        health=HealthState() if record.process.health else None,
    )
    return updated or record


def knows_start(record: ContainerRecord, state: ContainerState) -> bool:
    """Whether the record has the start that the runtime knows, if there was any."""
    if state.started_at is None:
        return True
    return record.started_at is not None and record.started_at >= state.started_at / 1e9


def settle(host: Host, record: ContainerRecord, state: ContainerState) -> ContainerRecord:
    """Write an exit that the runtime knows and the record does not into the record, together
    with the restart that its policy calls for; the result is the record as it is now.

    Both are written at once: nobody sees an exit without what follows from it, and a daemon
    that is killed afterwards finds the restart due.
    """
    if state.status != "exited":
        return record
    record = settle_start(host, record, state)
    if record.started_at is None or record.finished_at is not None:
        return record
    finished = max((state.finished_at or 0) / 1e9, record.started_at)
    exit_code = state.exit_code if state.exit_code is not None else UNKNOWN_EXIT
    decision = after_exit(
        policy_after(record),
        RestartState(count=record.restarts, delay=record.restart_delay),
        Exit(
            started_at=record.started_at,
            finished_at=finished,
            exit_code=exit_code,
            stopped=record.intent == "stopped",
        ),
        time(),
    )
    updated = host.store.update_container(
        record.id,
        finished_at=finished,
        exit_code=exit_code,
        error=state.error or ("out of memory" if state.oom_killed else ""),
        restart_at=decision.at if isinstance(decision, Restart) else None,
        restarts=decision.state.count,
        restart_delay=decision.state.delay,
    )
    if updated is None:
        return record
    host.tell("die", updated, exitCode=exit_code, oomKilled=state.oom_killed)
    return updated


def policy_after(record: ContainerRecord) -> RestartPolicy:
    """The policy that an exit is judged by: a container that was ended for being unhealthy is
    to run again, whatever its own says."""
    service = record.spec["service"]
    policy = RestartPolicy.of(service)
    unhealthy = record.health is not None and record.health.status == "unhealthy"
    if unhealthy and restarts_unhealthy(service):
        return dataclasses.replace(policy, condition="always", attempts=0)
    return policy


async def end_unhealthy(host: Host, record: ContainerRecord) -> None:
    """End a container that asks to be restarted when it is unhealthy; its exit is judged like
    any other, with the same back-off."""
    await send_signal(host, record, record.process.stop_signal)
    if not await ended(host, record.id, max(0.0, record.process.stop_timeout)):
        await send_signal(host, record, signal.SIGKILL)


async def send_signal(host: Host, record: ContainerRecord, number: int) -> None:
    """Signal the first process and tell of it, as Docker does of each; one that has ended gets
    none."""
    with contextlib.suppress(InvalidState):
        await asyncio.to_thread(host.containers.signal, record.id, number)
        host.tell("kill", record, signal=number)


def settle_failed_start(host: Host, record: ContainerRecord, error: Exception) -> ContainerRecord:
    """A restart that fails counts as a run that ended at once."""
    now = time()
    exit_code = error.exit_code if isinstance(error, ContainerStartError) else CANNOT_START
    decision = after_exit(
        RestartPolicy.of(record.spec["service"]),
        RestartState(count=record.restarts, delay=record.restart_delay),
        Exit(started_at=now, finished_at=now, exit_code=exit_code),
        now,
    )
    updated = host.store.update_container(
        record.id,
        restart_at=decision.at if isinstance(decision, Restart) else None,
        restarts=decision.state.count,
        restart_delay=decision.state.delay,
        finished_at=now,
        exit_code=exit_code,
        error=str(error),
    )
    if updated is None:
        return record
    host.tell("die", updated, exitCode=exit_code)
    return updated
