"""A service's networks and ports as the bridge understands them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.config import EndpointConfig, NetworkConfig
from orchestrator.engine.errors import EngineError
from orchestrator.planning.observed import Spec

SHORT_ID = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRequest:
    """A port to publish; one of `candidates` is taken, (0,) leaves the choice to the host."""

    container_port: int
    host_ip: str
    protocol: str
    candidates: tuple[int, ...]


def network_config(
    id: str, name: str, project: str, key: str, spec: Spec, endpoints: int = 0
) -> NetworkConfig:
    """A Compose network as a bridge, with room for so many `endpoints`; raises EngineError for
    another driver or IPv6."""
    driver = spec.get("driver") or "bridge"
    if driver != "bridge":
        raise EngineError(
            f"network {name}: driver {driver} is not supported", hint="use the driver bridge"
        )
    if spec.get("enable_ipv6"):
        raise EngineError(f"network {name}: IPv6 is not supported", hint="drop enable_ipv6")
    pools = (spec.get("ipam") or {}).get("config") or ()
    if len(pools) > 1:
        raise EngineError(f"network {name}: more than one subnet is not supported")
    pool: Mapping[str, Any] = pools[0] if pools else {}
    return NetworkConfig(
        id=id,
        name=name,
        endpoints=endpoints,
        subnet=pool.get("subnet") or None,
        gateway=pool.get("gateway") or None,
        ip_range=pool.get("ip_range") or None,
        internal=bool(spec.get("internal")),
        labels={
            **{key: str(value) for key, value in (spec.get("labels") or {}).items()},
            "com.docker.compose.project": project,
            "com.docker.compose.network": key,
        },
        options={key: str(value) for key, value in (spec.get("driver_opts") or {}).items()},
    )


def lease_key(project: str, service: str, number: int) -> str:
    """Names a replica across recreations, so that it keeps its address."""
    return f"{project}/{service}/{number}"


def endpoint_config(
    spec: Spec, key: str, network_id: str, *, project: str, number: int, names: tuple[str, ...]
) -> EndpointConfig:
    """The service's place on the network `key`; `names` are what it is called there besides its
    aliases."""
    service = spec["service"]
    options: Mapping[str, Any] = (service.get("networks") or {}).get(key) or {}
    if options.get("ipv6_address") or options.get("link_local_ips"):
        raise EngineError(f"network {key}: IPv6 and link-local addresses are not supported")
    aliases = dict.fromkeys((*names, *(options.get("aliases") or ())))
    return EndpointConfig(
        network_id=network_id,
        address=options.get("ipv4_address") or None,
        mac=options.get("mac_address") or service.get("mac_address") or None,
        aliases=tuple(aliases),
        interface=options.get("interface_name") or None,
        lease_key=lease_key(project, service["name"], number),
        priority=int(options.get("gw_priority") or options.get("priority") or 0),
    )


def network_order(spec: Spec) -> tuple[str, ...]:
    """The keys of the service's networks, the one with the highest priority first, then by
    name; the first one's gateway is where names are asked for."""
    networks: Mapping[str, Any] = spec["service"].get("networks") or {}

    def rank(key: str) -> tuple[int, str]:
        return (-int((networks.get(key) or {}).get("priority") or 0), key)

    return tuple(sorted(spec["networks"], key=rank))


def port_requests(service: Spec) -> tuple[PortRequest, ...]:
    requests = []
    for port in service.get("ports") or ():
        published = port.get("published")
        first, _, last = str(published if published not in (None, "") else 0).partition("-")
        requests.append(
            PortRequest(
                container_port=int(port["target"]),
                host_ip=str(port.get("host_ip") or ""),
                protocol=str(port.get("protocol") or "tcp"),
                candidates=tuple(range(int(first), int(last or first) + 1)),
            )
        )
    return tuple(requests)
