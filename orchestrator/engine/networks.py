"""Networks on this host, and the names by which containers find each other on them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from time import time

from bridge.config import Endpoint
from bridge.dns import Resolver
from bridge.dns_names import members_by_network, names_by_network
from bridge.errors import NetworkNotFound, TeardownError
from orchestrator.engine.endpoints import SHORT_ID, network_config
from orchestrator.engine.errors import chain
from orchestrator.engine.exits import state_of
from orchestrator.engine.host import Host
from orchestrator.engine.records import NetworkRecord
from orchestrator.planning import actions


class NetworkWork:
    """Performs the network actions, and keeps the resolver up to date."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._running: Collection[str] = ()

    async def create(self, action: actions.CreateNetwork) -> None:
        """Create the network or repair it; the record comes first, so that a crash in between
        leaves the id by which the rest is found."""
        host = self._host
        existing = host.store.network(action.name)
        record = NetworkRecord(
            name=action.name,
            id=existing.id if existing else secrets.token_hex(32),
            key=action.key,
            project=action.project,
            spec=action.spec,
            created_at=existing.created_at if existing else time(),
        )
        config = network_config(
            record.id, action.name, action.project, action.key, action.spec, action.endpoints
        )
        host.store.put_network(record)
        try:
            network = await asyncio.to_thread(host.networks.create, config)
        except BaseException:
            if existing is None:
                host.store.remove_network(action.name)
            raise
        await self.serve(network.id)
        host.tell_resource("create", "network", action.name, action.project)

    async def update(self, action: actions.UpdateNetwork) -> None:
        await self.create(
            actions.CreateNetwork(
                name=action.name,
                cause=action.cause,
                project=action.project,
                key=action.key,
                spec=action.spec,
            )
        )

    async def remove(self, action: actions.RemoveNetwork) -> None:
        host = self._host
        record = host.store.network(action.name)
        if record is None:
            return
        if host.resolver is not None:
            host.resolver.forget(record.id)
        try:
            with contextlib.suppress(NetworkNotFound):
                await asyncio.to_thread(host.networks.remove, record.id)
        except BaseException:
            await self.serve(record.id)
            raise
        host.store.remove_network(action.name)
        host.tell_resource("remove", "network", action.name, record.project)

    async def start_resolver(self) -> None:
        """Listen for names on every network that there is."""
        self._host.resolver = await Resolver.start()
        for network in await asyncio.to_thread(self._host.networks.list):
            await self.serve(network.id)

    async def stop_resolver(self) -> None:
        if self._host.resolver is not None:
            await self._host.resolver.close()
            self._host.resolver = None

    async def serve(self, network_id: str) -> None:
        """Answer names on a network that there is; once is enough."""
        host = self._host
        if host.resolver is None:
            return
        network = await asyncio.to_thread(host.networks.get, network_id)
        port = await host.resolver.serve(network)
        if network.resolver_port != port:
            await asyncio.to_thread(host.networks.set_resolver_port, network_id, port)

    async def refresh_names(self, running: Collection[str]) -> None:
        """Make the resolver know exactly the containers that run, by the ids `running`, but for
        those that a rollout keeps out of traffic."""
        host = self._host
        self._running = running
        if host.resolver is None:
            return
        endpoints = [
            endpoint
            for endpoint in await asyncio.to_thread(host.networks.endpoints)
            if endpoint.sandbox_id in running
        ]
        backstage = host.store.rollouts.backstage()
        names = names_by_network([e for e in endpoints if e.sandbox_id not in backstage])
        members = members_by_network(endpoints)
        host.resolver.set_own_names(linked_names(names, endpoints, host.store.links()))
        host.resolver.set_upstreams(host.store.upstreams())
        for network_id in host.resolver.ports:
            host.resolver.set_names(
                network_id, names.get(network_id, {}), members.get(network_id, {})
            )

    async def renew_names(self) -> None:
        """Do so again, as somebody's part has changed."""
        await self.refresh_names(self._running)

    def sweep(self) -> tuple[list[str], list[str]]:
        """After a start: repair or remove what a crash or a reboot left; what was done, and what
        failed. Blocking."""
        networks = self._host.networks
        try:
            done = list(networks.sweep())
        except TeardownError as group:
            return [], [chain(error) for error in group.exceptions]
        done += self._sweep_ports()
        done += self._sweep_sandboxes()
        return done, []

    def _sweep_sandboxes(self) -> list[str]:
        """Close the sandboxes of containers that neither we nor the runtime know."""
        host, done = self._host, []
        for id in host.networks.sandboxes():
            if host.store.container(id) is None and state_of(host, id) is None:
                host.networks.close_sandbox(id, release=True)
                done.append(f"closed the sandbox of container {id[:SHORT_ID]}, which is gone")
        return done

    def _sweep_ports(self) -> list[str]:
        """Give up the ports of containers that nobody knows any more, and of services without
        replicas."""
        networks = self._host.networks
        known = {record.id for record in self._host.store.containers()}
        owners = networks.port_owners()
        users = {o for o in owners if "/" not in o}
        users.update(id for o in owners if "/" in o for id in networks.backends(o))
        done = []
        for id in sorted(users - known):
            networks.unpublish(id)
            done.append(f"gave up the ports of container {id[:SHORT_ID]}, which is gone")
        for owner in owners:
            if "/" in owner and not networks.backends(owner):
                networks.unpublish(owner)
                done.append(f"gave up the ports of service {owner}, which has no replica")
        return done

    def intact(self) -> frozenset[str]:
        """The ids of the networks whose link stands in our network namespace. Blocking."""
        standing = set()
        for network in self._host.networks.list():
            with contextlib.suppress(OSError):
                socket.if_nametoindex(network.interface)
                standing.add(network.id)
        return frozenset(standing)


def linked_names(
    names: Mapping[str, Mapping[str, tuple[str, ...]]],
    endpoints: Iterable[Endpoint],
    links: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, tuple[str, ...]]]:
    """What each sandbox calls those that it links to: sandbox -> alias -> addresses, on the
    networks that both are on.

    `names` are network id -> name -> addresses, `links` NAME or NAME:ALIAS by sandbox.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for endpoint in endpoints:
        known = names.get(endpoint.network_id, {})
        for link in links.get(endpoint.sandbox_id, ()):
            target, _, alias = link.partition(":")
            if alias and target in known:
                own = found.setdefault(endpoint.sandbox_id, {})
                own[alias] = (*own.get(alias, ()), *known[target])
    return found
