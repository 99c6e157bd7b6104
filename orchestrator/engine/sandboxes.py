"""A container's place on the network: its sandbox, its addresses, its published ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.files import hosts_file, resolv_conf
from orchestrator.engine.endpoints import SHORT_ID, endpoint_config, network_order
from orchestrator.engine.errors import EngineError
from orchestrator.engine.host import Host
from orchestrator.engine.records import ContainerRecord, EndpointRecord
from orchestrator.engine.translate import container_hostname
from orchestrator.planning.observed import Spec
from orchestrator.planning.replicas import container_name

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
        names = (*shared, replica_name(record), record.id[:SHORT_ID])
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


def leave_networks(host: Host, record: ContainerRecord) -> None:
    """Take the sandbox off the networks that the container's blueprint does not name. Blocking."""
    names = set(record.spec["networks"].values())
    for endpoint in record.endpoints:
        if endpoint.network not in names:
            host.networks.disconnect(record.id, endpoint.network_id)


def replica_name(record: ContainerRecord) -> str:
    """The name that the container is known by on its networks: its replica's, also while a
    rollout calls it otherwise."""
    if record.oneoff:
        return record.name
    return container_name(record.project, record.spec["service"], record.number)


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
            # The resolver passes on to the service's own `dns` what it does not know itself.
            nameserver=gateway,
            nameservers=() if gateway else tuple(service.get("dns") or ()),
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
