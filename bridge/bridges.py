"""The host's side of a network: a bridge link with the gateway's address and its parameters."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address
from ipaddress import IPv4Network as Subnet

from bridge.config import Network
from bridge.departure import see_off
from bridge.errors import LinkError, NetworkError
from bridge.instance import Instance
from bridge.ipam import mac_of
from bridge.rtnetlink import Link, RouteSocket
from bridge.sysctls import set_parameter


def ensure_forwarding() -> bool:
    """Let the host pass packets on between links; whether it did not before."""
    return set_parameter("ipv4/ip_forward", 1)


def find_bridge(network: Network) -> int | None:
    """The index of the network's bridge, None where there is none; the cheapest question."""
    try:
        return socket.if_nametoindex(network.interface)
    except OSError:
        return None


def ensure_bridge(route: RouteSocket, instance: Instance, network: Network) -> list[str]:
    """Make the bridge be there, up, with its address and parameters; what had to be done.

    Raises LinkError, or NetworkError when a link of that name belongs to somebody else.
    """
    done: list[str] = []
    gateway = IPv4Address(network.gateway)
    prefix = Subnet(network.subnet).prefixlen
    link = route.link(network.interface)
    if link is None:
        try:
            route.add_bridge(network.interface, mac=mac_of(gateway), mtu=network.mtu)
        except LinkError as exc:
            if exc.errno != errno.EEXIST:
                raise
        link = _require(route.link(network.interface), network)
        route.set_link(link.index, alias=instance.alias(network.id))
        done.append(f"created bridge {network.interface} of network {network.name}")
    elif not _is_ours(instance, network, link):
        raise NetworkError(
            f"network {network.name} needs an interface called {network.interface},"
            " and another one has that name",
            hint="remove that interface, or give the network's bridge another name",
        )
    elif not link.alias:
        route.set_link(link.index, alias=instance.alias(network.id))
        done.append(f"took bridge {network.interface} for network {network.name}")
    done += _ensure_parameters(network)
    if network.mtu is not None and link.mtu != network.mtu:
        route.set_link(link.index, mtu=network.mtu)
        done.append(f"set the mtu of {network.interface}")
    if not link.up:
        route.set_link(link.index, up=True)
        done.append(f"set {network.interface} up")
    present = {(a, p) for index, a, p in route.addresses() if index == link.index}
    for address, length in present - {(gateway, prefix)}:
        route.delete_address(link.index, address, length)
        done.append(f"removed address {address} from {network.interface}")
    if (gateway, prefix) not in present:
        route.add_address(link.index, gateway, prefix)
        done.append(f"gave {network.interface} its address {gateway}")
    return done


def remove_bridge(route: RouteSocket, instance: Instance, network: Network) -> None:
    """Remove the network's bridge; none is as good, and another's is left alone."""
    link = route.link(network.interface)
    if link is not None and _is_ours(instance, network, link):
        see_off(link.index)


def _is_ours(instance: Instance, network: Network, link: Link) -> bool:
    """By its alias; or, where its making was cut short before that, by name or address."""
    if link.kind != "bridge":
        return False
    if link.alias:
        return link.alias == instance.alias(network.id)
    named = network.interface.startswith(instance.bridge_prefix)
    return named or link.mac == mac_of(IPv4Address(network.gateway))


def _ensure_parameters(network: Network) -> list[str]:
    link = network.interface
    wanted = (
        # A port published on 127.0.0.1 is answered through the bridge; the rules keep
        # everybody else away from the loopback addresses.
        (f"ipv4/conf/{link}/route_localnet", 1, False),
        # IPv4 only: a container must not talk to the host, or advertise itself as its
        # router, by IPv6 behind the rules' back (CVE-2020-13401).
        (f"ipv6/conf/{link}/accept_ra", 0, True),
        (f"ipv6/conf/{link}/disable_ipv6", 1, True),
    )
    return [
        f"set net/{name} to {value}"
        for name, value, optional in wanted
        if set_parameter(name, value, optional=optional)
    ]


def _require(link: Link | None, network: Network) -> Link:
    if link is None:
        raise LinkError(
            f"create bridge {network.interface}", errno.ENODEV, "it is gone again at once"
        )
    return link
