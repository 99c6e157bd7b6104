"""Passes questions on to the host's own name servers, from the host's network namespace."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import struct
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from bridge import dns_messages as dns

_MOST_SERVERS = 3  # resolv.conf(5), MAXNS
_MOST_QUESTIONS = 1024  # waiting at a time, as Docker has it
_MOST_QUESTIONS_OF_ONE = 512  # so that no container takes them all
_MOST_SOCKETS = 128  # of the process's descriptors
_TIMEOUT = 4.0  # seconds for each server
_NEXT_SERVER = (dns.SERVFAIL, dns.NOTIMP, dns.REFUSED)


def nameservers(resolv_conf: str) -> tuple[str, ...]:
    """The addresses of the name servers in a resolv.conf(5); what is no address is left out."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            ipaddress.ip_address(words[1])
        except ValueError:
            continue
        found.append(words[1])
    return tuple(found[:_MOST_SERVERS])


class Forwarder:
    """Asks the host's name servers, one after the other until one has an answer."""

    def __init__(self, *, resolv_conf: Path, port: int = 53, timeout: float = _TIMEOUT) -> None:
        self._resolv_conf = resolv_conf
        self._port = port
        self._timeout = timeout
        self._waiting: Counter[str] = Counter()
        self._sockets = asyncio.Semaphore(_MOST_SOCKETS)
        self._read: tuple[int, int, int] | None = None
        self._servers: tuple[str, ...] = ()

    async def ask(
        self,
        message: bytes,
        query: dns.Query,
        *,
        asker: str,
        by_tcp: bool,
        never: Collection[str],
        servers: Sequence[str] = (),
    ) -> bytes:
        """The answer to `message`: an upstream's, or SERVFAIL when none has any.

        `servers` are asked where there are any, else the host's own. Those in `never`, our own
        addresses, are not; REFUSED when no other is left, or too many questions are under way.
        """
        configured = servers or self._current_servers()
        asked = [server for server in configured if server not in never]
        full = (
            self._waiting.total() >= _MOST_QUESTIONS
            or self._waiting[asker] >= _MOST_QUESTIONS_OF_ONE
        )
        if full or (configured and not asked):
            return dns.no_answer(query, dns.REFUSED)
        self._waiting[asker] += 1
        try:
            async with self._sockets:
                return await self._ask_in_turn(asked, message, query, by_tcp=by_tcp)
        finally:
            self._waiting[asker] -= 1
            if not self._waiting[asker]:
                del self._waiting[asker]

    async def _ask_in_turn(
        self, servers: Sequence[str], message: bytes, query: dns.Query, *, by_tcp: bool
    ) -> bytes:
        ask = self._ask_by_tcp if by_tcp else self._ask_by_udp
        last: bytes | None = None
        for server in servers:
            try:
                async with asyncio.timeout(self._timeout):
                    response = await ask(server, message, query)
            except (OSError, EOFError, TimeoutError):
                continue
            if dns.response_code(response) not in _NEXT_SERVER:
                return dns.with_id(response, query.id)
            last = response
        if last is not None:
            return dns.with_id(last, query.id)
        return dns.no_answer(query, dns.SERVFAIL)

    def _current_servers(self) -> tuple[str, ...]:
        """The host's name servers now: its file is read again whenever it changed."""
        try:
            status = self._resolv_conf.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._read:
                self._servers = nameservers(self._resolv_conf.read_text(errors="replace"))
                self._read = stamp
        except OSError:
            self._servers, self._read = (), None
        return self._servers

    async def _ask_by_udp(self, server: str, message: bytes, query: dns.Query) -> bytes:
        """Each question from a port and under an id of its own, so that none can be guessed."""
        loop = asyncio.get_running_loop()
        id_ = secrets.randbelow(1 << 16)
        answered: asyncio.Future[bytes] = loop.create_future()
        transport, _protocol = await loop.create_datagram_endpoint(
            lambda: _Upstream(query, id_, answered), remote_addr=(server, self._port)
        )
        try:
            transport.sendto(dns.with_id(message, id_))
            return await answered
        finally:
            transport.close()

    async def _ask_by_tcp(self, server: str, message: bytes, query: dns.Query) -> bytes:
        id_ = secrets.randbelow(1 << 16)
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            question = dns.with_id(message, id_)
            writer.write(struct.pack("!H", len(question)) + question)
            await writer.drain()
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            response = await reader.readexactly(length)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if not dns.answers_to(response, query, id_):
            raise EOFError(f"name server {server} answered something else")
        return response


class _Upstream(asyncio.DatagramProtocol):
    def __init__(self, query: dns.Query, id_: int, answered: asyncio.Future[bytes]) -> None:
        self._query = query
        self._id = id_
        self._answered = answered

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._answered.done() and dns.answers_to(data, self._query, self._id):
            self._answered.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(exc)
