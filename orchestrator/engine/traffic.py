"""Published ports, and which of a service's replicas new connections go to.

A port of one number belongs to the service and is led to all replicas that serve; a port out
of a range, or of the host's choice, is each replica's own. A container that a rollout keeps
beside the current ones gets no traffic.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bridge.config import ANY_ADDRESS, PublishedPort
from bridge.draining import drain
from bridge.errors import PortInUse
from orchestrator.engine.endpoints import PortRequest, port_requests
from orchestrator.engine.errors import EngineError
from orchestrator.engine.host import Host
from orchestrator.engine.records import ContainerRecord, PortRecord
from orchestrator.engine.sandboxes import close_sandbox, own_sandbox
from orchestrator.planning.observed import Spec


class Traffic:
    """All methods but `drain` block; those of one service follow one another."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._locks: dict[str, threading.Lock] = {}

    def publish(self, record: ContainerRecord) -> tuple[PortRecord, ...]:
        """Publish the ports of the container's blueprint, as far as it is to have traffic; what
        it published besides is given up. Raises PortInUse."""
        if not own_sandbox(record.spec["service"]):
            return ()
        shared, own = _divided(record)
        networks = self._host.networks
        if record.role != "current":
            return ()
        published: tuple[PortRecord, ...] = ()
        if own or networks.published(record.id):
            published = self._publish_own(record.id, own)
        if record.oneoff:
            return published
        key = service_key(record)
        with self._lock(key):
            if not shared:
                if networks.published(key) and not self._others(record):
                    networks.unpublish(key)
                return published
            led = networks.balance(key, shared, [*self._others(record), record.id])
        return (*(port_record(port) for port in led), *published)

    def withdraw(self, record: ContainerRecord) -> bool:
        """Lead new connections to the service's other replicas; False where there are none."""
        key, networks = service_key(record), self._host.networks
        with self._lock(key):
            backends = networks.backends(key)
            others = [id for id in backends if id != record.id]
            if record.id in backends and others:
                networks.balance(key, networks.published(key), others)
            return bool(others)

    async def drain(self, record: ContainerRecord, timeout: float) -> int:
        """Wait until the connections to the container have ended; how many are left."""
        return await drain(self._host.networks, record.id, timeout=timeout)

    def retire(self, record: ContainerRecord, *, release: bool) -> None:
        """Take the container's sandbox down, and with the last replica's the service's ports."""
        self.unpublish(record)
        close_sandbox(self._host, record, release=release)

    def unpublish(self, record: ContainerRecord) -> None:
        """Give up what the container publishes, and with the last replica the service's ports."""
        if not own_sandbox(record.spec["service"]):
            return
        key, networks = service_key(record), self._host.networks
        with self._lock(key):
            backends = networks.backends(key)
            if networks.published(record.id) or record.id in backends:
                networks.unpublish(record.id)
            last = record.role == "current" and not record.oneoff and set(backends) <= {record.id}
            if last and networks.published(key):
                networks.unpublish(key)

    def _publish_own(self, id: str, requests: Sequence[PortRequest]) -> tuple[PortRecord, ...]:
        networks = self._host.networks
        if not requests:
            networks.unpublish(id)
            return ()
        chosen = [request.candidates[0] for request in requests]
        while True:
            try:
                published = networks.publish(
                    id, [_published(r, port) for r, port in zip(requests, chosen, strict=True)]
                )
            except PortInUse as exc:
                if not _advance(requests, chosen, exc.port):
                    raise _refused(requests, chosen, exc) from exc
                continue
            return tuple(port_record(port) for port in published)

    def _others(self, record: ContainerRecord) -> list[str]:
        """The sandboxes that the service's ports lead to besides, and may go on to."""
        shared, _ = _divided(record)
        others = []
        for id in self._host.networks.backends(service_key(record)):
            other = self._host.store.container(id) if id != record.id else None
            if other is not None and other.role == "current" and _divided(other)[0] == shared:
                others.append(id)
        return others

    def _lock(self, key: str) -> threading.Lock:
        return self._locks.setdefault(key, threading.Lock())


def service_key(record: ContainerRecord) -> str:
    return f"{record.project}/{record.service}"


def published_ports(host: Host, record: ContainerRecord) -> tuple[PortRecord, ...]:
    """The ports on the host that lead to the container now. Blocking."""
    key = service_key(record)
    shared = host.networks.published(key) if record.id in host.networks.backends(key) else ()
    return tuple(port_record(port) for port in (*shared, *host.networks.published(record.id)))


def shared_requests(service: Spec) -> tuple[PortRequest, ...]:
    """The ports that all replicas of a service share: those of one number."""
    return tuple(r for r in port_requests(service) if len(r.candidates) == 1 and r.candidates[0])


def port_record(port: PublishedPort) -> PortRecord:
    return PortRecord(
        host_ip=port.host_ip,
        host_port=port.host_port,
        container_port=port.container_port,
        protocol=port.protocol,
    )


def _divided(record: ContainerRecord) -> tuple[list[PublishedPort], list[PortRequest]]:
    """The ports that are the service's, and those that are the container's own."""
    service = record.spec["service"]
    shared = () if record.oneoff else shared_requests(service)
    own = [request for request in port_requests(service) if request not in shared]
    return [_published(request, request.candidates[0]) for request in shared], own


def _published(request: PortRequest, host_port: int) -> PublishedPort:
    return PublishedPort(
        container_port=request.container_port,
        host_ip=request.host_ip,
        host_port=host_port,
        protocol=request.protocol,
    )


def _refused(
    requests: Sequence[PortRequest], chosen: Sequence[int], exc: PortInUse
) -> PortInUse | EngineError:
    """What to say once the last candidate of a request is taken: which range it was."""
    for request, port in zip(requests, chosen, strict=True):
        if port == exc.port and len(request.candidates) > 1:
            ports = f"{request.candidates[0]}-{request.candidates[-1]}/{request.protocol}"
            return EngineError(
                f"all of the ports {request.host_ip or ANY_ADDRESS}:{ports} are in use",
                hint="publish a wider range, or stop what holds them",
            )
    return exc


def _advance(requests: Sequence[PortRequest], chosen: list[int], taken: int) -> bool:
    """Go on to the next candidate of the request that was refused; False where none is left."""
    for position, request in enumerate(requests):
        if chosen[position] == taken and len(request.candidates) > 1:
            later = [port for port in request.candidates if port > taken and port not in chosen]
            if later:
                chosen[position] = later[0]
                return True
    return False
