"""The resolver: names of containers for containers, on the gateway of each network.

One object in the daemon's event loop, no process per network. It listens on a port of the
kernel's choice at each gateway; the packet filter leads port 53 there. A container is known
by the address that it asks from, which the rules keep it from forging, and gets the names of
all networks that it is on. Other names are passed on to the host's name servers, but never
for a container that is on internal networks only (CVE-2024-29018), and never for the host
itself, whose questions might be our own on their way back.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from bridge import dns_messages as dns
from bridge.config import Network
from bridge.dns_forward import Forwarder
from bridge.dns_names import Names, Zone
from bridge.errors import NetworkError

_IP_FREEBIND = 15  # include/uapi/linux/in.h
_TTL = 1  # seconds; a container's name may mean another address after the next rollout
_IDLE_TIMEOUT = 10.0  # seconds that a TCP connection may take for its next question
_MOST_CONNECTIONS = 256
_MOST_CONNECTIONS_OF_ONE = 16  # so that no container takes them all
_ATTEMPTS = 32


@dataclass(slots=True)
class _Listener:
    port: int
    gateway: str
    transport: asyncio.DatagramTransport
    server: asyncio.Server


class Resolver:
    """Answers for any number of networks. Belongs to one event loop."""

    def __init__(
        self,
        *,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        ttl: int = _TTL,
        rng: random.Random | None = None,
        upstream_port: int = 53,
        upstream_timeout: float = 4.0,
    ) -> None:
        self._names = Names(ttl=ttl, rng=rng or random.Random())
        self._forwarder = Forwarder(
            resolv_conf=resolv_conf, port=upstream_port, timeout=upstream_timeout
        )
        self._listeners: dict[str, _Listener] = {}
        self._upstreams: dict[str, tuple[str, ...]] = {}
        self._own_names: dict[str, dict[str, tuple[str, ...]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: Counter[str] = Counter()
        # Since the start: all questions, and those of them that other servers answer.
        self.queries = self.passed_on = 0

    @classmethod
    async def start(
        cls, networks: Iterable[Network] = (), *, resolv_conf: Path = Path("/etc/resolv.conf")
    ) -> Resolver:
        """A resolver that serves `networks`; their ports are in `ports`."""
        resolver = cls(resolv_conf=resolv_conf)
        try:
            for network in networks:
                await resolver.serve(network)
        except BaseException:
            await resolver.close()
            raise
        return resolver

    @property
    def ports(self) -> dict[str, int]:
        """Network id -> the port on its gateway, for `Networks.set_resolver_port`."""
        return {network_id: listener.port for network_id, listener in self._listeners.items()}

    async def serve(self, network: Network) -> int:
        """Listen for the network's containers, and give the port; once is enough.

        The gateway's address need not be there yet. Raises NetworkError.
        """
        zone = self._names.zone(network.id)
        self._names.set_zone(
            Zone(network=network) if zone is None else replace(zone, network=network)
        )
        listener = self._listeners.get(network.id)
        if listener is not None:
            if listener.gateway == network.gateway:
                return listener.port
            self._stop(network.id)
        try:
            udp, tcp = _bind_pair(network.gateway, network.resolver_port)
        except OSError as exc:
            raise NetworkError(
                f"cannot listen for names on {network.gateway} of network {network.name}:"
                f" {exc.strerror}"
            ) from exc
        loop = asyncio.get_running_loop()
        transport, _protocol = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self, network.id), sock=udp
        )
        server = await asyncio.start_server(
            lambda reader, writer: self._spawn(self._converse(network.id, reader, writer)),
            sock=tcp,
        )
        port = int(udp.getsockname()[1])
        self._listeners[network.id] = _Listener(port, network.gateway, transport, server)
        return port

    def forget(self, network_id: str) -> None:
        """Listen for the network no more."""
        self._names.remove_zone(network_id)
        self._stop(network_id)

    def set_names(
        self,
        network_id: str,
        names: Mapping[str, Iterable[str]],
        members: Mapping[str, str] | None = None,
    ) -> None:
        """Set all names of a network that is served: name -> addresses.

        In place of those set before, at one stroke: no question meets half of either. Which
        replicas a name leads to is the caller's choice (those that are ready); a name with no
        address is still known, so that nobody outside is asked for it. Raises NetworkError.

        `members` says which sandbox has which address there, so that one on several networks
        is recognised; without it every asker is on the one network only.
        """
        zone = self._names.zone(network_id)
        if zone is None:
            raise NetworkError(f"no names are served on network {network_id}")
        lowered: dict[str, tuple[str, ...]] = {}
        for name, addresses in names.items():
            key = name.rstrip(".").lower()
            lowered[key] = tuple(dict.fromkeys((*lowered.get(key, ()), *addresses)))
        self._names.set_zone(replace(zone, names=lowered, members=dict(members or {})))

    def set_upstreams(self, upstreams: Mapping[str, Sequence[str]]) -> None:
        """Set which name servers are asked for whom, instead of the host's: sandbox -> addresses.

        For the sandboxes that `set_names` was told of as members, and in place of whatever
        was set before.
        """
        self._upstreams = {sandbox: tuple(servers) for sandbox, servers in upstreams.items()}

    def set_own_names(self, names: Mapping[str, Mapping[str, Iterable[str]]]) -> None:
        """Set the names that one sandbox alone knows, before all others: sandbox -> name ->
        addresses. As with `set_upstreams`."""
        self._own_names = {
            sandbox: {name.rstrip(".").lower(): tuple(found) for name, found in own.items()}
            for sandbox, own in names.items()
        }

    async def close(self) -> None:
        for network_id in list(self._listeners):
            self._stop(network_id)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self, network_id: str) -> None:
        listener = self._listeners.pop(network_id, None)
        if listener is not None:
            listener.transport.close()
            listener.server.close()  # conversations end by themselves, or with `close`

    # questions

    def answer_at_once(
        self, network_id: str, asker: str, query: dns.Query, *, by_tcp: bool
    ) -> bytes | None:
        """The answer that needs no other server; None when the question is to be passed on."""
        self.queries += 1
        if query.opcode != 0:
            return dns.no_answer(query, dns.NOTIMP)
        zones = self._names.zones_of(network_id, asker)
        if not zones:
            return dns.no_answer(query, dns.REFUSED)
        limit = None if by_tcp else query.udp_size
        own = self._own_names.get(zones[0].members.get(asker, ""), {})
        known = self._names.resolve(query, zones, own=own, limit=limit)
        if known is not None:
            return known
        if asker in self._own_addresses():
            return dns.no_answer(query, dns.REFUSED)
        if all(zone.network.internal for zone in zones):
            return dns.no_answer(query, dns.NXDOMAIN)
        return None

    async def pass_on(
        self, network_id: str, asker: str, message: bytes, query: dns.Query, *, by_tcp: bool
    ) -> bytes:
        self.passed_on += 1
        zone = self._names.zone(network_id)
        sandbox = None if zone is None else zone.members.get(asker)
        servers = () if sandbox is None else self._upstreams.get(sandbox, ())
        return await self._forwarder.ask(
            message,
            query,
            asker=asker,
            by_tcp=by_tcp,
            never=self._own_addresses(),
            servers=servers,
        )

    def _own_addresses(self) -> set[str]:
        return {listener.gateway for listener in self._listeners.values()}

    def received(
        self,
        network_id: str,
        message: bytes,
        address: tuple[str, int],
        transport: asyncio.DatagramTransport,
    ) -> None:
        """A datagram came: answer it, now or when another server has; nothing for nonsense."""
        query = dns.parse_query(message)
        if query is None:
            return
        response = self.answer_at_once(network_id, address[0], query, by_tcp=False)
        if response is not None:
            transport.sendto(response, address)
            return

        async def pass_on(query: dns.Query) -> None:
            response = await self.pass_on(network_id, address[0], message, query, by_tcp=False)
            if not transport.is_closing():
                transport.sendto(dns.fit(response, query), address)

        self._spawn(pass_on(query))

    def _spawn(self, job: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(
        self, network_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Questions by TCP, one after the other; who is slow waits for himself only."""
        asker = str(writer.get_extra_info("peername", ("", 0))[0])
        self._connections[asker] += 1
        welcome = (
            self._connections[asker] <= _MOST_CONNECTIONS_OF_ONE
            and self._connections.total() <= _MOST_CONNECTIONS
        )
        try:
            while welcome:
                async with asyncio.timeout(_IDLE_TIMEOUT):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    message = await reader.readexactly(length)
                query = dns.parse_query(message)
                if query is None:
                    break
                response = self.answer_at_once(network_id, asker, query, by_tcp=True)
                if response is None:
                    response = await self.pass_on(network_id, asker, message, query, by_tcp=True)
                writer.write(struct.pack("!H", len(response)) + response)
                async with asyncio.timeout(_IDLE_TIMEOUT):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass  # gone, or too slow: nobody is there to be told
        finally:
            self._connections[asker] -= 1
            if not self._connections[asker]:
                del self._connections[asker]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver, network_id: str) -> None:
        self._resolver = resolver
        self._network_id = network_id
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._resolver.received(self._network_id, data, addr, self._transport)


def _bind_pair(address: str, wanted: int | None) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on the same port of `address`: the `wanted` one where it is free."""
    candidates = ([wanted] if wanted else []) + [0] * _ATTEMPTS
    failure: OSError | None = None
    for port in candidates:
        udp = _free_socket(socket.SOCK_DGRAM)
        tcp = _free_socket(socket.SOCK_STREAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((address, port))
            udp.bind((address, tcp.getsockname()[1]))
            tcp.listen(128)
            return udp, tcp
        except OSError as exc:
            udp.close()
            tcp.close()
            failure = exc
    assert failure is not None
    raise failure


def _free_socket(kind: socket.SocketKind) -> socket.socket:
    """A socket that may be bound to an address that the host does not have yet (ip(7))."""
    made = socket.socket(socket.AF_INET, kind)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    return made
