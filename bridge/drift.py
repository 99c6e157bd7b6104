"""What stands in the kernel beside what the database calls for: links and addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from ipaddress import IPv4Network as Subnet

from bridge.config import Endpoint, Network
from bridge.rtnetlink import Link


def out_of_place(
    networks: Iterable[Network],
    endpoints: Iterable[Endpoint],
    links: Iterable[Link],
    addresses: Iterable[tuple[int, IPv4Address, int]],
) -> frozenset[str]:
    """The ids of the networks of which a bridge, an endpoint's link or an address is missing,
    down, or other than it should be. `addresses` are (link index, address, prefix length).
    """
    by_name = {link.name: link for link in links}
    by_link: dict[int, set[tuple[IPv4Address, int]]] = {}
    for index, address, prefix in addresses:
        by_link.setdefault(index, set()).add((address, prefix))
    bridges: dict[str, int] = {}
    found = set()
    for network in networks:
        bridge = by_name.get(network.interface)
        if bridge is None or not _is_right(network, bridge, by_link.get(bridge.index, set())):
            found.add(network.id)
        else:
            bridges[network.id] = bridge.index
    for endpoint in endpoints:
        link = by_name.get(endpoint.link)
        if link is None or not link.up or link.master != bridges.get(endpoint.network_id):
            found.add(endpoint.network_id)
    return frozenset(found)


def concerned(
    names: Iterable[str], networks: Iterable[Network], endpoints: Iterable[Endpoint]
) -> bool:
    """Whether one of these links is of a network or an endpoint."""
    ours = {network.interface for network in networks} | {e.link for e in endpoints}
    return not ours.isdisjoint(names)


def _is_right(network: Network, bridge: Link, present: set[tuple[IPv4Address, int]]) -> bool:
    wanted = (IPv4Address(network.gateway), Subnet(network.subnet).prefixlen)
    return bridge.up and present == {wanted} and network.mtu in (None, bridge.mtu)
