"""Waiting for a container's condition: read the state, else sleep until something happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from time import time

from orchestrator.engine.errors import NoSuchContainer, WaitFailed, WaitTimeout
from orchestrator.engine.events import EventBus
from orchestrator.engine.records import ContainerRecord
from orchestrator.planning.actions import WaitCondition, WaitContainer
from orchestrator.planning.observed import ContainerStatus

Look = Callable[[str], tuple[ContainerRecord, ContainerStatus] | None]
"""A container's record and status by its name, None where there is no such container."""


async def wait(action: WaitContainer, look: Look, bus: EventBus) -> None:
    """Return once the condition holds.

    Raises WaitFailed as soon as it cannot come to hold any more, WaitTimeout after the action's
    timeout. The state is read again after every event, so a missed one costs nothing but time.
    """
    try:
        async with asyncio.timeout(action.timeout):
            with bus.subscribe() as events:
                while not _holds(action, seen := look(action.name)):
                    # Nothing but time may be missing: then no event would tell.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_missing(action, seen)):
                            await events.get()
    except TimeoutError as exc:
        raise WaitTimeout(action.name, action.condition, action.timeout or 0) from exc


def _missing(
    action: WaitContainer, seen: tuple[ContainerRecord, ContainerStatus] | None
) -> float | None:
    """How many seconds a container has yet to run to be stable, None where that is not it."""
    if action.condition != "stable" or seen is None:
        return None
    record, status = seen
    if status != "running" or record.process.health or record.started_at is None:
        return None
    return max(0.0, record.started_at + action.monitor - time())


def _holds(action: WaitContainer, seen: tuple[ContainerRecord, ContainerStatus] | None) -> bool:
    if seen is None:
        raise NoSuchContainer(action.name)
    record, status = seen
    if status == "exited" and record.started_at is not None and record.finished_at is None:
        # The exit is not written down yet, and with it whether a restart follows.
        return False
    condition: WaitCondition = action.condition
    if condition == "stable":
        if status == "restarting" or record.restarts:
            raise WaitFailed(
                action.name, f"ended with {record.exit_code}" if record.exit_code else "ended"
            )
        if status == "running" and not record.process.health:
            return _missing(action, seen) == 0.0
        condition = "ready"
    if condition == "ready":
        condition = "healthy" if record.process.health else "started"
        if status == "exited" and record.exit_code == 0 and record.restart_at is None:
            return True
    if condition == "healthy" and not record.process.health:
        raise WaitFailed(
            action.name,
            "has no healthcheck, which service_healthy needs",
            hint="add a healthcheck to the service or its image",
        )
    if status == "exited" and record.restart_at is None:
        if condition == "completed" and record.exit_code == 0:
            return True
        raise WaitFailed(
            action.name,
            f"exited with {record.exit_code}" + (f": {record.error}" if record.error else ""),
            exit_code=record.exit_code,
        )
    if status != "running" or condition == "completed":
        return False
    if condition == "started":
        return True
    health = record.health.status if record.health else "starting"
    if health == "unhealthy":
        output = record.health.results[-1].output.strip() if record.health else ""
        raise WaitFailed(
            action.name, "is unhealthy" + (f": {output.splitlines()[-1]}" if output else "")
        )
    return health == "healthy"
