"""Top-level resources: networks, volumes, configs, secrets, models.

Source: Compose Specification, the sections of the same names.
"""

# ruff: noqa: RUF012  # pydantic copies a field's default for every instance

from __future__ import annotations

from pydantic import Field

from specs.values import Flag, Integer, Model, TextMap


class IpamPool(Model):
    """An address range of a network, in CIDR notation."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: TextMap = {}


class Ipam(Model):
    """Where a network's addresses come from."""

    driver: str = ""
    config: tuple[IpamPool, ...] = ()
    options: TextMap = {}


class Network(Model):
    """A network; `name` is the real one (`<project>_<key>` unless given)."""

    name: str = ""
    driver: str = ""
    driver_opts: TextMap = {}
    ipam: Ipam = Ipam.model_construct()
    external: Flag = False
    internal: Flag = False
    attachable: Flag = False
    labels: TextMap = {}
    enable_ipv4: Flag | None = None
    enable_ipv6: Flag | None = None


class Volume(Model):
    """A named volume; `name` is the real one (`<project>_<key>` unless given)."""

    name: str = ""
    driver: str = ""
    driver_opts: TextMap = {}
    external: Flag = False
    labels: TextMap = {}


class FileObject(Model):
    """A config or secret: from `file` (absolute path), an `environment` variable, or inline.

    `content` is the value when it does not come from a file; it is never printed for secrets.
    `digest` is the content's "sha256:…", None when the file cannot be read or it is external.
    """

    name: str = ""
    file: str = ""
    environment: str = ""
    content: str | None = Field(default=None, repr=False)
    external: Flag = False
    labels: TextMap = {}
    driver: str = ""
    driver_opts: TextMap = {}
    template_driver: str = ""
    digest: str | None = None


class Config(FileObject):
    """A config: settings that a service reads from a file."""


class Secret(FileObject):
    """A secret: as a config, but its value is kept out of every output."""


class AiModel(Model):
    """A model that services are connected to; `context_size` in tokens."""

    name: str = ""
    model: str = ""
    context_size: Integer = 0
    runtime_flags: tuple[str, ...] = ()
