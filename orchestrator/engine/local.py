"""The real backend: binds each action to the runtime and the bridge of this host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from orchestrator.engine import waits
from orchestrator.engine.builds import BuildWork
from orchestrator.engine.containers import ContainerWork
from orchestrator.engine.hooks import run_hook
from orchestrator.engine.host import Host
from orchestrator.engine.images import ImageWork
from orchestrator.engine.networks import NetworkWork
from orchestrator.engine.observe import (
    container_status,
    observed_containers,
    observed_networks,
    users_elsewhere,
)
from orchestrator.engine.records import ContainerRecord
from orchestrator.engine.rollouts import RolloutWork
from orchestrator.engine.shared_trees import shared_tree
from orchestrator.engine.updates import UpdateWork
from orchestrator.planning import actions
from orchestrator.planning.observed import ContainerStatus, Observed, ObservedVolume
from runtime.errors import ImageNotFound, InUse, NotFound
from runtime.images.store import Image
from runtime.volumes import Volume

PROJECT_LABEL = "com.docker.compose.project"
VOLUME_LABEL = "com.docker.compose.volume"


def volume_spec(volume: Volume) -> dict[str, Any]:
    """A volume in the words of a canonical project."""
    labels = {
        key: value
        for key, value in volume.labels.items()
        if key not in (PROJECT_LABEL, VOLUME_LABEL)
    }
    return {
        "driver": volume.driver,
        "driver_opts": dict(volume.driver_opts),
        "labels": labels,
    }


class LocalBackend:
    """Implements `Backend` on a Host; blocking calls run in threads."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.containers = ContainerWork(host)
        self.networks = NetworkWork(host)
        self.images = ImageWork(host)
        self.builds = BuildWork(host, self.networks)
        self.updates = UpdateWork(host, self.containers, self.networks)
        self.rollouts = RolloutWork(host, self.containers, self.networks)

    async def observe(
        self,
        project: str,
        *,
        images: Iterable[str] = (),
        networks: Iterable[str] = (),
        volumes: Iterable[str] = (),
    ) -> Observed:
        return await asyncio.to_thread(
            self._observe, project, frozenset(images), frozenset(networks), frozenset(volumes)
        )

    def _observe(
        self,
        project: str,
        images: frozenset[str],
        networks: frozenset[str],
        volumes: frozenset[str],
    ) -> Observed:
        host = self.host
        records = host.store.containers()
        own = [record for record in records if record.project == project]
        found = {name: image for name in sorted(images) if (image := self._image(name))}
        return Observed(
            containers=observed_containers(own, self.statuses(own)),
            networks=observed_networks(
                host.store.networks(), project, networks, self.networks.intact()
            ),
            volumes={
                volume.name: ObservedVolume(
                    name=volume.name,
                    key=volume.labels.get(VOLUME_LABEL, ""),
                    project=volume.labels.get(PROJECT_LABEL),
                    spec=volume_spec(volume),
                )
                for volume in host.volumes.list()
                if volume.name in volumes or volume.labels.get(PROJECT_LABEL) == project
            },
            images={name: image.id for name, image in found.items()},
            platforms={name: str(image.config.platform) for name, image in found.items()},
            pulled=host.store.pulls(),
            elsewhere=users_elsewhere(records, project),
            inheritance=host.store.inheritance(project),
        )

    def statuses(self, records: Iterable[ContainerRecord]) -> dict[str, str]:
        """The runtime's status of each container, by id; one that it does not know is left out.
        Blocking."""
        found = {}
        for record in records:
            with contextlib.suppress(NotFound):
                found[record.id] = str(self.host.containers.get(record.id).status)
        return found

    def look(self, name: str) -> tuple[ContainerRecord, ContainerStatus] | None:
        """A container's record and status by its name."""
        record = self.host.store.container_named(name)
        if record is None:
            return None
        status = self.statuses([record]).get(record.id, "created")
        return record, container_status(record, status)

    def _image(self, reference: str) -> Image | None:
        try:
            return self.host.images.resolve(reference)
        except ImageNotFound:
            return None

    async def pull_image(self, action: actions.PullImage) -> None:
        await self.images.pull(action)

    async def build_image(self, action: actions.BuildImage) -> None:
        await self.builds.build(action)

    async def remove_image(self, action: actions.RemoveImage) -> None:
        await self.images.remove(action)

    async def create_network(self, action: actions.CreateNetwork) -> None:
        await self.networks.create(action)

    async def update_network(self, action: actions.UpdateNetwork) -> None:
        await self.networks.update(action)

    async def remove_network(self, action: actions.RemoveNetwork) -> None:
        await self.networks.remove(action)

    async def create_volume(self, action: actions.CreateVolume) -> None:
        spec = action.spec
        options = spec.get("driver_opts") or {}
        await asyncio.to_thread(
            self.host.volumes.create,
            action.name,
            driver=spec.get("driver") or "local",
            driver_opts=options,
            beneath=shared_tree(self.host.root, str(options.get("device") or "")),
            labels={
                **(spec.get("labels") or {}),
                PROJECT_LABEL: action.project,
                VOLUME_LABEL: action.key,
            },
        )
        self.host.tell_resource("create", "volume", action.name, action.project)

    async def remove_volume(self, action: actions.RemoveVolume) -> None:
        with contextlib.suppress(NotFound):
            await asyncio.to_thread(self.host.volumes.remove, action.name)
        self.host.tell_resource("remove", "volume", action.name)

    async def discard_volume(self, name: str) -> None:
        """Remove a volume that no container uses; raises NotFound, InUse."""
        users = tuple(
            record.name
            for record in self.host.store.containers()
            if name in record.spec["volumes"].values() or name in record.volumes.values()
        )
        if users:
            raise InUse("volume", name, users)
        await asyncio.to_thread(self.host.volumes.remove, name)
        self.host.tell_resource("remove", "volume", name)

    async def create_container(self, action: actions.CreateContainer) -> None:
        await self.containers.create(action)

    async def update_container(self, action: actions.UpdateContainer) -> None:
        await self.updates.update(action)

    async def start_container(self, action: actions.StartContainer) -> None:
        await self.containers.start(action)

    async def stop_container(self, action: actions.StopContainer) -> None:
        await self.containers.stop(action)

    async def kill_container(self, action: actions.KillContainer) -> None:
        await self.containers.kill(action)

    async def remove_container(self, action: actions.RemoveContainer) -> None:
        await self.containers.remove(action)

    async def wait_container(self, action: actions.WaitContainer) -> None:
        await waits.wait(action, self.look, self.host.bus)

    async def run_hook(self, action: actions.RunHook) -> None:
        await run_hook(self.host, action)

    async def promote_container(self, action: actions.PromoteContainer) -> None:
        await self.rollouts.promote(action)

    async def drain_container(self, action: actions.DrainContainer) -> None:
        await self.rollouts.drain(action)

    async def proceed_rollout(self, action: actions.ProceedRollout) -> None:
        await self.rollouts.proceed(action)
