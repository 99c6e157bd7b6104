"""The steps of a rollout on this host: switch traffic, drain, stand between two batches."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from orchestrator.engine.containers import ContainerWork
from orchestrator.engine.errors import RolloutFailed, RolloutPaused
from orchestrator.engine.exits import HOST_FAULTS
from orchestrator.engine.host import Host
from orchestrator.engine.networks import NetworkWork
from orchestrator.planning import actions
from orchestrator.planning.drift import same_form


class RolloutWork:
    def __init__(self, host: Host, containers: ContainerWork, networks: NetworkWork) -> None:
        self._host = host
        self._traffic = containers.traffic
        self._networks = networks
        self._paused: dict[tuple[str, str], asyncio.Event] = {}

    def pause(self, project: str, service: str) -> None:
        """Have what stands between two batches look whether the rollout is paused."""
        waiting = self._paused.get((project, service))
        if waiting is not None:
            waiting.set()

    async def promote(self, action: actions.PromoteContainer) -> None:
        """Switch names in one transaction, then ports in another; where the ports cannot be had
        everything is as before. Repeating it is no error. Raises RolloutPaused."""
        host = self._host
        if action.pausable:
            candidate = host.store.container_named(action.candidate)
            if candidate is not None:
                self._check_paused(candidate.project, action.service)
        async with AsyncExitStack() as stack:
            for name in sorted({action.name, action.candidate, action.aside}):
                await stack.enter_async_context(host.transition(name))
            candidate = host.store.container_named(action.candidate)
            host.store.rollouts.promote(action.name, action.candidate, action.aside, action.role)
            record = host.record(action.name)
            state = await asyncio.to_thread(host.containers.get, record.id)
            if state.status in ("running", "paused"):
                try:
                    ports = await asyncio.to_thread(self._traffic.publish, record)
                except HOST_FAULTS:
                    if candidate is not None:
                        host.store.rollouts.promote(
                            action.name, action.aside, action.candidate, candidate.role
                        )
                    raise
                record = host.store.update_container(record.id, ports=ports) or record
            await self._networks.renew_names()
            host.tell("update", record)

    async def drain(self, action: actions.DrainContainer) -> None:
        """What is still connected after the timeout is cut off by what follows."""
        record = self._host.record(action.name)
        others = await asyncio.to_thread(self._traffic.withdraw, record)
        if others or record.role != "current":
            await self._traffic.drain(record, action.timeout)

    async def proceed(self, action: actions.ProceedRollout) -> None:
        """Raises RolloutPaused, RolloutFailed."""
        self._check_paused(action.project, action.service)
        if action.delay:
            await self._delay(action)
            self._check_paused(action.project, action.service)
        behind = [
            name
            for name in action.replicas
            if (record := self._host.store.container_named(name)) is None
            or not same_form(record.spec, action.spec)
        ]
        if len(behind) > action.tolerated:
            raise RolloutFailed(action.service, behind)

    async def _delay(self, action: actions.ProceedRollout) -> None:
        """Wait, unless somebody pauses the rollout."""
        key = (action.project, action.service)
        paused = self._paused[key] = asyncio.Event()
        try:
            async with asyncio.timeout(action.delay):
                await paused.wait()
        except TimeoutError:
            return
        finally:
            del self._paused[key]

    def _check_paused(self, project: str, service: str) -> None:
        rollout = self._host.store.rollouts.latest(project, service)
        if rollout is not None and rollout.state == "paused":
            raise RolloutPaused(service)
