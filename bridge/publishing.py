"""Published ports: a host port reserved in the database, free on the host, led to sandboxes.

A port belongs to an owner: a sandbox that publishes for itself, or a service whose sandboxes
share it. The owner keeps it, whichever sandboxes it leads to at the moment and even while
there are none; nobody else gets it meanwhile.

Ports are published on IPv4 addresses only, since networks are IPv4. The kernel cannot translate
between families, and a forwarder would be a process in the way of every byte; so a client
that tries [::1] for "localhost" is refused there at once and goes on to 127.0.0.1, as
getaddrinfo(3) tells it to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bridge import ports
from bridge.config import (
    ANY_ADDRESS,
    OPTION_HOST_BINDING,
    Endpoint,
    Network,
    PublishedPort,
    check_port,
)
from bridge.errors import InvalidNetwork, PortInUse, SandboxNotFound
from bridge.firewall import Firewall
from bridge.leases import Binding, LeaseDatabase
from bridge.ruleset import Backend, NetworkRules, PortRules, Ruleset
from bridge.sandboxes import Sandboxes, way_out

_ATTEMPTS = 64


class Publishing:
    """The published ports of one instance. The caller holds the lock and applies the rules."""

    def __init__(self, leases: LeaseDatabase, sandboxes: Sandboxes, firewall: Firewall) -> None:
        self._leases = leases
        self._firewall = firewall
        self._sandboxes = sandboxes

    def publish(
        self, owner: str, wanted: Sequence[PublishedPort], sandboxes: Sequence[str]
    ) -> tuple[PublishedPort, ...]:
        """Make `wanted` be exactly what `owner` publishes, led to `sandboxes`.

        What it published already stays as it is, a port chosen before included; what one of
        `sandboxes` has published for itself passes to the owner. All or nothing. The ports
        come back with every host port filled in. Raises PortInUse, NetworkError.
        """
        wanted = tuple(dict.fromkeys(wanted))
        sandboxes = tuple(dict.fromkeys(sandboxes))
        for port in wanted:
            check_port(port)
        for sandbox_id in sandboxes:
            if not self._leases.has_sandbox(sandbox_id):
                raise SandboxNotFound(sandbox_id)
        ways_out = [self._way_out(sandbox_id) for sandbox_id in sandboxes] if wanted else []
        default = self._default_address(ways_out[0]) if ways_out else None
        with self._leases.transaction():
            existing = list(self._leases.bindings(owner=owner))
            for sandbox_id in sandboxes:
                if sandbox_id != owner:
                    existing += self._leases.bindings(owner=sandbox_id)
            kept: dict[int, Binding] = {}
            for position, port in enumerate(wanted):
                for binding in existing:
                    if _is_for(binding, port, default):
                        kept[position] = binding
                        existing.remove(binding)
                        break
            for binding in existing:
                if binding.owner == owner:
                    self._leases.delete_port(binding.host_ip, binding.host_port, binding.protocol)
            for position, port in enumerate(wanted):
                if position not in kept:
                    kept[position] = self._reserve(owner, port, default or "", sandboxes)
            for binding in kept.values():
                if (binding.owner, binding.sandboxes) != (owner, sandboxes):
                    self._leases.set_binding(replace(binding, owner=owner, sandboxes=sandboxes))
        for endpoint in ways_out:
            self._sandboxes.hairpin(endpoint)
        return tuple(_resolved(kept[position]) for position in range(len(wanted)))

    def restore(self, owners: Iterable[str], bindings: Iterable[Binding]) -> None:
        """Put back what `owners` published before."""
        with self._leases.transaction():
            for owner in owners:
                for binding in self._leases.bindings(owner=owner):
                    self._leases.delete_port(binding.host_ip, binding.host_port, binding.protocol)
            for binding in bindings:
                self._leases.set_binding(binding)

    def _way_out(self, sandbox_id: str) -> Endpoint:
        """The endpoint that answers for the sandbox's ports."""
        out = self._sandboxes.way_out(sandbox_id)
        if out is None:
            raise InvalidNetwork(
                f"sandbox {sandbox_id} cannot publish ports: it is on no network that leads out",
                hint="put it on a network that is not internal as well",
            )
        return out

    def _default_address(self, endpoint: Endpoint) -> str:
        network = self._leases.network(endpoint.network_id)
        return "" if network is None else network.options.get(OPTION_HOST_BINDING, "")

    def _reserve(
        self, owner: str, port: PublishedPort, default: str, sandboxes: tuple[str, ...]
    ) -> Binding:
        host_ip = _address(port, default)
        for _attempt in range(_ATTEMPTS):
            host_port = port.host_port
            if host_port:
                self._check_reserved(host_ip, host_port, port.protocol)
            host_port = ports.probe(host_ip, host_port, port.protocol)
            if not port.host_port and self._leases.port_holder(host_ip, host_port, port.protocol):
                continue
            binding = Binding(
                host_ip=host_ip,
                host_port=host_port,
                protocol=port.protocol,
                owner=owner,
                container_port=port.container_port,
                sandboxes=sandboxes,
            )
            self._leases.set_binding(binding)
            return binding
        raise PortInUse(host_ip or ANY_ADDRESS, 0, port.protocol, "everything that was tried")

    def _check_reserved(self, host_ip: str, host_port: int, protocol: str) -> None:
        holder = self._leases.port_holder(host_ip, host_port, protocol)
        if holder is not None:
            kind = "service" if is_service(holder) else "sandbox"
            raise PortInUse(host_ip or ANY_ADDRESS, host_port, protocol, f"{kind} {holder}")
        table = self._firewall.other_instance(host_ip, host_port, protocol)
        if table is not None:
            holder = f"another instance (nftables table {table})"
            raise PortInUse(host_ip or ANY_ADDRESS, host_port, protocol, holder)

    def published(self, owner: str) -> tuple[PublishedPort, ...]:
        return tuple(_resolved(binding) for binding in self._leases.bindings(owner=owner))

    def ruleset(self) -> Ruleset:
        """The rules that the database calls for."""
        rules = tuple(_network_rules(network) for network in self._leases.networks())
        bindings = sorted(self._leases.bindings())
        endpoints: dict[str, list[Endpoint]] = {}
        for endpoint in self._leases.endpoints(leading_out=True) if bindings else ():
            endpoints.setdefault(endpoint.sandbox_id, []).append(endpoint)
        published = []
        for binding in bindings:
            ways = (way_out(endpoints.get(s, ())) for s in binding.sandboxes)
            backends = tuple(
                Backend(address=out.address, port=binding.container_port)
                for out in ways
                if out is not None
            )
            if backends:
                published.append(
                    PortRules(
                        host_ip=binding.host_ip,
                        host_port=binding.host_port,
                        protocol=binding.protocol,
                        backends=backends,
                    )
                )
        return Ruleset(networks=rules, ports=tuple(published))


