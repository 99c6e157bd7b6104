"""Who is called what on which network, and what an asker gets to know of it. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from ipaddress import IPv4Network as Subnet

from bridge import dns_messages as dns
from bridge.config import Endpoint, Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """The names of one network: name in lower case -> addresses; address -> whose it is."""

    network: Network
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)


class Names:
    """The zones of all networks, and the answers that they hold."""

    def __init__(self, *, ttl: int, rng: random.Random) -> None:
        self._zones: dict[str, Zone] = {}
        self._ttl = ttl
        self._rng = rng

    def set_zone(self, zone: Zone) -> None:
        self._zones[zone.network.id] = zone

    def zone(self, network_id: str) -> Zone | None:
        return self._zones.get(network_id)

    def remove_zone(self, network_id: str) -> None:
        self._zones.pop(network_id, None)

    def zones_of(self, network_id: str, asker: str) -> tuple[Zone, ...]:
        """The network that is asked on, then the others that the asking sandbox is on."""
        asked = self._zones.get(network_id)
        if asked is None:
            return ()
        sandbox = asked.members.get(asker)
        if sandbox is None:
            return (asked,)
        others = [
            zone
            for zone in self._zones.values()
            if zone is not asked and sandbox in zone.members.values()
        ]
        return (asked, *others)

    def resolve(
        self,
        query: dns.Query,
        zones: tuple[Zone, ...],
        *,
        own: Mapping[str, tuple[str, ...]] | None = None,
        limit: int | None,
    ) -> bytes | None:
        """The answer as far as the asker's `own` names and those of `zones` go; None when none
        of them knows."""
        if query.class_ not in (dns.CLASS_IN, dns.ANY):
            return None
        if query.type == dns.PTR:
            return self._reverse(query, zones)
        mine = own.get(query.name) if own else None
        for addresses in (mine, *(_lookup(zone, query.name) for zone in zones)):
            if addresses is None:
                continue
            if query.type not in (dns.A, dns.ANY):
                return dns.no_answer(query, dns.NOERROR)
            shuffled = list(addresses)
            self._rng.shuffle(shuffled)
            return dns.answer(query, shuffled, self._ttl, limit=limit)
        return None

    def _reverse(self, query: dns.Query, zones: tuple[Zone, ...]) -> bytes | None:
        address = dns.reverse_address(query.name)
        if address is None:
            return None
        for zone in zones:
            if address not in Subnet(zone.network.subnet):
                continue
            name = _name_of(zone, address)
            if name is not None:
                return dns.pointer_answer(query, name, self._ttl)
            # Nobody outside knows a private address of ours.
            return dns.no_answer(query, dns.NXDOMAIN)
        return None


def names_by_network(endpoints: Iterable[Endpoint]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Network id -> name -> addresses, from the aliases of endpoints."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for endpoint in endpoints:
        names = found.setdefault(endpoint.network_id, {})
        for alias in endpoint.aliases:
            names[alias] = (*names.get(alias, ()), endpoint.address)
    return found


def members_by_network(endpoints: Iterable[Endpoint]) -> dict[str, dict[str, str]]:
    """Network id -> address -> sandbox."""
    found: dict[str, dict[str, str]] = {}
    for endpoint in endpoints:
        found.setdefault(endpoint.network_id, {})[endpoint.address] = endpoint.sandbox_id
    return found


def _lookup(zone: Zone, name: str) -> tuple[str, ...] | None:
    """By the plain name, or with the network's name behind it as Docker has it."""
    addresses = zone.names.get(name)
    if addresses is None:
        suffix = f".{zone.network.name.lower()}"
        if name.endswith(suffix):
            addresses = zone.names.get(name.removesuffix(suffix))
    return addresses


def _name_of(zone: Zone, address: IPv4Address) -> str | None:
    """The most special name: the one with the fewest addresses, the first of those."""
    text = str(address)
    names = [name for name, addresses in zone.names.items() if text in addresses]
    if not names:
        return None
    best = min(names, key=lambda name: len(zone.names[name]))
    full = f"{best}.{zone.network.name}"
    try:
        dns.encode_name(full)
    except ValueError:
        return None
    return full
