"""The host's own settings for registries: which are insecure, which have mirrors.

`/etc/bayplan/registries.toml`:

    insecure = ["registry.lan:5000", "10.0.0.0/8"]

    [mirrors]
    "docker.io" = ["https://mirror.lan"]
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

from runtime.errors import ImageError
from runtime.images.reference import Reference
from runtime.registry.endpoints import RegistryConfig, endpoint_of_url
from runtime.registry.errors import RegistryError

SETTINGS = Path("/etc/bayplan/registries.toml")
_KNOWN = frozenset({"insecure", "mirrors"})


def read_settings(path: Path = SETTINGS, base: RegistryConfig | None = None) -> RegistryConfig:
    """`base` with the settings of a file; without the file, `base` as it is.

    Raises RegistryError that names the file and what is wrong in it.
    """
    base = base or RegistryConfig()
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        return base
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise RegistryError(f"read {path}") from exc
    unknown = sorted(document.keys() - _KNOWN)
    if unknown:
        raise RegistryError(f"{path}: unknown setting {unknown[0]!r}")
    insecure = _texts(document.get("insecure", []), f"{path}: insecure")
    mirrors = document.get("mirrors", {})
    if not isinstance(mirrors, dict):
        raise RegistryError(f"{path}: mirrors must be a table of domains")
    known: dict[str, tuple[str, ...]] = {}
    for domain, urls in mirrors.items():
        where = f"{path}: mirrors of {domain}"
        try:
            fits = Reference.parse(f"{domain}/a/b").domain == domain
        except ImageError:
            fits = False
        if not fits:
            raise RegistryError(f"{where}: that is not the domain of a registry")
        known[domain] = _texts(urls, where)
        for url in known[domain]:
            endpoint_of_url(url, base, mirror=True)
    return dataclasses.replace(
        base, insecure=(*base.insecure, *insecure), mirrors={**base.mirrors, **known}
    )


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RegistryError(f"{where} must be a list of texts")
    return tuple(value)
