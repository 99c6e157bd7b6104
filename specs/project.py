"""A project: the whole of what a person asked for, validated, resolved and frozen."""

# ruff: noqa: RUF012  # pydantic copies a field's default for every instance

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from specs import canonical as canonical_form
from specs.build import Build, Ulimit
from specs.deploy import Deploy, DeviceRequest, Resource, Resources, UpdateConfig
from specs.lifecycle import Dependency, Develop, Healthcheck, Hook, InitHook, Watch
from specs.mounts import FileReference, ServiceVolume
from specs.resources import AiModel, Config, Ipam, IpamPool, Network, Secret, Volume
from specs.service import EnvFile, Logging, Port, Service, ServiceNetwork
from specs.values import Model

__all__ = [
    "AiModel",
    "Build",
    "Config",
    "Dependency",
    "Deploy",
    "Develop",
    "DeviceRequest",
    "EnvFile",
    "FileReference",
    "Healthcheck",
    "Hook",
    "InitHook",
    "Ipam",
    "IpamPool",
    "Logging",
    "Network",
    "Port",
    "Project",
    "Resource",
    "Resources",
    "Secret",
    "Service",
    "ServiceNetwork",
    "ServiceVolume",
    "Ulimit",
    "UpdateConfig",
    "Volume",
    "Watch",
]


class Project(Model):
    """Services and the resources that they use.

    `services` are the enabled ones; those whose profiles are not active stand in
    `disabled_services`. Resources that no enabled service uses are left out.
    """

    name: str
    working_dir: str
    config_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    services: dict[str, Service] = {}
    networks: dict[str, Network] = {}
    volumes: dict[str, Volume] = {}
    secrets: dict[str, Secret] = {}
    configs: dict[str, Config] = {}
    models: dict[str, AiModel] = {}
    disabled_services: dict[str, Service] = {}

    def canonical(self) -> dict[str, Any]:
        """The project as plain JSON: sorted keys, no defaults, with the form's `version`.

        It holds the values of secrets that come from variables: keep it where secrets may be.
        """
        return canonical_form.dump(self)

    def contents(self) -> dict[str, Any]:
        """Configs and secrets alone, as `canonical()` has them."""
        return self.model_dump(mode="json", exclude_defaults=True, include={"configs", "secrets"})

    @classmethod
    def from_canonical(cls, document: dict[str, Any]) -> Project:
        """The project that `canonical()` made `document` of, in this or an older version.

        Raises CanonicalError for a document of a newer version or of another shape.
        """
        try:
            return cls.model_validate(canonical_form.upgrade(document))
        except ValidationError as exc:
            fault = exc.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(step) for step in fault["loc"])
            raise canonical_form.CanonicalError(
                f"document is not a project: {place}: {fault['msg'].lower()}"
            ) from exc
