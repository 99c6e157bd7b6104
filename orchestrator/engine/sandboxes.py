"""A container's place on the network: its sandbox, its addresses, its published ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.config import PublishedPort
from bridge.errors import PortInUse
from bridge.files import hosts_file, resolv_conf
from orchestrator.engine.endpoints import (
    SHORT_ID,
    PortRequest,
    endpoint_config,
    network_order,
    port_requests,
)
from orchestrator.engine.errors import EngineError
from orchestrator.engine.host import Host
from orchestrator.engine.records import ContainerRecord, EndpointRecord, PortRecord
from orchestrator.engine.translate import container_hostname
from orchestrator.planning.observed import Spec

_RESOLV_CONF = Path("/etc/resolv.conf")


def own_sandbox(service: Spec) -> bool:
    """Whether the container has a network namespace of its own."""
    mode = str(service.get("network_mode") or "")
    return mode in ("", "bridge", "default", "none")


def open_sandbox(host: Host, record: ContainerRecord) -> tuple[EndpointRecord, ...]:
    """Make the sandbox stand with all its endpoints; blocking, and cheap where it does.

    Raises NetworkError.
    """
    if not own_sandbox(record.spec["service"]):
        return ()
    host.networks.open_sandbox(record.id)
    endpoints = []
    for key in network_order(record.spec):
        name = record.spec["networks"][key]
        network = host.store.network(name)
        if network is None:
            raise EngineError(f"no such network: {name}")
        # A one-off container answers to its service's name only where that is among its aliases.
        shared = () if record.oneoff else (record.service,)
        names = (*shared, record.name, record.id[:SHORT_ID])
        config = endpoint_config(
            record.spec,
            key,
            network.id,
            project=record.project,
            number=record.number,
            names=names,
        )
        endpoint = host.networks.connect(record.id, config)
        endpoints.append(
            EndpointRecord(
                network=name,
                network_id=network.id,
                address=endpoint.address,
                mac=endpoint.mac,
                aliases=config.aliases,
            )
        )
    return tuple(endpoints)


def publish(host: Host, record: ContainerRecord) -> tuple[PortRecord, ...]:
    """Publish the ports of the container's blueprint; blocking. Raises PortInUse."""
    if not own_sandbox(record.spec["service"]):
        return ()
    requests = port_requests(record.spec["service"])
    if not requests:
        host.networks.unpublish(record.id)
        return ()
    chosen = [request.candidates[0] for request in requests]
    while True:
        try:
            published = host.networks.publish(
                record.id,
                [_published(r, port) for r, port in zip(requests, chosen, strict=True)],
            )
        except PortInUse as exc:
            if not _advance(requests, chosen, exc.port):
                raise
            continue
        return tuple(_port_record(port) for port in published)


def published_ports(host: Host, id: str) -> tuple[PortRecord, ...]:
    """The ports that the container of this id has on the host now. Blocking."""
    return tuple(_port_record(port) for port in host.networks.published(id))


def close_sandbox(host: Host, record: ContainerRecord, *, release: bool) -> None:
    """Take the sandbox down; `release` gives up its addresses. Blocking."""
    host.networks.close_sandbox(record.id, release=release)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFiles:
    """What a container is told of its network: its name, /etc/hosts and /etc/resolv.conf."""

    hostname: str
    hosts: str
    resolv_conf: str


def network_files(
    host: Host, record: ContainerRecord, endpoints: tuple[EndpointRecord, ...]
) -> NetworkFiles:
    """The files for the network of `record`, which owns its sandbox or uses the host's.
    Blocking.

    A container on networks of ours asks the gateway of the first one, where the resolver is.
    """
    service = record.spec["service"]
    gateway = host.networks.get(endpoints[0].network_id).gateway if endpoints else None
    hostname = container_hostname(record.id, service)
    if service.get("network_mode") == "host" and not service.get("hostname"):
        hostname = socket.gethostname()
    domain = service.get("domainname")
    own_names = [hostname] if not domain else [f"{hostname}.{domain}", hostname]
    return NetworkFiles(
        hostname=hostname,
        hosts=hosts_file(
            own=[(endpoint.address, own_names) for endpoint in endpoints],
            extra=list(_extra_hosts(service, gateway)),
        ),
        resolv_conf=resolv_conf(
            _host_resolv_conf(),
            nameserver=None if service.get("dns") else gateway,
            nameservers=tuple(service.get("dns") or ()),
            search=service.get("dns_search") or None,
            options=service.get("dns_opt") or None,
        ),
    )


def _extra_hosts(service: Spec, gateway: str | None) -> Iterator[tuple[str, str]]:
    for name, addresses in (service.get("extra_hosts") or {}).items():
        for address in addresses:
            if address != "host-gateway":
                yield name, address
            elif gateway is not None:
                yield name, gateway
            else:
                raise EngineError(
                    f"extra_hosts {name}: host-gateway needs a network that leads to the host"
                )


def _host_resolv_conf() -> str:
    try:
        return _RESOLV_CONF.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _port_record(port: PublishedPort) -> PortRecord:
    return PortRecord(
        host_ip=port.host_ip,
        host_port=port.host_port,
        container_port=port.container_port,
        protocol=port.protocol,
    )


def _published(request: PortRequest, host_port: int) -> PublishedPort:
    return PublishedPort(
        container_port=request.container_port,
        host_ip=request.host_ip,
        host_port=host_port,
        protocol=request.protocol,
    )


def _advance(requests: tuple[PortRequest, ...], chosen: list[int], taken: int) -> bool:
    """Go on to the next candidate of the request that was refused; False where none is left."""
    for position, request in enumerate(requests):
        if chosen[position] == taken and len(request.candidates) > 1:
            later = [port for port in request.candidates if port > taken and port not in chosen]
            if later:
                chosen[position] = later[0]
                return True
    return False
