"""What the local backend's parts share: the runtime and the bridge of one instance, the state
database and the event bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any, TypeVar

from bridge.dns import Resolver
from bridge.networks import Networks
from orchestrator.engine.errors import NoSuchContainer
from orchestrator.engine.events import (
    ContainerEvent,
    DriftEvent,
    EventBus,
    ResourceEvent,
    WarningEvent,
)
from orchestrator.engine.keepsakes import open_store
from orchestrator.engine.records import ContainerRecord
from orchestrator.engine.reserve import Reserve
from orchestrator.engine.store import Store
from runtime.container.containers import Containers
from runtime.images.store import ImageStore
from runtime.volumes import Volumes

SLOW_THREADS = 4

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Host:
    """One instance below `root` and `run`; used from one event loop.

    A container's transitions (create, start, stop, remove) exclude each other: `transition`.
    """

    root: Path
    run: Path
    store: Store
    bus: EventBus
    containers: Containers
    networks: Networks
    images: ImageStore
    volumes: Volumes
    reserve: Reserve
    resolver: Resolver | None = None
    _slow: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="slow")
    )
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    @classmethod
    def open(cls, root: Path, run: Path) -> Host:
        """Open all parts; raises what they raise."""
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        run.mkdir(mode=0o711, parents=True, exist_ok=True)
        reserve = Reserve(root)
        reserve.give()  # a daemon that cannot start helps nobody to make room
        host = cls(
            root=root,
            run=run,
            store=open_store(root),
            bus=EventBus(),
            containers=Containers(root, run),
            networks=Networks(root, run),
            images=ImageStore(root),
            volumes=Volumes(root),
            reserve=reserve,
        )
        reserve.keep()
        return host

    def close(self) -> None:
        """Let go of everything. What belongs to no container and no network any more (the
        launcher, the packet filter's table) goes; the rest stays as it is."""
        self._slow.shutdown()
        self.containers.close()
        self.networks.close()
        self.store.close()

    async def slowly(self, work: Callable[[], T]) -> T:
        """Run what takes seconds or minutes (builds, bootstraps) in threads of its own, a few at
        a time, so that everything short goes on beside it."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, work)

    def record(self, name: str) -> ContainerRecord:
        """The record of the container of this name; raises NoSuchContainer."""
        record = self.store.container_named(name)
        if record is None:
            raise NoSuchContainer(name)
        return record

    def endpoints(self, id: str) -> dict[str, str]:
        """The networks of the container of this id with its addresses, by their real names."""
        record = self.store.container(id)
        return {e.network: e.address for e in record.endpoints} if record is not None else {}

    @asynccontextmanager
    async def transition(self, name: str) -> AsyncIterator[None]:
        """Hold the container of this name while its state is changed."""
        # A lock stays once it is made: one that is dropped while somebody waits for it would
        # let two hold the same container.
        async with self._locks.setdefault(name, asyncio.Lock()):
            yield

    def transitions_of(self, name: str) -> bool:
        """Whether somebody holds this container's transition."""
        lock = self._locks.get(name)
        return lock is not None and lock.locked()

    def tell(self, action: str, record: ContainerRecord, **attributes: Any) -> None:
        """Publish that a container changed."""
        self.bus.publish(
            ContainerEvent(
                project=record.project,
                at=time(),
                action=action,
                id=record.id,
                name=record.name,
                service=record.service,
                attributes=attributes,
            )
        )

    def warn(self, project: str, message: str, hint: str) -> None:
        """Publish what whoever is at work on the project should know."""
        self.bus.publish(WarningEvent(project=project, at=time(), message=message, hint=hint))

    def tell_resource(self, action: str, kind: str, name: str, project: str = "") -> None:
        self.bus.publish(
            ResourceEvent(project=project, at=time(), action=action, kind=kind, name=name)
        )

    def tell_drift(self, kind: str, name: str, project: str, what: str, done: str = "") -> None:
        self.bus.publish(
            DriftEvent(project=project, at=time(), kind=kind, name=name, what=what, done=done)
        )
