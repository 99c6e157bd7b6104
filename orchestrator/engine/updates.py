"""What a container takes over without a restart: limits, networks, ports, and all that is the
daemon's own business."""

from __future__ import annotations

import asyncio
import dataclasses

from orchestrator.engine import sharing
from orchestrator.engine.containers import ContainerWork, process_record
from orchestrator.engine.host import Host
from orchestrator.engine.limits import resources
from orchestrator.engine.networks import NetworkWork
from orchestrator.engine.process import Process, effective_process
from orchestrator.engine.records import ContainerRecord, EndpointRecord
from orchestrator.engine.sandboxes import leave_networks, open_sandbox, own_sandbox
from orchestrator.planning import actions
from orchestrator.planning.health import HealthState
from runtime.container.config import ContainerConfig


class UpdateWork:
    def __init__(self, host: Host, containers: ContainerWork, networks: NetworkWork) -> None:
        self._host = host
        self._traffic = containers.traffic
        self._networks = networks

    async def update(self, action: actions.UpdateContainer) -> None:
        """Take over the changes; what can fail comes before anything is written down."""
        host = self._host
        async with host.transition(action.name):
            record = dataclasses.replace(host.record(action.name), spec=action.spec)
            image = await asyncio.to_thread(host.images.resolve, record.image_id)
            process = effective_process(action.spec["service"], image.config, record.name)
            record = dataclasses.replace(record, process=process_record(process))
            changes: dict[str, object] = {"spec": record.spec, "process": record.process}
            if "networks" in action.fields and own_sandbox(record.spec["service"]):
                changes["endpoints"] = await asyncio.to_thread(self._move, record)
            await asyncio.to_thread(self._update_config, record, process)
            if "ports" in action.fields:
                state = await asyncio.to_thread(host.containers.get, record.id)
                if state.status in ("running", "paused"):
                    changes["ports"] = await asyncio.to_thread(self._traffic.publish, record)
            if "healthcheck" in action.fields:
                changes["health"] = HealthState() if process.health else None
            host.tell("update", host.store.update_container(record.id, **changes) or record)
        if "networks" in action.fields:
            await self._networks.renew_names()

    def _move(self, record: ContainerRecord) -> tuple[EndpointRecord, ...]:
        """Be on the networks of the blueprint; one that is ended is so from its next start."""
        if self._host.containers.get(record.id).status == "exited":
            return ()
        endpoints = open_sandbox(self._host, record)
        leave_networks(self._host, record)
        sharing.renew_hosts(self._host, dataclasses.replace(record, endpoints=endpoints))
        return endpoints

    def _update_config(self, record: ContainerRecord, process: Process) -> None:
        containers = self._host.containers
        config: ContainerConfig = containers.config(record.id)
        changed = config.replace(
            labels=record.labels,
            resources=resources(record.spec["service"]),
            stop_signal=process.stop_signal,
            stop_timeout=int(process.stop_timeout),
        )
        containers.update(record.id, changed)
