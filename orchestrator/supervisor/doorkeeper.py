"""How many strangers may be connected at a time, and for how long: a listener on a network.

aiohttp waits an hour for a request, and for a body as long as a client likes; the descriptors that
this takes are those that the daemon starts containers with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

CONNECTIONS = 64
EACH = 8
"""Connections at a time, of all and of one address."""
TIMEOUT = 30.0
"""Seconds that a connection may take from its beginning to its end."""

_BACKLOG = 64

Factory = Callable[[], asyncio.BaseProtocol]


class Doorkeeper:
    """Lets connections in to the protocols that `factory` makes. More than `connections`, or than
    `each` of one address, are ended before anything is read; all others after `timeout`."""

    def __init__(
        self,
        factory: Factory,
        *,
        connections: int = CONNECTIONS,
        each: int = EACH,
        timeout: float = TIMEOUT,
    ) -> None:
        self._factory = factory
        self._connections = connections
        self._each = each
        self._timeout = timeout
        self._inside: dict[asyncio.Transport, tuple[str, asyncio.TimerHandle]] = {}
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Arrival(self), host, port, backlog=_BACKLOG, reuse_address=True
        )

    def pause(self) -> None:
        """Let nobody else in until `listen` is called again."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def close(self) -> None:
        """Let nobody in any more; who is inside is left to the protocols, and not waited for."""
        self.pause()
        for _, timer in self._inside.values():
            timer.cancel()
        self._inside.clear()

    def admit(self, transport: asyncio.Transport) -> None:
        """Hand a new connection to a protocol of its own, or end it."""
        for known in [one for one in self._inside if one.is_closing()]:
            self._inside.pop(known)[1].cancel()
        address = str((transport.get_extra_info("peername") or ("",))[0])
        from_there = sum(1 for other, _ in self._inside.values() if other == address)
        if len(self._inside) >= self._connections or from_there >= self._each:
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._timeout, transport.abort)
        self._inside[transport] = (address, timer)
        protocol = self._factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class _Arrival(asyncio.Protocol):
    """A connection of which nothing but the address is known."""

    def __init__(self, keeper: Doorkeeper) -> None:
        self._keeper = keeper

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._keeper.admit(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> Any:
        """What comes with a connection that is being ended is thrown away."""
