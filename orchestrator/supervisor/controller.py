"""Looks after containers: one iteration reads how one of them is and does what follows.

Nothing here depends on what the trigger was. An exit that nobody saw is found by the next
look; a restart that was due while no daemon ran is made good at its start.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Collection
from time import time

from orchestrator.engine.errors import chain
from orchestrator.engine.executor import execute
from orchestrator.engine.exits import (
    HOST_FAULTS,
    knows_start,
    look,
    settle,
    settle_failed_start,
    settle_start,
    state_of,
    tell_exec,
    watch,
)
from orchestrator.engine.keepsakes import Keepsakes
from orchestrator.engine.local import LocalBackend
from orchestrator.engine.records import ContainerRecord
from orchestrator.planning import lifecycle
from orchestrator.planning.restart import restart_wait
from orchestrator.supervisor.drift import DriftKeeper, Exclusive
from orchestrator.supervisor.health import HealthKeeper
from orchestrator.supervisor.metrics import Metrics
from orchestrator.supervisor.queue import KeyedQueue

_log = logging.getLogger(__name__)

WORKERS = 8
RESYNC = 30.0
SOON = 0.5
UNHEARD = 0.1
NAMES = "names"
RESYNC_KEY = "resync"


class Controller:
    """`run` works until it is cancelled; `attend` is one iteration for one container."""

    def __init__(
        self, backend: LocalBackend, rng: random.Random, exclusive: Exclusive, metrics: Metrics
    ) -> None:
        self.backend = backend
        self.host = backend.host
        self.health = HealthKeeper(self.host)
        self._metrics = metrics
        self.queue = KeyedQueue(rng, self._report, self._worked)
        self.drift = DriftKeeper(backend, self.queue.add_gently, exclusive)
        self._keepsakes = Keepsakes(self.host)
        self._watched: dict[str, socket.socket] = {}
        self._names: dict[str, str] = {}
        self._running: set[str] = set()
        self._held: set[str] = set()
        self._resuming: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        try:
            await self.queue.run(self._work, WORKERS)
        finally:
            self.queue.close()
            for task in tuple(self._resuming):
                task.cancel()
            await asyncio.gather(*self._resuming, return_exceptions=True)
            for id in list(self._watched):
                self._unwatch(id)
            await self.health.close()

    def wake(self, id: str) -> None:
        """Have the container of this id looked at."""
        self.queue.add(f"container {id}")

    def wake_later(self, id: str) -> None:
        """Have it looked at in a moment: somebody is at it, who does the work meanwhile."""
        self.queue.add_after(f"container {id}", SOON)

    async def resume(self) -> None:
        """After a start of the daemon: put in order what a crash or a reboot left, take up what
        runs, and start what is due, each project in the order of its dependencies.
        """
        await asyncio.to_thread(self._sweep)
        await self.backend.networks.start_resolver()
        due: dict[str, list[ContainerRecord]] = {}
        for record in self.host.store.containers():
            if await self._take_up(record):
                due.setdefault(record.project, []).append(record)
        await self.backend.networks.refresh_names(self._running)
        for project, records in due.items():
            self._held.update(record.id for record in records)
            task = asyncio.create_task(self._start_due(project, records), name=f"due {project}")
            self._resuming.add(task)
            task.add_done_callback(self._resuming.discard)
        self.queue.add_after(RESYNC_KEY, RESYNC)

    async def _take_up(self, record: ContainerRecord) -> bool:
        """Look at one container at start; whether it is due to be started. What fails is tried
        again by the queue."""
        try:
            state = await asyncio.to_thread(state_of, self.host, record.id)
            if state is not None and state.status == "exited":
                settled = settle(self.host, record, state)
                if settled.restart_at is None:
                    await self.backend.containers.rest(settled)
                elif settled.restart_at <= time() + SOON:
                    return True
                else:
                    self.wake(record.id)
            elif (again := await self.attend(record.id)) is not None:
                self.queue.add_after(f"container {record.id}", again)
        except HOST_FAULTS as exc:
            self._report(f"container {record.id}", exc)
            self.queue.add_after(f"container {record.id}", 1.0)
        return False

    async def _start_due(self, project: str, records: list[ContainerRecord]) -> None:
        """Start what is due by one plan; what it does not get to is the queue's, one by one."""
        try:
            observed = await self.backend.observe(project)
            plan = lifecycle.resume(project, observed, {record.name for record in records})
            outcome = await execute(plan, self.backend, self.host.bus.publish)
            for failure in outcome.failures:
                self._report(failure.step.action.text(), failure.error)
        finally:
            for record in records:
                self._held.discard(record.id)
                self.wake(record.id)

    def _sweep(self) -> None:
        for line in self._keepsakes.adopt():
            _log.warning("%s", line)
        for id in self.host.containers.sweep():
            _log.warning("container %s was lost with its monitor", id[:12])
        self._sweep_half_made()
        self.backend.builds.sweep()
        self.host.volumes.sweep()
        done, failures = self.backend.networks.sweep()
        for line in done:
            _log.info("network: %s", line)
        for failure in failures:
            _log.error("network: %s", failure)

    def _sweep_half_made(self) -> None:
        """Remove the records of containers that a crash left before they were complete, or
        while they were being removed."""
        for record in self.host.store.containers():
            if state_of(self.host, record.id) is None:
                _log.warning("container %s was half made, it is removed", record.name)
                if record.role == "current" and not record.oneoff:
                    self.host.store.bequeath(record.id)
                self.backend.containers.unmake(record, release=False)

    async def _work(self, key: str) -> float | None:
        if key == NAMES:
            await self.backend.networks.refresh_names(self._running)
            return None
        kind, _, name = key.partition(" ")
        match kind:
            case "container":
                return await self.attend(name)
            case "network":
                if await self.drift.network(name):
                    self.queue.add_gently(NAMES)
            case "volume":
                await self.drift.volume(name)
            case "sandboxes":
                await self.drift.sandboxes(self._running)
            case "images":
                await self.backend.builds.tidy()
                await asyncio.to_thread(self.host.reserve.keep)
            case "project":
                await asyncio.to_thread(self._keepsakes.keep_project, name)
            case _:
                await self._resync()
                return RESYNC
        return None

    async def _resync(self) -> None:
        """Look at everything once more, whatever was told of it."""
        for network in self.host.store.networks():
            self.queue.add(f"network {network.id}")
        self.queue.add("sandboxes")
        self.queue.add("images")
        for record in self.host.store.containers():
            self.wake(record.id)
        for project in self.host.store.projects():
            self.queue.add(f"project {project.name}")
        await self.drift.volumes()

    async def attend(self, id: str) -> float | None:
        """Bring one container in order; the result is when to look again, in seconds."""
        record, state = await asyncio.to_thread(look, self.host, id, self._keepsakes)
        if record is None or state is None:
            self._ended(id)
            if record is not None and not self.host.transitions_of(record.name):
                self.drift.gone(record)
            return None
        if state.status in ("running", "paused"):
            if not knows_start(record, state) and not self.host.transitions_of(record.name):
                record = await asyncio.to_thread(settle_start, self.host, record, state)
            return await self._alive(record)
        self._ended(id)
        if state.status == "created":
            return None
        if id in self._held or self.host.transitions_of(record.name):
            # Somebody is at it, and tells when that is done.
            return None
        async with self.host.transition(record.name):
            return await self._after_exit(id)

    async def _after_exit(self, id: str) -> float | None:
        record = self.host.store.container(id)
        state = await asyncio.to_thread(state_of, self.host, id)
        if record is None or state is None or state.status != "exited":
            return None
        if state.lost:
            await self.drift.lost(record)
        record = settle(self.host, record, state)
        if state.lost:
            self.drift.tell_lost(record)
        if record.restart_at is None:
            await self.backend.containers.rest(record)
            return None
        wait = restart_wait(record.restart_at, record.restart_delay, time())
        if wait > 0:
            return wait
        self.host.tell("restart", record)
        try:
            await self.backend.containers.run(record, fresh=False)
        except HOST_FAULTS as exc:
            _log.error("restart container %s: %s", record.name, chain(exc))
            failed = settle_failed_start(self.host, record, exc)
            return None if failed.restart_at is None else failed.restart_at - time()
        self.wake(id)
        return None

    async def _alive(self, record: ContainerRecord) -> float | None:
        """The result is when to look again where nothing tells: its monitor's socket is gone."""
        if record.id not in self._watched:
            connection = await watch(self.host, record.id, execs=True)
            if connection is not None:
                self._watched[record.id] = connection
                self._names[record.id] = record.name
                loop = asyncio.get_running_loop()
                loop.add_reader(connection, self._on_word, record.id, connection)
        if record.id not in self._running:
            self._running.add(record.id)
            self.queue.add_gently(NAMES)
        self.health.follow(record)
        return None if record.id in self._watched else UNHEARD

    def _on_word(self, id: str, connection: socket.socket) -> None:
        if tell_exec(self.host, id, connection):
            return
        if self.host.transitions_of(self._names[id]):
            self._ended(id)
            self.wake_later(id)
        else:
            self._unwatch(id)
            self.wake(id)

    def _ended(self, id: str) -> None:
        self._unwatch(id)
        self.health.leave(id)
        if id in self._running:
            self._running.discard(id)
            self.queue.add_gently(NAMES)

    def _unwatch(self, id: str) -> None:
        connection = self._watched.pop(id, None)
        self._names.pop(id, None)
        if connection is not None:
            asyncio.get_running_loop().remove_reader(connection)
            connection.close()

    @property
    def running(self) -> Collection[str]:
        """The ids of the containers that run."""
        return self._running

    def _worked(self, key: str, succeeded: bool, seconds: float) -> None:
        kind = key.partition(" ")[0]
        self._metrics.worked(kind, "done" if succeeded else "failed", seconds)

    def _report(self, key: str, error: Exception) -> None:
        expected = isinstance(error, HOST_FAULTS)
        _log.error("%s: %s", key, chain(error), exc_info=None if expected else error)
