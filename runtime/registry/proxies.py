"""Which HTTP proxy a registry is reached through, by the environment's variables."""

from __future__ import annotations

import contextlib
import ipaddress

from yarl import URL

from runtime.registry.endpoints import RegistryConfig
from runtime.registry.errors import RegistryError


def proxy_for(url: URL, config: RegistryConfig) -> URL | None:
    """The HTTP proxy for a URL, by `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, None for none.

    As Docker does it, this machine's own addresses are never asked by a proxy.
    """
    environ = config.environ
    name = f"{url.scheme}_proxy"
    text = environ.get(name) or environ.get(name.upper())
    host = url.host or ""
    if not text or host == "localhost":
        return None
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return None
    no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if any(_excepted(entry.strip(), host, url.port) for entry in no_proxy.split(",")):
        return None
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
        if proxy.scheme in ("http", "https") and proxy.host:
            return proxy
    except ValueError:
        pass
    raise RegistryError(f"the environment variable {name} is not the URL of a proxy")


def _excepted(entry: str, host: str, port: int | None) -> bool:
    """True where an entry of `NO_PROXY` names the host: itself, its domain, or its network."""
    if entry == "*":
        return True
    if "/" in entry:
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        return False
    name = entry.lower().removesuffix(f":{port}").removeprefix("*").lstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))
