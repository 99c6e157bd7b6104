"""Gives out subnets and addresses: the pure choice of `ipam`, inside the database's transactions.

Every function here runs inside a transaction of the caller.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address
from ipaddress import IPv4Network as Subnet

from bridge import ipam
from bridge.config import (
    DEFAULT_MTU,
    OPTION_NAME,
    EndpointConfig,
    Network,
    NetworkConfig,
    network_mtu,
    parse_address,
    parse_subnet,
)
from bridge.errors import AddressInUse, AddressPoolExhausted, NetworkMismatch
from bridge.instance import Instance
from bridge.leases import LeaseDatabase
from bridge.rtnetlink import RouteSocket

_INTERFACE = re.compile(r"eth(\d+)")


def design_network(
    instance: Instance,
    leases: LeaseDatabase,
    config: NetworkConfig,
    host: list[tuple[Subnet, str]],
    mtu: int | None,
) -> Network:
    """The network that `config` asks for, with a subnet that meets nothing in `host` or here.

    `mtu` is what it gets where `config` says nothing and it leads out of the host.

    Raises AddressPoolExhausted or SubnetOverlap.
    """
    taken = [(Subnet(n.subnet), f"network {n.name}") for n in leases.networks()] + host
    if config.subnet is None:
        seed = f"{instance.tag}/{config.name}"
        prefix = ipam.subnet_prefix(config.endpoints)
        subnet = ipam.choose_subnet(seed, [other for other, _ in taken], prefix=prefix)
    else:
        subnet = parse_subnet(config.subnet, "subnet")
        ipam.check_subnet(subnet, taken)
    ip_range = None if config.ip_range is None else parse_subnet(config.ip_range, "ip_range")
    if config.gateway is None:
        gateway = ipam.default_gateway(subnet, ip_range)
    else:
        gateway = parse_address(config.gateway, "gateway")
    return Network(
        id=config.id,
        name=config.name,
        subnet=str(subnet),
        gateway=str(gateway),
        interface=config.options.get(OPTION_NAME) or instance.bridge(config.id),
        ip_range=None if ip_range is None else str(ip_range),
        internal=config.internal,
        mtu=network_mtu(config) or (None if config.internal else mtu),
        labels=dict(config.labels),
        options=dict(config.options),
    )


def check_same(network: Network, config: NetworkConfig) -> None:
    """Raise NetworkMismatch when the network is not what `config` asks for; labels may differ."""
    subnet = config.subnet and str(parse_subnet(config.subnet, "subnet"))
    ip_range = config.ip_range and str(parse_subnet(config.ip_range, "ip_range"))
    for field, existing, wanted, given in (
        ("name", network.name, config.name, True),
        ("subnet", network.subnet, subnet, subnet is not None),
        ("gateway", network.gateway, config.gateway, config.gateway is not None),
        ("ip_range", network.ip_range, ip_range, config.subnet is not None),
        ("internal", network.internal, config.internal, True),
        ("mtu", network.mtu, network_mtu(config), network_mtu(config) is not None),
        ("options", dict(network.options), dict(config.options), True),
    ):
        if given and existing != wanted:
            raise NetworkMismatch(network.name, field, existing, wanted)


def host_subnets(route: RouteSocket, *, resolv_conf: str) -> list[tuple[Subnet, str]]:
    """What the host already reaches, as (subnet, what it is): routes, addresses, name servers."""
    names = {index: name for index, name in socket.if_nameindex()}
    found = [(subnet, f"route by {names.get(index, '?')}") for subnet, index in route.routes()]
    for index, address, prefix in route.addresses():
        subnet = Subnet((int(address), prefix), strict=False)
        found.append((subnet, f"address of {names.get(index, '?')}"))
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and ":" not in words[1]:
            found.append((Subnet(parse_address(words[1], "nameserver")), "name server"))
    return found


def uplink_mtu(route: RouteSocket) -> int | None:
    """The MTU that a network inherits from the links of the host's default routes.

    Theirs where they agree, larger ones included; else the smallest. None means the kernel's
    own, 1500, which is also the most where they differ. What a packet would have to be cut
    for on its way out is then not sent in the first place: tunnels and clouds have smaller
    ones, and many firewalls drop the messages that would tell (RFC 2923).
    """
    links = {link.index: link.mtu for link in route.links()}
    found = {
        min(links[index], mtu or links[index]) for index, mtu in route.uplinks() if index in links
    }
    if not found:
        return None
    inherited = min(found) if len(found) == 1 else min(*found, DEFAULT_MTU)
    return None if inherited == DEFAULT_MTU else inherited


def lease_address(
    leases: LeaseDatabase, network: Network, sandbox_id: str, config: EndpointConfig
) -> tuple[IPv4Address, str]:
    """An address for the sandbox, and the key under which it is leased.

    The key's own address where it is free, or the explicit one; else the next. When nothing
    is left, the oldest lease that no endpoint uses is taken over. A key whose address
    another endpoint has right now (two generations of a replica) leaves it there.
    Raises AddressInUse, InvalidNetwork or AddressPoolExhausted.
    """
    subnet, gateway = Subnet(network.subnet), IPv4Address(network.gateway)
    key = config.lease_key or sandbox_id
    in_use = leases.addresses_in_use(network.id)
    if config.address is not None:
        address = parse_address(config.address, "address")
        ipam.check_address(address, subnet, gateway)
        if address in in_use:
            raise AddressInUse(str(address), network.name, f"sandbox {in_use[address]}")
        leases.set_lease(network.id, key, address)
        return address, key
    leased = leases.leases(network.id)
    if key in leased and leased[key] != gateway:
        if leased[key] not in in_use:
            return leased[key], key
        key = _fallback_key(key, sandbox_id)
    ip_range = None if network.ip_range is None else Subnet(network.ip_range)
    taken = set(leased.values()) | set(in_use)
    try:
        address = ipam.choose_address(
            subnet, gateway, taken, after=leases.last_address(network.id), ip_range=ip_range
        )
    except AddressPoolExhausted as exc:
        within = ip_range or subnet
        idle = [a for a in leased.values() if a not in in_use and a in within and a != gateway]
        if not idle:
            raise AddressPoolExhausted(
                f"address in network {network.name} ({within})",
                hint="make the network anew, with a larger subnet",
            ) from exc
        address = idle[0]
    leases.set_lease(network.id, key, address)
    return address, key


def is_fallback_key(lease_key: str, sandbox_id: str) -> bool:
    """Whether a lease was only for as long as another sandbox had the key's own address."""
    return lease_key.endswith(_fallback_key("", sandbox_id))


def _fallback_key(key: str, sandbox_id: str) -> str:
    return f"{key}/{sandbox_id}"


def choose_interface(used: set[str], wanted: str | None) -> str:
    """The name asked for, or the first free of eth0, eth1…"""
    if wanted is not None:
        return wanted
    numbers = {int(m[1]) for name in used if (m := _INTERFACE.fullmatch(name))}
    number = 0
    while number in numbers:
        number += 1
    return f"eth{number}"
