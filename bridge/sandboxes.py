"""Sandboxes: network namespaces and the endpoints that join them to networks."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from ipaddress import IPv4Network as Subnet
from pathlib import Path

from bridge import namespaces
from bridge.addresses import choose_interface, is_fallback_key, lease_address
from bridge.bridges import ensure_bridge, find_bridge
from bridge.config import Endpoint, EndpointConfig, Network, check_link_name, check_mac
from bridge.errors import (
    InvalidNetwork,
    LinkError,
    NetworkError,
    NetworkNotFound,
    SandboxNotFound,
)
from bridge.instance import Instance
from bridge.ipam import mac_of
from bridge.leases import LeaseDatabase
from bridge.locks import Locks
from bridge.rtnetlink import RouteSocket
from bridge.sysctls import set_parameter

_NAMESPACE_HINTS = {
    errno.EPERM: "this needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN",
    errno.ENOSPC: "raise the limit /proc/sys/user/max_net_namespaces",
}
_LOOPBACK = 1  # the index of "lo" in every network namespace


class Sandboxes:
    """Namespaces and endpoints of one instance.

    The caller holds the lock of the sandbox that is spoken of.
    """

    def __init__(
        self, instance: Instance, locks: Locks, leases: LeaseDatabase, route: RouteSocket
    ) -> None:
        self._instance = instance
        self._locks = locks
        self._leases = leases
        self._route = route

    def open(self, sandbox_id: str) -> Path:
        """The namespace of the sandbox, made where it is missing, with all its endpoints."""
        path = self._instance.namespace(sandbox_id)
        bound = namespaces.is_bound(path)
        if bound and self._leases.has_sandbox(sandbox_id):
            return path
        with self._locks.instance():
            self._leases.add_sandbox(sandbox_id)
        if bound:
            return path
        try:
            path.touch(mode=0o600)
            namespaces.create(path, _prepare)
        except OSError as exc:
            raise NetworkError(
                f"cannot make a network namespace for sandbox {sandbox_id}: {exc.strerror}",
                hint=_NAMESPACE_HINTS.get(exc.errno or 0),
            ) from exc
        for endpoint in self._leases.endpoints(sandbox_id=sandbox_id):
            with self._locks.instance():
                self._plug_again(endpoint)
        return path

    def connect(self, sandbox_id: str, config: EndpointConfig) -> Endpoint:
        """Make the sandbox have an endpoint as `config` says; one that is right stays."""
        network = self._network(config.network_id)
        if config.mac is not None:
            check_mac(config.mac)
        if config.interface is not None:
            check_link_name(config.interface)
        if not self._leases.has_sandbox(sandbox_id):
            raise SandboxNotFound(sandbox_id)
        with self._locks.instance():
            others = {e.network_id: e for e in self._leases.endpoints(sandbox_id=sandbox_id)}
            existing = others.pop(network.id, None)
            if existing is not None:
                if _fits(existing, config):
                    return self._keep(existing, config)
                self.disconnect(sandbox_id, network.id)
            with self._leases.transaction():
                endpoint = self._design(sandbox_id, network, config, others.values())
                self._leases.add_endpoint(endpoint)
        try:
            return self._plug(network, endpoint)
        except BaseException:
            with self._locks.instance():
                self._leases.delete_endpoint(sandbox_id, network.id)
                self._unplug(endpoint)
            raise

    def _design(
        self,
        sandbox_id: str,
        network: Network,
        config: EndpointConfig,
        others: Iterable[Endpoint],
    ) -> Endpoint:
        """The endpoint that `config` asks for, beside the sandbox's others."""
        address, key = lease_address(self._leases, network, sandbox_id, config)
        used = {endpoint.interface for endpoint in others}
        interface = choose_interface(used, config.interface)
        if interface in used or interface == "lo":
            raise InvalidNetwork(f"sandbox {sandbox_id} has an interface {interface} already")
        return Endpoint(
            sandbox_id=sandbox_id,
            network_id=network.id,
            address=str(address),
            prefix=Subnet(network.subnet).prefixlen,
            gateway=network.gateway,
            mac=(config.mac or mac_of(address)).lower(),
            interface=interface,
            link=self._instance.new_link(),
            aliases=config.aliases,
            lease_key=key,
            priority=config.priority,
        )

    def disconnect(self, sandbox_id: str, network_id: str) -> None:
        """Take the sandbox off the network; not being on it is as good. The lease stays."""
        for endpoint in self._leases.endpoints(sandbox_id=sandbox_id, network_id=network_id):
            self._unplug(endpoint)
            with self._leases.transaction():
                self._leases.delete_endpoint(sandbox_id, network_id)
                self._give_up(endpoint)
        self._route_out(sandbox_id)

    def close(self, sandbox_id: str, *, release: bool) -> None:
        """Drop the namespace and the endpoints, and with `release` the leases.

        The links go with the namespace, when its last process has ended and the kernel finds
        the time: deleting each of them would wait for that. Raises OSError.
        """
        namespaces.release(self._instance.namespace(sandbox_id))
        with self._leases.transaction():
            for endpoint in self._leases.endpoints(sandbox_id=sandbox_id):
                self._leases.add_departed(endpoint)
                self._give_up(endpoint, release=release)
            self._leases.delete_sandbox(sandbox_id)

    def forget(self, sandbox_id: str) -> None:
        """Drop what is known of a sandbox whose namespace is gone; its leases stay."""
        with self._leases.transaction():
            for endpoint in self._leases.endpoints(sandbox_id=sandbox_id):
                self._give_up(endpoint)
            self._leases.delete_ports(sandbox_id)
            self._leases.delete_sandbox(sandbox_id)

    def repair(self, network: Network) -> list[str]:
        """Plug in again what should be on the network's bridge and up, and is not.

        The caller holds the instance's lock; a sandbox that somebody is at work on is theirs.
        """
        bridge = find_bridge(network)
        endpoints = self._leases.endpoints(network_id=network.id)
        if bridge is None or not endpoints:
            return []
        links = {link.name: link for link in self._route.links(master=bridge)}
        done = []
        for endpoint in endpoints:
            link = links.get(endpoint.link)
            if link is not None and link.up:
                continue
            with self._locks.try_sandbox(endpoint.sandbox_id) as free:
                path = self._instance.namespace(endpoint.sandbox_id)
                if not free or not namespaces.is_bound(path):
                    continue
                self._plug_again(endpoint)
            done.append(f"connected sandbox {endpoint.sandbox_id} to {network.name} again")
        return done

    def hairpin(self, endpoint: Endpoint) -> None:
        """Let the sandbox reach its own published port.

        Only where br_netfilter shows bridged frames to the address rules does a frame turn
        round on its port; the rest is routed.
        """
        index = _index(endpoint.link)
        if index is not None:
            self._route.set_bridge_port(index, hairpin=True)

    # endpoints

    def _give_up(self, endpoint: Endpoint, *, release: bool = False) -> None:
        """End the endpoint's lease, where it was for this endpoint only or with `release`."""
        if release or is_fallback_key(endpoint.lease_key, endpoint.sandbox_id):
            self._leases.delete_lease(endpoint.network_id, endpoint.lease_key)

    def _network(self, network_id: str) -> Network:
        network = self._leases.network(network_id)
        if network is None:
            raise NetworkNotFound(network_id)
        return network

    def _keep(self, endpoint: Endpoint, config: EndpointConfig) -> Endpoint:
        if _index(endpoint.link) is None:
            endpoint = self._plug_again(endpoint)
        if (endpoint.aliases, endpoint.priority) != (config.aliases, config.priority):
            endpoint = replace(endpoint, aliases=config.aliases, priority=config.priority)
            self._leases.update_endpoint(endpoint)
            self._route_out(endpoint.sandbox_id)
        return endpoint

    def _plug_again(self, endpoint: Endpoint) -> Endpoint:
        """Put the links of a recorded endpoint in place, under a new name on the host."""
        self._unplug(endpoint)
        endpoint = replace(endpoint, link=self._instance.new_link())
        self._leases.update_endpoint(endpoint)
        return self._plug(self._network(endpoint.network_id), endpoint)

    def _plug(self, network: Network, endpoint: Endpoint) -> Endpoint:
        """Make the pair of links, and address and route inside; the endpoint with its link."""
        bridge = self._bridge(network)
        self._silence_departed(network, endpoint.address)
        namespace = self._open_namespace(endpoint.sandbox_id)
        try:
            out = self.way_out(endpoint.sandbox_id)
            leads_out = out is not None and out.network_id == endpoint.network_id
            gateway = IPv4Address(endpoint.gateway) if leads_out else None

            def plug() -> None:
                self._route.add_veth(
                    endpoint.link,
                    master=bridge,
                    peer=endpoint.interface,
                    peer_namespace=namespace,
                    peer_mac=endpoint.mac,
                    mtu=network.mtu,
                )
                index = socket.if_nametoindex(endpoint.interface)
                with RouteSocket() as inside:
                    inside.configure(index, IPv4Address(endpoint.address), endpoint.prefix, gateway)

            namespaces.run_inside(namespace, plug)
        finally:
            os.close(namespace)
        if network.isolated_ports:
            index = _index(endpoint.link)
            if index is not None:
                self._route.set_bridge_port(index, isolated=True)
        if leads_out and self._leases.is_backend(endpoint.sandbox_id):
            self.hairpin(endpoint)
        return endpoint

    def _bridge(self, network: Network) -> int:
        """The index of the network's bridge, which is made where it is missing."""
        bridge = find_bridge(network)
        if bridge is None:
            with self._locks.instance():
                ensure_bridge(self._route, self._instance, network)
            bridge = find_bridge(network)
            if bridge is None:
                raise LinkError(f"find bridge {network.interface}", errno.ENODEV, "it is gone")
        return bridge

    def _unplug(self, endpoint: Endpoint) -> None:
        """Delete the endpoint's links, by whichever end is there."""
        index = _index(endpoint.link)
        if index is not None:
            self._route.delete_link(index)
        elif (namespace := self._find_namespace(endpoint.sandbox_id)) is not None:
            # The host's end may have been renamed; the other one is known by its address.
            try:
                namespaces.run_inside(namespace, lambda: _delete_inside(endpoint))
            finally:
                os.close(namespace)

    def _silence_departed(self, network: Network, address: str) -> None:
        """Keep what had `address` before from answering for it while it is on its way out."""
        for link, place in self._leases.departed().items():
            index = _index(link)
            if index is None:
                self._leases.delete_departed(link)
            elif place == (network.id, address):
                try:
                    self._route.silence_bridge_port(index)
                except LinkError as exc:
                    if exc.errno not in (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP):
                        raise  # those: gone meanwhile, or on no bridge

    def way_out(self, sandbox_id: str) -> Endpoint | None:
        """The endpoint that leads out of the host, None where the sandbox is shut in."""
        return way_out(self._leases.endpoints(sandbox_id=sandbox_id, leading_out=True))

    def _route_out(self, sandbox_id: str) -> None:
        """Make the default route inside be the one that the endpoints call for."""
        out = self.way_out(sandbox_id)
        namespace = self._find_namespace(sandbox_id)
        if out is None or namespace is None:
            if namespace is not None:
                os.close(namespace)
            return

        def set_route() -> None:
            index = _index(out.interface)
            if index is None:
                return  # it gets its route when it is plugged in again
            with RouteSocket() as inside:
                inside.replace_default_route(index, IPv4Address(out.gateway))

        try:
            namespaces.run_inside(namespace, set_route)
        finally:
            os.close(namespace)

    def _find_namespace(self, sandbox_id: str) -> int | None:
        return namespaces.open_bound(self._instance.namespace(sandbox_id))

    def _open_namespace(self, sandbox_id: str) -> int:
        namespace = self._find_namespace(sandbox_id)
        if namespace is None:
            raise SandboxNotFound(sandbox_id)
        return namespace


def way_out(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """Of one sandbox's endpoints that lead out of the host, oldest first, the one that is used.

    The highest priority wins, then the oldest. It has the default route, and answers for
    the published ports.
    """
    return max(endpoints, key=lambda endpoint: endpoint.priority, default=None)


def _prepare() -> None:
    """Inside a new namespace: the loopback up, and no IPv6 but on it, as networks are IPv4."""
    set_parameter("ipv6/conf/default/disable_ipv6", 1, optional=True)
    with RouteSocket() as route:
        route.set_up(_LOOPBACK)


def _delete_inside(endpoint: Endpoint) -> None:
    with RouteSocket() as route:
        link = route.link(endpoint.interface)
        if link is not None and link.mac == endpoint.mac:
            route.delete_link(link.index)


def _index(link: str) -> int | None:
    """The index of a link of this thread's namespace, None where there is none."""
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return None


def _fits(endpoint: Endpoint, config: EndpointConfig) -> bool:
    """Whether an endpoint is what `config` asks for, but for what can change in place."""
    return (
        config.address in (None, endpoint.address)
        and (config.mac is None or config.mac.lower() == endpoint.mac)
        and config.interface in (None, endpoint.interface)
    )
