"""Repairs, or reports, what somebody else has done to what is ours.

The kernel tells when it happens, and the periodic resync looks at everything besides: what is
done here follows from what is found alone. Each finding is a `drift` event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager

from orchestrator.engine import losses
from orchestrator.engine.errors import chain
from orchestrator.engine.executor import execute
from orchestrator.engine.exits import HOST_FAULTS, state_of
from orchestrator.engine.local import LocalBackend
from orchestrator.engine.records import ContainerRecord, ProjectRecord
from orchestrator.planning.actions import Cause, CreateContainer, StartContainer
from orchestrator.planning.blueprint import mounted_ids
from orchestrator.planning.hooks import with_hooks
from orchestrator.planning.observed import Observed
from orchestrator.planning.plan import Plan, PlanBuilder
from specs.project import Project

_log = logging.getLogger(__name__)

Exclusive = Callable[[str], AbstractAsyncContextManager[None]]
"""Holds a project, so that no operation is at work on it."""

REMOVED = "its files were removed"
PAUSE = 1.0


class DriftKeeper:
    """`wake` has a key looked at by the queue; `exclusive` holds a project."""

    def __init__(
        self, backend: LocalBackend, wake: Callable[[str], None], exclusive: Exclusive
    ) -> None:
        self._backend = backend
        self._host = backend.host
        self._exclusive = exclusive
        self._wake = wake
        self._networks = losses.watch_networks(self._host)
        self._files = losses.LossWatch(
            self._host,
            container=lambda id: wake(f"container {id}"),
            volume=lambda name: wake(f"volume {name}"),
            namespaces=lambda: wake("sandboxes"),
        )
        self._told: set[str] = set()
        self._told_volumes: dict[str, set[str]] = {}
        self._making: dict[str, asyncio.Task[None]] = {}

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Be told of changes; what happened before is not told, so sweep after this."""
        async with self._networks:
            self._files.open()
            following = asyncio.create_task(self._follow_networks(), name="networks")
            try:
                yield
            finally:
                self._files.close()
                tasks = [following, *self._making.values()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_networks(self) -> None:
        while True:
            try:
                async for ids in self._networks:
                    for id in ids:
                        self._wake(f"network {id}")
            except HOST_FAULTS as exc:
                _log.error("watching the networks: %s", chain(exc))
                await asyncio.sleep(PAUSE)

    async def network(self, id: str) -> bool:
        """Bring one network in order; whether anything was not."""
        found = {network.id: network for network in self._host.store.networks()}.get(id)
        if found is None:
            return False
        lines = await asyncio.to_thread(self._host.networks.ensure, id)
        for line in lines:
            self._tell("network", found.name, found.project, "it was changed from outside", line)
        return bool(lines)

    async def sandboxes(self, running: Collection[str]) -> None:
        """Put the namespaces of running containers back to where they are held."""
        for id in await asyncio.to_thread(losses.without_namespace, self._host, tuple(running)):
            record = self._host.store.container(id)
            if record is None or not await asyncio.to_thread(losses.unbound, self._host, record):
                continue
            if self._host.transitions_of(record.name):
                continue  # it is being made or let go
            async with self._host.transition(record.name):
                if not await asyncio.to_thread(losses.unbound, self._host, record):
                    continue
                if await asyncio.to_thread(losses.bind_again, self._host, record):
                    what = "its network namespace was let go"
                    self._tell("container", record.name, record.project, what, "it is held again")

    async def volume(self, name: str) -> None:
        """Report a volume whose directory is gone while containers use it: what was in it only a
        person can bring back."""
        if await asyncio.to_thread(losses.volume_stands, self._host, name):
            self._told_volumes.pop(name, None)
            return
        users = [r for r in self._host.store.containers() if name in volumes_of(r)]
        # Once for those who have lost it: others have had another volume of this name.
        ids = {record.id for record in users}
        if not ids <= self._told_volumes.get(name, set()):
            self._told_volumes[name] = ids
            names = ", ".join(record.name for record in users)
            what = f"its directory was removed while {names} had it; bay up makes it anew, empty"
            self._tell("volume", name, users[0].project, what)

    async def volumes(self) -> None:
        """Look at every volume that a container uses."""
        used = {name for record in self._host.store.containers() for name in volumes_of(record)}
        for name in sorted(used):
            await self.volume(name)

    async def lost(self, record: ContainerRecord) -> None:
        """Put the end of a container in order whose monitor was killed; the caller holds its
        transition, and decides whether it starts again."""
        await asyncio.to_thread(self._host.containers.settle_lost, record.id)

    def restore_places(self) -> None:
        """Follow what stands in the run directory, after it was made again."""
        self._files.follow_namespaces()
        self._wake("sandboxes")

    def tell_unreachable(self, record: ContainerRecord) -> None:
        what = "its monitor's socket was removed: exec and attach need a restart of it"
        self._tell("container", record.name, record.project, what)

    def tell_lost(self, record: ContainerRecord) -> None:
        done = "it is started again" if record.restart_at is not None else "it stays down"
        what = "its monitor was killed, and with it the container"
        self._tell("container", record.name, record.project, what, done)

    def gone(self, record: ContainerRecord) -> None:
        """See to a container on record whose files are gone, once the project is free."""
        if record.id not in self._making:
            task = asyncio.create_task(self._see_to(record.id), name=f"remake {record.name}")
            self._making[record.id] = task
            task.add_done_callback(lambda _: self._making.pop(record.id, None))

    async def _see_to(self, id: str) -> None:
        host = self._host
        record = host.store.container(id)
        if record is None:
            return
        async with self._exclusive(record.project):
            record = host.store.container(id)
            if record is None or await asyncio.to_thread(state_of, host, id) is not None:
                return
            try:
                await asyncio.to_thread(losses.end_remains, host, record)
                await self._replace(record)
            except HOST_FAULTS as exc:
                _log.error("container %s: %s: %s", record.name, REMOVED, chain(exc))

    async def _replace(self, record: ContainerRecord) -> None:
        host = self._host
        project = host.store.project(record.project)
        if record.oneoff:
            await asyncio.to_thread(self._backend.containers.unmake, record, release=True)
            self._tell("container", record.name, record.project, REMOVED, "it is forgotten")
        elif project is None or not _ran(record):
            if record.id not in self._told:
                self._told.add(record.id)
                what = f"{REMOVED}; bay up makes it again"
                self._tell("container", record.name, record.project, what)
        else:
            outcome = await execute(_again(record, project), self._backend, host.bus.publish)
            if outcome.ok:
                done = "it was made again and started"
            else:
                done = f"making it again failed: {chain(outcome.failures[0].error)}"
            self._tell("container", record.name, record.project, REMOVED, done)

    def _tell(self, kind: str, name: str, project: str, what: str, done: str = "") -> None:
        _log.warning("%s %s: %s%s", kind, name, what, f": {done}" if done else "")
        self._host.tell_drift(kind, name, project, what, done)


def volumes_of(record: ContainerRecord) -> frozenset[str]:
    """The names of the volumes that a container uses, anonymous ones too."""
    return frozenset({*record.spec["volumes"].values(), *record.volumes.values()})


def _ran(record: ContainerRecord) -> bool:
    """Whether the container ran, or was about to run again, when it was last looked at."""
    alive = record.started_at is not None and record.finished_at is None
    return record.intent == "running" and (alive or record.restart_at is not None)


def _again(record: ContainerRecord, project: ProjectRecord) -> Plan:
    """The plan that makes a container again as it was."""
    builder = PlanBuilder(record.project)
    cause = Cause(reason=REMOVED)
    made = builder.add(
        CreateContainer(
            name=record.name,
            service=record.service,
            cause=cause,
            project=Project.from_canonical(dict(project.spec)),
            number=record.number,
            image=record.image,
            spec=record.spec,
            mounted=mounted_ids(record.spec),
            anonymous=record.volumes,
        )
    )
    builder.add(StartContainer(name=record.name, service=record.service, cause=cause), after=[made])
    return with_hooks(builder.build(), Observed())
