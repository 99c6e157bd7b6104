"""Which part of a project is meant: profiles, named services, and the resources they use."""

from __future__ import annotations

from collections.abc import Iterable

from specs.errors import SpecError, SpecIssue
from specs.project import Project, Service
from specs.schema import suggest


def with_profiles(project: Project, profiles: Iterable[str]) -> Project:
    """Enables the services without profiles and those of an active one (`*`: all)."""
    active = tuple(dict.fromkeys(profile for profile in profiles if profile))
    every = {**project.services, **project.disabled_services}
    enabled = {
        name: service
        for name, service in every.items()
        if not service.profiles or "*" in active or set(service.profiles) & set(active)
    }
    disabled = {name: service for name, service in every.items() if name not in enabled}
    return project.model_copy(
        update={
            "services": dict(sorted(enabled.items())),
            "disabled_services": dict(sorted(disabled.items())),
            "profiles": active,
        }
    )


def with_services(project: Project, names: Iterable[str]) -> Project:
    """Also enables the profiles of the services that are named. Raises SpecError."""
    profiles = list(project.profiles)
    for name in names:
        _known(project, name)
        if name not in project.services:
            profiles += project.disabled_services[name].profiles
    return with_profiles(project, profiles)


def _known(project: Project, name: str) -> Service:
    service = project.services.get(name) or project.disabled_services.get(name)
    if service is None:
        hint = suggest(name, [*project.services, *project.disabled_services])
        raise SpecError([SpecIssue(message=f'no such service: "{name}"', hint=hint)])
    return service


def without_unused(project: Project) -> Project:
    """Leaves out the networks, volumes, configs, secrets and models of no enabled service."""
    services = project.services.values()
    networks = {name for service in services for name in service.networks}
    volumes = {
        mount.source for service in services for mount in service.volumes if mount.type == "volume"
    }
    configs = {reference.source for service in services for reference in service.configs}
    secrets = {reference.source for service in services for reference in service.secrets}
    for service in services:
        if service.build is not None:
            secrets |= {reference.source for reference in service.build.secrets}
    models = {name for service in services for name in service.models}
    return project.model_copy(
        update={
            "networks": {k: v for k, v in project.networks.items() if k in networks},
            "volumes": {k: v for k, v in project.volumes.items() if k in volumes},
            "configs": {k: v for k, v in project.configs.items() if k in configs},
            "secrets": {k: v for k, v in project.secrets.items() if k in secrets},
            "models": {k: v for k, v in project.models.items() if k in models},
        }
    )


def select(project: Project, names: Iterable[str], *, dependencies: bool = True) -> Project:
    """The project of the named services (all when none is named) and what they depend on.

    The other services move to `disabled_services`; dependencies on them are dropped. A service
    of an inactive profile must have been named to the load too (`LoadOptions.services`), which
    is what keeps its networks, volumes, configs and secrets.
    Raises SpecError for a name that no service has.
    """
    wanted = list(names)
    if not wanted:
        return project
    project = with_services(project, wanted)
    chosen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in chosen or name not in project.services:
            continue
        chosen.add(name)
        if dependencies:
            wanted += project.services[name].depends_on
    services = {}
    disabled = dict(project.disabled_services)
    for name, service in project.services.items():
        if name in chosen:
            kept = {k: v for k, v in service.depends_on.items() if k in chosen}
            services[name] = service.model_copy(update={"depends_on": kept})
        else:
            disabled[name] = service
    return without_unused(
        project.model_copy(
            update={"services": services, "disabled_services": dict(sorted(disabled.items()))}
        )
    )
