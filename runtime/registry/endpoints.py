"""Which host serves a reference, and how it is spoken to.

Docker's conventions: `docker.io` is served by a host of another name; addresses of this
machine and registries called insecure are tried with unverified TLS, then without TLS;
`certs.d/<host[:port]>/` holds a registry's own authorities (`*.crt`) and client
certificates (`*.cert` with `*.key`).
Source: moby registry/config.go, docs "Verify repository client with certificates".
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.images.reference import DEFAULT_DOMAIN, Reference
from runtime.registry.errors import RegistryError

_DEFAULT_HOST = f"registry-1.{DEFAULT_DOMAIN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a registry knows somebody by: a password, an identity token, or a bearer token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """How registries are reached.

    `mirrors` maps a domain to base URLs that are asked first when pulling; a path in such a
    URL goes before the repository's name. `insecure` are `host[:port]` or networks in CIDR
    notation. `docker_config` is the directory with config.json (None: `$DOCKER_CONFIG`, then
    `~/.docker`). `credentials`, by domain, come before those of config.json. Times in
    seconds, `chunk_size` in bytes (None: a blob is sent in one request).
    """

    insecure: tuple[str, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    certificates: tuple[Path, ...] = (Path("/etc/bayplan/certs.d"), Path("/etc/docker/certs.d"))
    docker_config: Path | None = None
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    downloads: int = 3
    uploads: int = 5
    attempts: int = 5
    first_delay: float = 0.5
    longest_delay: float = 30.0
    connect_timeout: float = 15.0
    read_timeout: float = 60.0
    chunk_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One host that may serve a domain.

    `domain` is what credentials and certificates are kept under; `schemes` in the order in
    which they are tried; `prefix` goes before every repository's name.
    """

    domain: str
    host: str
    schemes: tuple[str, ...] = ("https",)
    verify: bool = True
    prefix: str = ""
    mirror: bool = False

    def repository(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path


def endpoint_of(domain: str, config: RegistryConfig) -> Endpoint:
    """The registry of a domain itself."""
    host = _DEFAULT_HOST if domain == DEFAULT_DOMAIN else domain
    if is_insecure(domain, config):
        return Endpoint(domain=domain, host=host, schemes=("https", "http"), verify=False)
    return Endpoint(domain=domain, host=host)


def endpoints_for_pull(reference: Reference, config: RegistryConfig) -> tuple[Endpoint, ...]:
    """The hosts to ask for a reference, in order: its domain's mirrors, then the domain."""
    urls = config.mirrors.get(reference.domain, ())
    mirrors = tuple(endpoint_of_url(url, config, mirror=True) for url in urls)
    return (*mirrors, endpoint_of(reference.domain, config))


def endpoint_of_url(url: str, config: RegistryConfig, *, mirror: bool = False) -> Endpoint:
    """The host in a URL; its path goes before the names of repositories."""
    from yarl import URL  # a megabyte, for which a daemon has mostly no use

    try:
        parsed = URL(url)
        host = parsed.host_port_subcomponent or ""
    except ValueError as exc:
        raise RegistryError(f"{url!r} is not the URL of a registry") from exc
    if (
        not host.strip(".")
        or parsed.scheme not in ("http", "https")
        or parsed.user
        or parsed.query_string
    ):
        raise RegistryError(f"{url!r} is not http://host[:port] or https://host[:port]")
    return Endpoint(
        domain=host,
        host=host,
        schemes=(parsed.scheme,),
        # Whoever writes http:// has said that TLS is not needed here.
        verify=parsed.scheme == "https" and not is_insecure(host, config),
        prefix=parsed.path.strip("/"),
        mirror=mirror,
    )


def is_insecure(domain: str, config: RegistryConfig) -> bool:
    """True for this machine's own addresses and for what the configuration calls insecure."""
    host = _host_of(domain)
    if host == "localhost" or domain in config.insecure or host in config.insecure:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    for entry in config.insecure:
        if "/" in entry:
            try:
                network = ipaddress.ip_network(entry, strict=False)
            except ValueError as exc:
                raise RegistryError(f"insecure registry {entry!r} is not a network") from exc
            if address in network:
                return True
    return False


def tls_context(endpoint: Endpoint, config: RegistryConfig) -> ssl.SSLContext:
    """The TLS settings for a host, with its own authorities and client certificate."""
    try:
        context = ssl.create_default_context()
        for directory in _certificate_directories(endpoint.domain, config):
            for path in sorted(directory.glob("*.crt")):
                context.load_verify_locations(path)
            for path in sorted(directory.glob("*.cert")):
                key = path.with_suffix(".key")
                if not key.exists():
                    raise RegistryError(f"client certificate {path} has no key {key}")
                context.load_cert_chain(path, key)
    except (OSError, ssl.SSLError) as exc:
        raise RegistryError(f"read the certificates for {endpoint.domain}") from exc
    if not endpoint.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _certificate_directories(domain: str, config: RegistryConfig) -> list[Path]:
    # A domain has passed the grammar of references, which knows no slash and no dot alone.
    found = (base / domain for base in config.certificates)
    return [directory for directory in found if directory.is_dir()]


def _host_of(domain: str) -> str:
    if domain.startswith("["):
        return domain[1 : domain.find("]")]
    return domain.partition(":")[0]
