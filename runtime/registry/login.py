"""Logging in and out: credentials are tried before they are kept.

Source: docker docs "docker login", "docker logout".
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from runtime.errors import ImageError
from runtime.images.reference import DEFAULT_DOMAIN, Reference
from runtime.registry.client import RegistryClient
from runtime.registry.credentials import erase_credentials, store_credentials
from runtime.registry.endpoints import Credentials, RegistryConfig, endpoint_of
from runtime.registry.errors import AccessDenied, RegistryError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """Where one is logged in now, and where that is kept; `encrypted` where a helper keeps it."""

    registry: str
    kept_in: str
    encrypted: bool


def registry_domain(server: str) -> str:
    """The domain in what people give to `login`: a host, perhaps with scheme and path."""
    bare = server.strip().removeprefix("https://").removeprefix("http://").partition("/")[0]
    if not bare:
        return DEFAULT_DOMAIN
    try:
        domain = Reference.parse(f"{bare}/x").domain
    except ImageError as exc:
        raise RegistryError(f"{server!r} is not a registry") from exc
    if domain != bare and domain == DEFAULT_DOMAIN and bare != f"index.{DEFAULT_DOMAIN}":
        raise RegistryError(
            f"{server!r} is not a registry", hint="give its host, with its port where it has one"
        )
    return domain


async def login(
    server: str, username: str, password: str, config: RegistryConfig | None = None
) -> LoggedIn:
    """Try a user's password at a registry and keep it; raises AccessDenied where it is wrong."""
    config = config or RegistryConfig()
    domain = registry_domain(server)
    if not username or not password:
        raise AccessDenied(f"log in to {domain}: user name and password must not be empty")
    if ":" in username or "\n" in username + password:
        raise AccessDenied(f"log in to {domain}: the user name or password cannot be sent")
    given = Credentials(username=username, password=password)
    trial = dataclasses.replace(config, credentials={**config.credentials, domain: given})
    endpoint = endpoint_of(domain, trial)
    async with RegistryClient(trial) as client:
        try:
            async with client.request(
                endpoint, "GET", await client.base(endpoint), what=f"log in to {domain}"
            ):
                pass
        except AccessDenied as exc:
            exc.hint = "check the user name and the password"
            raise
        token = client.authoriser.refresh_tokens.get(domain)
    if token:
        given = Credentials(username=username, identity_token=token)
    place = await store_credentials(domain, given, config)
    return LoggedIn(registry=domain, kept_in=place, encrypted=not place.endswith("config.json"))


async def logout(server: str, config: RegistryConfig | None = None) -> bool:
    """Forget what is kept for a registry; True where there was something."""
    return await erase_credentials(registry_domain(server), config or RegistryConfig())