def is_service(owner: str) -> bool:
    """Whether an owner of ports is a service; a sandbox's id has no slash."""
    return "/" in owner


def check_service(service: str) -> None:
    """Raises InvalidNetwork where the key of a service might be a sandbox's id."""
    if not is_service(service):
        raise InvalidNetwork(f"service key {service!r} is not of the form project/service")


def _network_rules(network: Network) -> NetworkRules:
    return NetworkRules(
        interface=network.interface,
        subnet=network.subnet,
        gateway=network.gateway,
        internal=network.internal,
        masquerade=network.masquerade,
        isolated=network.isolated_ports,
        resolver_port=network.resolver_port,
    )


def _address(port: PublishedPort, default: str) -> str:
    host_ip = port.host_ip or default
    return "" if host_ip == ANY_ADDRESS else host_ip


def _is_for(binding: Binding, port: PublishedPort, default: str | None) -> bool:
    """Whether a port that stands is the one asked for; without a `default`, on any address."""
    anywhere = default is None and not port.host_ip
    return (
        (anywhere or binding.host_ip == _address(port, default or ""))
        and binding.protocol == port.protocol
        and binding.container_port == port.container_port
        and port.host_port in (0, binding.host_port)
    )


def _resolved(binding: Binding) -> PublishedPort:
    return PublishedPort(
        container_port=binding.container_port,
        host_ip=binding.host_ip or ANY_ADDRESS,
        host_port=binding.host_port,
        protocol=binding.protocol,
    )
