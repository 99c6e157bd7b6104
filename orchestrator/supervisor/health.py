"""Keeps the health of running containers: one task each, asleep until its next probe.

What is due is worked out from what is recorded, so that neither a result nor a schedule is
lost with the daemon.
"""

from __future__ import annotations

import asyncio
import logging
from time import time

from orchestrator.engine.exits import end_unhealthy
from orchestrator.engine.host import Host
from orchestrator.engine.probes import probe
from orchestrator.engine.records import ContainerRecord
from orchestrator.planning.health import HealthCheck, HealthState, after_probe, next_probe
from orchestrator.planning.restart import restarts_unhealthy

_log = logging.getLogger(__name__)

_Run = tuple[HealthCheck | None, float | None]
"""What is probed, and the start of the run that it belongs to."""


class HealthKeeper:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._tasks: dict[str, tuple[_Run, asyncio.Task[None]]] = {}

    def follow(self, record: ContainerRecord) -> None:
        """Probe this container, which runs, as its record says; once is enough."""
        check = HealthCheck.of(record.process.health)
        run = (check, record.started_at)
        current = self._tasks.get(record.id)
        if current is not None:
            if current[0] == run and not current[1].done():
                return
            self.leave(record.id)
        if check is not None:
            task = asyncio.create_task(self._keep(record.id, check), name=f"health {record.name}")
            self._tasks[record.id] = (run, task)

    def leave(self, id: str) -> None:
        """Probe no more."""
        current = self._tasks.pop(id, None)
        if current is not None:
            current[1].cancel()

    async def close(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, id: str, check: HealthCheck) -> None:
        try:
            while (due := self._due(id, check)) is not None:
                await asyncio.sleep(max(0.0, due - time()))
                await self._probe(id, check)
        except Exception as exc:
            # The container ended under the probe, or its monitor hangs: whoever looks after the
            # container finds out, and follows it again if it still runs.
            _log.info("health of container %s: %s", id[:12], exc)

    def _due(self, id: str, check: HealthCheck) -> float | None:
        record = self._host.store.container(id)
        if record is None or record.started_at is None:
            return None
        return next_probe(check, record.health or HealthState(), record.started_at, time())

    async def _probe(self, id: str, check: HealthCheck) -> None:
        record = self._host.store.container(id)
        if record is None or record.started_at is None:
            return
        result = await probe(self._host, record, check)
        record = self._host.store.container(id)
        if record is None or record.started_at is None or record.finished_at is not None:
            return
        before = record.health or HealthState()
        state = after_probe(check, before, result, record.started_at)
        updated = self._host.store.update_container(id, health=state)
        if updated is not None and state.status != before.status:
            self._host.tell("health_status", updated, status=state.status)
        if (
            updated is not None
            and state.status == "unhealthy"
            and restarts_unhealthy(updated.spec["service"])
        ):
            _log.warning("container %s is unhealthy and is restarted", updated.name)
            await end_unhealthy(self._host, updated)
