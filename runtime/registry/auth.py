"""Challenges and tokens: how a registry is told who asks.

Source: distribution docs "Token Authentication Specification" and "OAuth2 Token
Authentication", RFC 7235 (challenges), RFC 7617 (Basic).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from runtime.registry.credentials import find_credentials
from runtime.registry.endpoints import Credentials, Endpoint, RegistryConfig, endpoint_of
from runtime.registry.errors import AccessDenied, RegistryError, Unreachable, refusal
from runtime.registry.proxies import proxy_for

CLIENT = "bayplan"
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s+|\Z)(?!\s*=)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_DEFAULT_SECONDS = 60  # "If omitted, this defaults to 60 seconds."
_MARGIN = 10.0
_LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One challenge of a `WWW-Authenticate` header; `scheme` in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges of all `WWW-Authenticate` headers; what cannot be read is left out."""
    found = []
    for header in headers:
        position = 0
        while match := _SCHEME.match(header, position):
            position = match.end()
            parameters: dict[str, str] = {}
            while given := _PARAMETER.match(header, position):
                quoted, plain = given[2], given[3]
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                parameters[given[1].lower()] = value
                position = given.end()
            found.append(Challenge(scheme=match[1].lower(), parameters=parameters))
    return tuple(found)


def basic(username: str, password: str) -> str:
    """The value of an `Authorization` header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    expires_at: float


class Authoriser:
    """What one client has learned: who challenges how, and which tokens it was given."""

    def __init__(
        self,
        config: RegistryConfig,
        session: aiohttp.ClientSession,
        tls: Callable[[Endpoint], ssl.SSLContext],
    ) -> None:
        self._config = config
        self._session = session
        self._tls = tls
        self._challenges: dict[str, Challenge] = {}
        self._tokens: dict[tuple[str, frozenset[str]], _Token] = {}
        self._credentials: dict[str, Credentials | None] = {}
        self._locks: dict[tuple[str, frozenset[str]], asyncio.Lock] = {}
        self.refresh_tokens: dict[str, str] = {}

    async def credentials(self, domain: str) -> Credentials | None:
        if domain not in self._credentials:
            self._credentials[domain] = await find_credentials(domain, self._config)
        return self._credentials[domain]

    def learn(self, endpoint: Endpoint, headers: Iterable[str]) -> bool:
        """Take a 401's challenges; False where there is none that we can answer."""
        known = parse_challenges(headers)
        for scheme in ("bearer", "basic"):
            for challenge in known:
                if challenge.scheme == scheme:
                    self._challenges[endpoint.host] = challenge
                    return True
        return False

    def forget(self, endpoint: Endpoint, scopes: frozenset[str], refused: str | None) -> None:
        """A token was refused: fetch another one next time, unless there is one by now."""
        key = (endpoint.host, scopes)
        token = self._tokens.get(key)
        if token is not None and f"Bearer {token.value}" == refused:
            del self._tokens[key]

    async def authorisation(self, endpoint: Endpoint, scopes: frozenset[str]) -> str | None:
        """The `Authorization` header for a request, None where nobody has asked for one."""
        challenge = self._challenges.get(endpoint.host)
        if challenge is None:
            return None
        credentials = await self.credentials(endpoint.domain)
        if challenge.scheme == "basic":
            if credentials is None or not credentials.username:
                return None
            return basic(credentials.username, credentials.password)
        if credentials is not None and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        key = (endpoint.host, scopes)
        async with self._locks.setdefault(key, asyncio.Lock()):
            token = self._tokens.get(key)
            if token is None or token.expires_at <= time.monotonic():
                token = await self._fetch(endpoint, challenge, scopes, credentials)
                self._tokens[key] = token
        return f"Bearer {token.value}"

    async def _fetch(
        self,
        endpoint: Endpoint,
        challenge: Challenge,
        scopes: frozenset[str],
        credentials: Credentials | None,
    ) -> _Token:
        realm = self._realm(endpoint, challenge)
        service = challenge.parameters.get("service", "")
        wanted = sorted(scopes) or challenge.parameters.get("scope", "").split()
        query: list[tuple[str, str]] = [("service", service)] if service else []
        what = f"get a token for {endpoint.domain}"
        hint = (
            f"log in: bay login {endpoint.domain}"
            if credentials is None
            else "check the user name and the password"
        )
        tls = self._tls(endpoint_of(realm.host_port_subcomponent or "", self._config))
        if credentials is not None and credentials.identity_token:
            form = [
                *query,
                ("grant_type", "refresh_token"),
                ("refresh_token", credentials.identity_token),
                ("client_id", CLIENT),
                ("scope", " ".join(wanted)),
            ]
            document = await self._ask(what, hint, "POST", realm, tls, data=dict(form))
        else:
            headers = {}
            query += [("scope", scope) for scope in wanted]
            if credentials is not None and credentials.username:
                query += [
                    ("account", credentials.username),
                    ("client_id", CLIENT),
                    ("offline_token", "true"),
                ]
                headers["Authorization"] = basic(credentials.username, credentials.password)
            url = realm.extend_query(query)
            document = await self._ask(what, hint, "GET", url, tls, headers=headers)
        value = document.get("token") or document.get("access_token")
        if not isinstance(value, str) or not value or not value.isascii() or "\n" in value:
            raise RegistryError(f"{what}: the answer holds no token")
        if isinstance(document.get("refresh_token"), str):
            self.refresh_tokens[endpoint.domain] = document["refresh_token"]
        seconds = document.get("expires_in")
        lasts = seconds if isinstance(seconds, int) and seconds > 0 else _DEFAULT_SECONDS
        margin = min(_MARGIN, lasts / 2)
        return _Token(value=value, expires_at=time.monotonic() + lasts - margin)

    def _realm(self, endpoint: Endpoint, challenge: Challenge) -> URL:
        text = challenge.parameters.get("realm", "")
        try:
            realm = URL(text)
            if realm.scheme not in ("http", "https") or not realm.host:
                raise ValueError(text)
        except ValueError as exc:
            raise RegistryError(f"{endpoint.domain} names no usable token service") from exc
        # A password never leaves in the clear because a registry says so.
        if realm.scheme == "http" and endpoint.verify:
            raise RegistryError(f"{endpoint.domain} names a token service without TLS: {realm}")
        return realm

    async def _ask(
        self, what: str, hint: str, method: str, url: URL, tls: ssl.SSLContext, **given: Any
    ) -> dict[str, Any]:
        try:
            async with self._session.request(
                method,
                url,
                allow_redirects=False,
                ssl=tls,
                proxy=proxy_for(url, self._config),
                **given,
            ) as response:
                body = await response.content.read(_LARGEST)
                while not response.content.at_eof() and len(body) < _LARGEST:
                    body += await response.content.read(_LARGEST - len(body))
                status, headers = response.status, response.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Unreachable(f"{what}: {url.host} cannot be reached") from exc
        if status in (400, 401, 403):
            raise AccessDenied(
                str(refusal(what, status, body, headers)),
                status=status,
                hint=hint,
            )
        if status != 200:
            raise refusal(what, status, body, headers)
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(body)
            if isinstance(document, dict):
                return document
        raise RegistryError(f"{what}: the answer is not a JSON object")
