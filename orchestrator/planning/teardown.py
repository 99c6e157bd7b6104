"""The plan of `down`: stop in reverse dependency order, remove, and leave nothing that is not
asked to stay."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.planning.actions import (
    Cause,
    RemoveContainer,
    RemoveImage,
    RemoveNetwork,
    RemoveVolume,
    StopContainer,
)
from orchestrator.planning.blueprint import image_reference
from orchestrator.planning.draft import dependencies
from orchestrator.planning.errors import UnknownService
from orchestrator.planning.graph import DependencyGraph
from orchestrator.planning.hooks import with_hooks
from orchestrator.planning.observed import Observed, ObservedContainer, Spec
from orchestrator.planning.plan import Plan, PlanBuilder
from orchestrator.planning.policy import Removal
from orchestrator.planning.reconcile import orphans
from specs.project import Project

_DOWN = Cause(reason="the project goes down")


def tear_down(
    name: str, project: Project | None, observed: Observed, removal: Removal, now: float
) -> Plan:
    """Plan how the project goes away.

    Without `project` (its files are not at hand) everything on record goes. Named volumes and
    images stay unless `removal` says otherwise; what is external always stays.
    """
    builder = PlanBuilder(name)
    containers = _chosen(builder, project, observed, removal)
    removed = _plan_containers(builder, containers, removal)
    remaining = [c for c in observed.containers if c.name not in removed]
    _plan_networks(builder, name, observed, remaining, removed, containers)
    if removal.volumes and not removal.services:
        _plan_volumes(builder, name, observed, remaining, removed)
    if removal.images is not None:
        _plan_images(builder, name, containers, observed, removal, remaining, removed)
    return with_hooks(builder.build(), observed)


def stored_graph(blueprints: Iterable[Spec]) -> DependencyGraph:
    """The dependency graph as the blueprints stored with containers tell it."""
    graph: dict[str, set[str]] = {}
    for blueprint in blueprints:
        service = blueprint["service"]
        needs = graph.setdefault(service["name"], set())
        needs.update(dependencies(service))
        needs.discard(service["name"])
    return DependencyGraph(graph)


def _chosen(
    builder: PlanBuilder, project: Project | None, observed: Observed, removal: Removal
) -> list[ObservedContainer]:
    containers = list(observed.containers)
    if removal.services:
        known = {c.service for c in containers}
        if project is not None:
            known |= {*project.services, *project.disabled_services}
        for service in removal.services:
            if service not in known:
                raise UnknownService(service, known)
        return [c for c in containers if c.service in removal.services]
    if project is None or removal.remove_orphans:
        return containers
    own, foreign = orphans(project, containers)
    left = {c.name for c in (*own, *foreign)}
    if left:
        builder.note(
            f"orphans, whose services are not in the project: {', '.join(sorted(left))}; "
            "--remove-orphans removes them"
        )
    return [c for c in containers if c.name not in left]


def _plan_containers(
    builder: PlanBuilder, containers: list[ObservedContainer], removal: Removal
) -> dict[str, int]:
    stops: dict[str, list[int]] = {}
    removed: dict[str, int] = {}
    graph = stored_graph(c.spec for c in containers)
    for service in graph.reverse():
        # Dependents end first; one that cannot be stopped does not keep the others up.
        ended = [step for name in graph.dependents(service) for step in stops.get(name, ())]
        replicas = [c for c in containers if c.service == service]
        for container in sorted(replicas, key=lambda c: (c.oneoff, c.number, c.name)):
            after = []
            if container.alive:
                after.append(
                    builder.add(
                        StopContainer(
                            name=container.name,
                            service=service,
                            cause=_DOWN,
                            timeout=removal.timeout,
                        ),
                        ordered=ended,
                    )
                )
                stops.setdefault(service, []).extend(after)
            removed[container.name] = builder.add(
                RemoveContainer(
                    name=container.name, service=service, cause=_DOWN, volumes=removal.volumes
                ),
                after=after,
            )
    return removed


def _plan_networks(
    builder: PlanBuilder,
    project: str,
    observed: Observed,
    remaining: list[ObservedContainer],
    removed: dict[str, int],
    containers: list[ObservedContainer],
) -> None:
    for name, network in sorted(observed.networks.items()):
        if network.project != project:
            continue
        users = sorted(
            [
                *(c.name for c in remaining if name in c.spec["networks"].values()),
                *observed.elsewhere.get(name, ()),
            ]
        )
        if users:
            builder.note(f"network {name} stays, as it is in use by {', '.join(users)}")
            continue
        builder.add(
            RemoveNetwork(name=name, cause=_DOWN),
            after=[removed[c.name] for c in containers if name in c.spec["networks"].values()],
        )


def _plan_volumes(
    builder: PlanBuilder,
    project: str,
    observed: Observed,
    remaining: list[ObservedContainer],
    removed: dict[str, int],
) -> None:
    for name, volume in sorted(observed.volumes.items()):
        if volume.project != project:
            continue
        users = sorted(
            c.name
            for c in remaining
            if name in c.spec["volumes"].values() or name in c.anonymous.values()
        )
        if users:
            builder.note(f"volume {name} stays, as it is in use by {', '.join(users)}")
            continue
        builder.add(
            RemoveVolume(name=name, cause=Cause(reason="its removal was asked for")),
            after=removed.values(),
        )


def _plan_images(
    builder: PlanBuilder,
    project: str,
    containers: list[ObservedContainer],
    observed: Observed,
    removal: Removal,
    remaining: list[ObservedContainer],
    removed: dict[str, int],
) -> None:
    kept = {image_reference(project, c.spec["service"]) for c in remaining}
    references = set()
    for container in containers:
        service = container.spec["service"]
        if removal.images == "all" or not service.get("image"):
            references.add(image_reference(project, service))
    for reference in sorted((references & observed.images.keys()) - kept):
        builder.add(
            RemoveImage(name=reference, cause=Cause(reason="its removal was asked for")),
            after=removed.values(),
        )
