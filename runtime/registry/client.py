"""Requests to registries: where they go, who asks, redirects, retries, errors.

aiohttp is the HTTP library: a cancelled task ends its request at once, as befits a daemon on
asyncio, and bodies stream both ways. Its loopback throughput (some hundreds of MB/s to
1.9 GB/s) is below urllib3's, but about what one core's SHA-256 and a disk take, and several
blobs travel at once.

Redirects are followed here and not by the library: a request's authorisation goes to the
host that it was made for and to no other (CVE-2020-15157), and TLS is never left.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from runtime.registry.auth import CLIENT, Authoriser
from runtime.registry.endpoints import (
    Endpoint,
    RegistryConfig,
    endpoint_of,
    tls_context,
)
from runtime.registry.errors import AccessDenied, RegistryError, Unreachable, printable, refusal
from runtime.registry.proxies import proxy_for

_log = logging.getLogger(__name__)
_REDIRECTS = 10
_WARNING = re.compile(r'299 - "(.*)"\Z')
_MOST_WARNINGS = 20
_LARGEST_REFUSAL = 64 * 1024
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_RETRY_AFTER = 60.0
_NO_SCOPES: frozenset[str] = frozenset()
BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError, EOFError)
"""What a connection that fails or breaks raises."""


def broken_by(exc: BaseException) -> str:
    """Why a connection failed, in the system's own words where there are any."""
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    cause = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return printable(reason[:1].lower() + reason[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request's body, which can be produced again for another attempt; `length` in bytes."""

    pieces: Callable[[], AsyncIterator[bytes] | bytes]
    length: int
    media_type: str = "application/octet-stream"


class RegistryClient:
    """Connections to registries; use it in an `async with` block, from one event loop."""

    def __init__(self, config: RegistryConfig | None = None) -> None:
        self.config = config or RegistryConfig()
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._bases: dict[Endpoint, URL] = {}
        self._probes: dict[Endpoint, asyncio.Lock] = {}
        self.warnings: list[str] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Digests are of the bytes as they are, so nobody may compress them on the way.
            headers={"User-Agent": CLIENT, "Accept-Encoding": "identity"},
            read_bufsize=1024 * 1024,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=self.config.connect_timeout,
                sock_read=self.config.read_timeout,
            ),
        )
        self.authoriser = Authoriser(self.config, self._session, self.tls)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    def tls(self, endpoint: Endpoint) -> ssl.SSLContext:
        key = (endpoint.domain, endpoint.verify)
        if key not in self._contexts:
            self._contexts[key] = tls_context(endpoint, self.config)
        return self._contexts[key]

    def _tls_for(self, url: URL, endpoint: Endpoint) -> ssl.SSLContext:
        """A host's own settings: those of the registry that redirects to it are not for it."""
        host = url.host_port_subcomponent or ""
        if host == endpoint.host.removesuffix(":443"):
            return self.tls(endpoint)
        return self.tls(endpoint_of(host, self.config))

    async def base(self, endpoint: Endpoint) -> URL:
        """`https://host/v2/`, found out and asked for its challenge the first time.

        Raises Unreachable.
        """
        async with self._probes.setdefault(endpoint, asyncio.Lock()):
            attempt = 0
            while endpoint not in self._bases:
                attempt += 1
                try:
                    self._bases[endpoint] = await self._probe(endpoint)
                except BROKEN as exc:
                    if attempt >= self.config.attempts:
                        raise Unreachable(
                            f"{endpoint.host} cannot be reached: {broken_by(exc)}"
                        ) from None
                    await self.pause(attempt)
        return self._bases[endpoint]

    @contextlib.asynccontextmanager
    async def request(
        self,
        endpoint: Endpoint,
        method: str,
        url: URL,
        *,
        scopes: frozenset[str] = _NO_SCOPES,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        expect: tuple[int, ...] = (200,),
        what: str,
        attempts: int | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to one request, its body not read yet.

        Connections that break and answers that ask to come again are retried with growing
        delays. Raises Unreachable, AccessDenied, or RegistryError for a status that is not
        in `expect`; `what` says in their messages what was attempted.
        """
        limit = attempts or self.config.attempts
        for attempt in range(1, limit + 1):
            try:
                response = await self._authorised(endpoint, method, url, scopes, headers, body)
            except BROKEN as exc:
                if attempt == limit:
                    raise Unreachable(
                        f"{what}: {endpoint.host} cannot be reached: {broken_by(exc)}"
                    ) from None
                _log.debug("%s: attempt %d: %r", what, attempt, exc)
                await self.pause(attempt)
                continue
            if response.status in _AGAIN and response.status not in expect and attempt < limit:
                wait = response.headers.get("Retry-After", "")
                response.close()
                await self.pause(attempt, float(wait) if wait.isdecimal() else 0.0)
                continue
            break
        try:
            if response.status not in expect:
                raise await self._refused(endpoint, what, response)
            self._note_warnings(endpoint, response)
            yield response
        finally:
            response.release()

    def _note_warnings(self, endpoint: Endpoint, response: aiohttp.ClientResponse) -> None:
        """Keep what a registry wants its users to read (distribution-spec "Warnings")."""
        for header in response.headers.getall("Warning", []):
            match = _WARNING.match(header)
            if match is not None:
                text = f"{endpoint.host}: {printable(match[1])}"
                if text not in self.warnings and len(self.warnings) < _MOST_WARNINGS:
                    self.warnings.append(text)

    async def pause(self, attempt: int, at_least: float = 0.0) -> None:
        """Wait before the next attempt: doubling, with a random part."""
        delay = min(self.config.first_delay * 2 ** (attempt - 1), self.config.longest_delay)
        delay *= 0.5 + random.random() / 2
        await asyncio.sleep(max(delay, min(at_least, _LONGEST_RETRY_AFTER)))

    async def _authorised(
        self,
        endpoint: Endpoint,
        method: str,
        url: URL,
        scopes: frozenset[str],
        headers: Mapping[str, str] | None,
        body: Body | None,
    ) -> aiohttp.ClientResponse:
        base = await self.base(endpoint)
        ours = url.origin() == base.origin()
        for last in (False, True):
            given = dict(headers or {})
            authorisation = await self.authoriser.authorisation(endpoint, scopes) if ours else None
            if authorisation is not None:
                given["Authorization"] = authorisation
            response = await self._followed(endpoint, method, url, given, body)
            if response.status != 401 or last or response.url.origin() != base.origin():
                return response
            challenges = response.headers.getall("WWW-Authenticate", [])
            if not self.authoriser.learn(endpoint, challenges):
                return response
            self.authoriser.forget(endpoint, scopes, authorisation)
            if await self.authoriser.authorisation(endpoint, scopes) == authorisation:
                return response  # nothing new to offer
            response.close()
        raise AssertionError("unreachable")

    async def _followed(
        self,
        endpoint: Endpoint,
        method: str,
        url: URL,
        headers: dict[str, str],
        body: Body | None,
    ) -> aiohttp.ClientResponse:
        for _step in range(_REDIRECTS):
            response = await self._send(endpoint, method, url, headers, body)
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            if method not in ("GET", "HEAD") and response.status not in (307, 308):
                return response
            response.close()
            url = self.target(endpoint, url, location)
            if url.origin() != response.url.origin():
                headers.pop("Authorization", None)
        raise RegistryError(f"{endpoint.host} redirects more than {_REDIRECTS} times")

    def target(self, endpoint: Endpoint, url: URL, location: str) -> URL:
        """Where a `Location` header leads; leaving TLS is refused."""
        try:
            target = url.join(URL(location, encoded=True))
            usable = target.scheme in ("http", "https") and bool(target.host)
        except ValueError:
            usable = False
        if not usable:
            raise RegistryError(f"{endpoint.host} answers with a Location that is no URL")
        if url.scheme == "https" and target.scheme == "http" and endpoint.verify:
            raise RegistryError(f"{endpoint.host} redirects to {target.host} without TLS")
        return target

    async def _send(
        self,
        endpoint: Endpoint,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: Body | None,
    ) -> aiohttp.ClientResponse:
        given = dict(headers)
        data: AsyncIterator[bytes] | bytes | io.BytesIO | None = None
        if body is not None:
            data = body.pieces()
            if isinstance(data, bytes):
                data = io.BytesIO(data)  # is sent in pieces
            given["Content-Length"] = str(body.length)
            given.setdefault("Content-Type", body.media_type)
        tls = self._tls_for(url, endpoint) if url.scheme == "https" else True
        return await self._session.request(
            method,
            url,
            headers=given,
            data=data,
            allow_redirects=False,
            ssl=tls,
            proxy=proxy_for(url, self.config),
        )

    async def _probe(self, endpoint: Endpoint) -> URL:
        """Find the scheme that the host speaks (`GET /v2/`), and its challenge."""
        for left, scheme in zip(range(len(endpoint.schemes), 0, -1), endpoint.schemes, strict=True):
            base = URL(f"{scheme}://{endpoint.host}/v2/")
            try:
                response = await self._send(endpoint, "GET", base, {}, None)
            except BROKEN as exc:
                if left > 1:
                    continue
                if isinstance(exc, aiohttp.ClientConnectorCertificateError):
                    raise Unreachable(
                        f"the certificate of {endpoint.host} is not trusted",
                        hint="put its authority into "
                        f"/etc/bayplan/certs.d/{endpoint.domain}/ca.crt",
                    ) from exc
                if isinstance(exc, aiohttp.ClientConnectorSSLError):
                    raise Unreachable(
                        f"{endpoint.host} does not speak TLS",
                        hint="call it insecure if it is meant to be spoken to without TLS",
                    ) from exc
                raise
            response.close()
            if response.status == 401:
                self.authoriser.learn(endpoint, response.headers.getall("WWW-Authenticate", []))
            return base
        raise AssertionError("an endpoint has at least one scheme")

    async def _refused(
        self, endpoint: Endpoint, what: str, response: aiohttp.ClientResponse
    ) -> RegistryError:
        content = b""
        with contextlib.suppress(*BROKEN):
            content = await read_bounded(response, _LARGEST_REFUSAL)
        headers: CIMultiDictProxy[str] = response.headers
        error = refusal(what, response.status, content, headers)
        if isinstance(error, AccessDenied):
            known = await self.authoriser.credentials(endpoint.domain)
            error.hint = (
                f"log in: bay login {endpoint.domain}"
                if known is None
                else "the credentials kept for it do not allow this"
            )
        return error


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """A body of at most `limit` bytes; what is longer is cut at `limit` + 1."""
    pieces: list[bytes] = []
    length = 0
    while length <= limit:
        piece = await response.content.read(limit + 1 - length)
        if not piece:
            break
        pieces.append(piece)
        length += len(piece)
    return b"".join(pieces)
