"""What the parts of one reconciliation share: the inputs, and the steps drafted so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.planning.blueprint import (
    blueprints,
    image_content,
    image_reference,
    mounted_references,
)
from orchestrator.planning.errors import ServiceDisabled, UnknownService
from orchestrator.planning.graph import DependencyGraph
from orchestrator.planning.observed import Observed, Spec
from orchestrator.planning.plan import PlanBuilder
from orchestrator.planning.policy import Policy
from specs.project import Project


@dataclass(slots=True, kw_only=True)
class Draft:
    """The steps of images, networks and volumes are kept by the resource's name, so that what
    needs a resource can wait for it; `displaced` has, by service, the steps that remove what has
    its name or its ports."""

    project: Project
    canonical: Mapping[str, Any]
    blueprints: Mapping[str, Spec]
    graph: DependencyGraph
    selected: frozenset[str]
    observed: Observed
    policy: Policy
    now: float
    builder: PlanBuilder
    image_steps: dict[str, int] = field(default_factory=dict)
    network_steps: dict[str, int] = field(default_factory=dict)
    volume_steps: dict[str, int] = field(default_factory=dict)
    displaced: dict[str, list[int]] = field(default_factory=dict)

    def service(self, name: str) -> Mapping[str, Any]:
        service: Mapping[str, Any] = self.blueprints[name]["service"]
        return service

    def image(self, name: str) -> str:
        """What the service runs: a reference, or the id of an image that is pinned."""
        pin = self.policy.pins.get(name)
        return pin.image if pin else image_reference(self.project.name, self.service(name))

    def needed_images(self, name: str) -> list[int]:
        """The steps that bring what the service runs and mounts of images."""
        references = {self.image(name), *self.mounted(name).values()}
        return sorted(self.image_steps[r] for r in references if r in self.image_steps)

    def mounted(self, name: str) -> dict[str, str]:
        """The images that the service mounts, by target: references, or ids of pinned ones."""
        pin = self.policy.pins.get(name)
        return mounted_references(self.service(name)) | (dict(pin.mounted) if pin else {})

    @property
    def services(self) -> tuple[str, ...]:
        """The selected services, each after what it depends on."""
        return tuple(name for name in self.graph if name in self.selected)

    def unused(self, kind: str) -> dict[str, str]:
        """Networks or volumes that are to be there though no service uses them, as {key: real
        name}; also those that one does."""
        if not self.policy.all_resources:
            return {}
        defined: Mapping[str, Mapping[str, Any]] = self.canonical.get(kind) or {}
        return {key: str(spec.get("name") or key) for key, spec in defined.items()}

    def users(self, kind: str, name: str) -> tuple[str, ...]:
        """The selected services that use the network or volume of this real name."""
        return tuple(s for s in self.services if name in self.blueprints[s][kind].values())


def begin(project: Project, observed: Observed, policy: Policy, now: float) -> Draft:
    """Select the services of the run; raises UnknownService, ServiceDisabled, DependencyCycle."""
    canonical = project.canonical()
    specs = blueprints(canonical, observed.images)
    for name, pin in policy.pins.items():
        ids = {image_content(target): id for target, id in pin.mounted.items()}
        specs[name] = {**specs[name], "contents": {**specs[name]["contents"], **ids}}
    for name in (*policy.services, *policy.scale):
        if name not in specs:
            raise UnknownService(name, specs)
    graph = DependencyGraph({name: dependencies(spec["service"]) for name, spec in specs.items()})
    selected: Iterable[str] = policy.services or specs
    if policy.dependencies:
        selected = graph.with_dependencies(selected)
        for name in sorted(selected):
            for dependency, terms in dependencies(specs[name]["service"]).items():
                if dependency not in specs and terms.get("required", True):
                    raise ServiceDisabled(name, dependency)
    if policy.dependents:
        selected = frozenset(selected) | _restarting(specs, selected, observed)
    return Draft(
        project=project,
        canonical=canonical,
        blueprints=specs,
        graph=graph,
        selected=frozenset(selected),
        observed=observed,
        policy=policy,
        now=now,
        builder=PlanBuilder(project.name),
    )


def _restarting(
    specs: Mapping[str, Mapping[str, Any]], services: Iterable[str], observed: Observed
) -> frozenset[str]:
    """What runs and depends on `services`, directly or not, with `restart: true`."""
    needs = {
        name: {
            needed
            for needed, terms in dependencies(spec["service"]).items()
            if terms.get("restart")
        }
        for name, spec in specs.items()
        if any(container.alive for container in observed.of_service(name))
    }
    taken = set(services)
    while found := {name for name in needs if name not in taken and needs[name] & taken}:
        taken |= found
    return frozenset(taken)


def dependencies(service: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """A canonical service's depends_on: {service: {condition, required, restart}}."""
    declared: Mapping[str, Mapping[str, Any]] = service.get("depends_on") or {}
    return declared


def namespace_parents(service: Mapping[str, Any]) -> dict[str, str]:
    """The services whose namespaces or volumes this one shares: {service: what is shared}."""
    parents: dict[str, str] = {}
    for attribute, shared in (
        ("network_mode", "network"),
        ("ipc", "ipc namespace"),
        ("pid", "pid namespace"),
    ):
        kind, _, name = str(service.get(attribute) or "").partition(":")
        if kind == "service" and name:
            parents.setdefault(name, shared)
    for source in service.get("volumes_from") or ():
        name = str(source).partition(":")[0]
        if name != "container":
            parents.setdefault(name, "volumes")
    return parents
