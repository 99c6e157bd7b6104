"""Builds: what of the project one takes files from, and a plan of builds alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.planning.actions import BuildImage
from orchestrator.planning.blueprint import image_reference
from orchestrator.planning.errors import UnknownService
from orchestrator.planning.graph import DependencyGraph
from orchestrator.planning.plan import Plan, PlanBuilder
from specs.project import Project

_SERVICE = "service:"


def build_bases(service: Mapping[str, Any]) -> tuple[str, ...]:
    """The services whose images the build of this one (canonical) takes files from."""
    contexts: Mapping[str, str] = (service.get("build") or {}).get("additional_contexts") or {}
    return tuple(
        sorted(
            context.removeprefix(_SERVICE)
            for context in contexts.values()
            if context.startswith(_SERVICE)
        )
    )


def build_order(services: Mapping[str, Mapping[str, Any]], chosen: Iterable[str]) -> list[str]:
    """The chosen services that are built, and those that they take files from, each after what
    it needs; raises DependencyCycle."""
    graph = DependencyGraph({name: build_bases(service) for name, service in services.items()})
    wanted = graph.with_dependencies(chosen)
    return [name for name in graph if name in wanted and services[name].get("build")]


def plan_builds(project: Project, chosen: Iterable[str], model: BuildImage) -> Plan:
    """Build these services (none: all that are built) as `model` says.

    Raises UnknownService and DependencyCycle.
    """
    canonical = project.canonical()["services"]
    services = {name: {"name": name, **service} for name, service in canonical.items()}
    for name in chosen:
        if name not in services:
            raise UnknownService(name, services)
    builder = PlanBuilder(project.name)
    steps: dict[str, int] = {}
    for name in build_order(services, chosen or services):
        reference = image_reference(project.name, services[name])
        action = dataclasses.replace(model, name=reference, service=name)
        after = [steps[base] for base in build_bases(services[name]) if base in steps]
        steps[name] = builder.add(action, after=after)
    return builder.build()
