"""Published ports: a host port reserved in the database, free on the host, led to a sandbox."""

from __future__ import annotations

from collections.abc import Sequence

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
        self, sandbox_id: str, wanted: Sequence[PublishedPort]
    ) -> tuple[PublishedPort, ...]:
        """Make `wanted` be exactly what the sandbox publishes, with every host port filled in.

        What it published already stays as it is, a port chosen before included. All or
        nothing. Raises PortInUse, NetworkError.
        """
        wanted = tuple(dict.fromkeys(wanted))
        for port in wanted:
            check_port(port)
        if not self._leases.has_sandbox(sandbox_id):
            raise SandboxNotFound(sandbox_id)
        out = self._sandboxes.way_out(sandbox_id)
        if out is None:
            if not wanted:
                self._leases.delete_ports(sandbox_id)
                return ()
            raise InvalidNetwork(
                f"sandbox {sandbox_id} cannot publish ports: it is on no network that leads out",
                hint="put it on a network that is not internal as well",
            )
        network = self._leases.network(out.network_id)
        default = "" if network is None else network.options.get(OPTION_HOST_BINDING, "")
        with self._leases.transaction():
            existing = list(self._leases.bindings(owner=sandbox_id))
            kept: dict[int, Binding] = {}
            for position, port in enumerate(wanted):
                for binding in existing:
                    if _is_for(binding, port, default):
                        kept[position] = binding
                        existing.remove(binding)
                        break
            for binding in existing:
                self._leases.delete_port(binding.host_ip, binding.host_port, binding.protocol)
            for position, port in enumerate(wanted):
                if position not in kept:
                    kept[position] = self._reserve(sandbox_id, port, default)
        if wanted:
            self._sandboxes.hairpin(out)
        return tuple(_resolved(kept[position]) for position in range(len(wanted)))

    def _reserve(self, sandbox_id: str, port: PublishedPort, default: str) -> Binding:
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
                owner=sandbox_id,
                sandbox_id=sandbox_id,
                container_port=port.container_port,
            )
            self._leases.add_binding(binding)
            return binding
        raise PortInUse(host_ip or ANY_ADDRESS, 0, port.protocol, "everything that was tried")

    def _check_reserved(self, host_ip: str, host_port: int, protocol: str) -> None:
        holder = self._leases.port_holder(host_ip, host_port, protocol)
        if holder is not None:
            raise PortInUse(host_ip or ANY_ADDRESS, host_port, protocol, f"sandbox {holder}")
        table = self._firewall.other_instance(host_ip, host_port, protocol)
        if table is not None:
            holder = f"another instance (nftables table {table})"
            raise PortInUse(host_ip or ANY_ADDRESS, host_port, protocol, holder)

    def published(self, sandbox_id: str) -> tuple[PublishedPort, ...]:
        return tuple(_resolved(binding) for binding in self._leases.bindings(owner=sandbox_id))

    def ruleset(self) -> Ruleset:
        """The rules that the database calls for."""
        networks = {network.id: network for network in self._leases.networks()}
        endpoints: dict[str, list[Endpoint]] = {}
        for endpoint in self._leases.endpoints():
            endpoints.setdefault(endpoint.sandbox_id, []).append(endpoint)
        backends: dict[tuple[str, int, str], list[Backend]] = {}
        for binding in self._leases.bindings():
            out = way_out(endpoints.get(binding.sandbox_id, ()), networks)
            if out is not None:
                key = (binding.host_ip, binding.host_port, binding.protocol)
                backend = Backend(address=out.address, port=binding.container_port)
                backends.setdefault(key, []).append(backend)
        published = tuple(
            PortRules(host_ip=ip, host_port=port, protocol=protocol, backends=tuple(targets))
            for (ip, port, protocol), targets in sorted(backends.items())
        )
        rules = tuple(_network_rules(network) for network in networks.values())
        return Ruleset(networks=rules, ports=published)


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


def _is_for(binding: Binding, port: PublishedPort, default: str) -> bool:
    return (
        binding.host_ip == _address(port, default)
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
