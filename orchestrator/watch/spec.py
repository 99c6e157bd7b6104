"""The project that is watched, as it was last read, and the rules that follow from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.engine import build_files
from orchestrator.engine.build_files import BuildError, IgnoreRules
from orchestrator.watch.automatic import derived
from orchestrator.watch.errors import WatchError
from orchestrator.watch.rules import Rules, declared
from orchestrator.watch.service import Order
from specs.project import Project, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A project, and `inputs`: what it was made from (`files` by absolute path). `environ` is what
    builds may know of the person's environment."""

    project: Project
    inputs: dict[str, Any]
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """What a request of the daemon's carries."""
        return {"project": self.project.canonical(), "inputs": self.inputs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Which services are watched (none: all), whether rules are derived for those that declare
    none, and whether those restart."""

    services: tuple[str, ...] = ()
    auto: bool = False
    restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A spec with its rules. `files` are those that both were made from."""

    spec: Spec
    rules: Rules
    files: frozenset[str]

    def order(self, service: str) -> Order:
        project = self.spec.project
        own = project.services[service]
        return Order(
            rules=self.rules.of(service),
            body=self.spec.body,
            environ=self.spec.environ,
            writable=_writable(project),
            left_out=frozenset((*project.config_files, *_build_files(own))),
        )


def course(spec: Spec, wishes: Wishes, working_directory: Callable[[str], str]) -> Course:
    """Raises WatchError where nothing is to be watched, or a rule cannot be followed."""
    project = spec.project
    for name in wishes.services:
        if name not in project.services:
            raise WatchError(f"no such service: {name}")
    services = {
        name: service
        for name, service in project.services.items()
        if not wishes.services or name in wishes.services
    }
    ignored = _ignored(services)
    rules = declared(services, ignored)
    if wishes.auto:
        more = derived(services, ignored, restart=wishes.restart, start=working_directory)
        rules = Rules(rules.rules + more.rules, rules.remarks + more.remarks)
    if not rules.rules:
        raise WatchError(
            "none of the services has anything to watch"
            if not wishes.services
            else f"nothing to watch for {', '.join(wishes.services)}",
            hint="give them a develop section, or let --auto derive rules from their Dockerfiles",
        )
    files = {os.path.normpath(path) for path in spec.inputs.get("files", {})}
    for service in services.values():
        files |= set(_build_files(service))
    files |= {os.path.realpath(path) for path in files}
    return Course(spec=spec, rules=rules, files=frozenset(files))


def _ignored(services: Mapping[str, Service]) -> dict[str, IgnoreRules]:
    found: dict[str, IgnoreRules] = {}
    for name, service in services.items():
        if service.build is not None:
            try:
                found[name] = build_files.ignored(service.build.model_dump())
            except BuildError as exc:
                raise WatchError(f"service {name}: its ignore file cannot be used") from exc
    return found


def _build_files(service: Service) -> tuple[str, ...]:
    """The Dockerfile and the ignore files of a service."""
    if service.build is None:
        return ()
    build = service.build.model_dump()
    dockerfile = build_files.dockerfile_path(build)
    return (*((dockerfile,) if dockerfile else ()), *build_files.ignore_files(build))


def _writable(project: Project) -> tuple[str, ...]:
    """Directories of the host that containers of the project may write to."""
    return tuple(
        sorted(
            {
                os.path.realpath(mount.source)
                for service in project.services.values()
                for mount in service.volumes
                if mount.type == "bind" and mount.source and not mount.read_only
            }
        )
    )
