"""Plans for containers that exist: start, stop, restart, kill.

They need no project file: order and conditions come from the blueprints that were stored with
the containers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from orchestrator.planning.actions import (
    Cause,
    KillContainer,
    StartContainer,
    StopContainer,
    WaitContainer,
)
from orchestrator.planning.draft import dependencies
from orchestrator.planning.errors import UnknownService
from orchestrator.planning.graph import DependencyGraph
from orchestrator.planning.hooks import with_hooks
from orchestrator.planning.observed import Observed, ObservedContainer
from orchestrator.planning.plan import Plan, PlanBuilder
from orchestrator.planning.teardown import stored_graph

_ASKED = Cause(reason="asked for")


def stop(project: str, observed: Observed, services: Iterable[str], timeout: float | None) -> Plan:
    """Stop what runs, dependents first; `timeout` in seconds, None for each container's own."""
    builder = PlanBuilder(project)
    _stops(builder, _chosen(observed, services, beside=True), timeout)
    return with_hooks(builder.build(), observed)


def start(
    project: str,
    observed: Observed,
    services: Iterable[str],
    wait: bool = False,
    wait_timeout: float | None = None,
) -> Plan:
    """Start what does not run, dependencies first and on their conditions."""
    builder = PlanBuilder(project)
    chosen = _chosen(observed, services)
    _starts(builder, chosen, {c.name: [] for c in chosen if not c.alive}, wait, wait_timeout)
    return with_hooks(builder.build(), observed)


def restart(
    project: str,
    observed: Observed,
    services: Iterable[str],
    timeout: float | None,
    *,
    dependents: bool = True,
    deaf_timeout: float | None = None,
) -> Plan:
    """Stop and start; what is named and does not run is started, too. With `dependents`, what
    depends on it with `restart: true`, as all do that share a namespace, is taken along.
    `deaf_timeout` is how long one is waited for that does not listen to its stop signal."""
    builder = PlanBuilder(project)
    chosen = _chosen(observed, services)
    if dependents:
        chosen = _with_dependents(observed, chosen)
    stops = _stops(builder, chosen, timeout, deaf_timeout)
    after = {c.name: [stops[c.name]] if c.name in stops else [] for c in chosen}
    _starts(builder, chosen, after, False, None)
    return with_hooks(builder.build(), observed)


def resume(project: str, observed: Observed, names: Collection[str]) -> Plan:
    """Start the containers of these names, on the conditions of their dependencies: what is due
    after a reboot or a crash."""
    builder = PlanBuilder(project)
    after: dict[str, list[int]] = {name: [] for name in sorted(names)}
    cause = Cause(reason="due to run again")
    _starts(builder, _chosen(observed, ()), after, False, None, cause, fresh=False)
    return with_hooks(builder.build(), observed)


def kill(project: str, observed: Observed, services: Iterable[str], signal: str) -> Plan:
    """Send `signal` (a name such as SIGHUP) to every running container, all at once."""
    builder = PlanBuilder(project)
    for container in _chosen(observed, services, beside=True):
        if container.alive:
            builder.add(
                KillContainer(
                    name=container.name,
                    service=container.service,
                    cause=_ASKED,
                    signal=signal,
                )
            )
    return with_hooks(builder.build(), observed)


def _chosen(
    observed: Observed, services: Iterable[str], *, beside: bool = False
) -> list[ObservedContainer]:
    """The containers of the services; `beside` takes those that a rollout keeps, too."""
    known = {c.service for c in observed.containers if not c.oneoff}
    wanted = set(services)
    for service in sorted(wanted):
        if service not in known:
            raise UnknownService(service, known)
    return sorted(
        (
            c
            for c in observed.containers
            if not c.oneoff
            and (not wanted or c.service in wanted)
            and (beside or c.role == "current")
        ),
        key=lambda c: (c.service, c.number, c.name),
    )


def _with_dependents(
    observed: Observed, chosen: list[ObservedContainer]
) -> list[ObservedContainer]:
    """`chosen` and what has to restart with it; what was stopped or has completed stays so."""
    everything = _chosen(observed, ())
    needs = {
        c.service: [
            name for name, terms in dependencies(c.spec["service"]).items() if terms.get("restart")
        ]
        for c in everything
    }
    named = {c.service for c in chosen}
    taken = set(named)
    while found := {s for s in needs if s not in taken and not taken.isdisjoint(needs[s])}:
        taken |= found
    return [
        c
        for c in everything
        if c.service in named
        or (c.service in taken and (c.alive or (c.status == "exited" and _due(c))))
    ]


def _due(container: ObservedContainer) -> bool:
    return container.intent == "running" and not container.completed


def _by_service(
    containers: Iterable[ObservedContainer],
) -> tuple[DependencyGraph, dict[str, list[ObservedContainer]]]:
    grouped: dict[str, list[ObservedContainer]] = {}
    for container in containers:
        grouped.setdefault(container.service, []).append(container)
    return stored_graph(c.spec for group in grouped.values() for c in group), grouped


def _stops(
    builder: PlanBuilder,
    containers: list[ObservedContainer],
    timeout: float | None,
    deaf_timeout: float | None = None,
) -> dict[str, int]:
    graph, grouped = _by_service(containers)
    stops: dict[str, int] = {}
    for service in graph.reverse():
        ended = [
            stops[c.name]
            for dependent in graph.dependents(service)
            for c in grouped[dependent]
            if c.name in stops
        ]
        for container in grouped[service]:
            if container.alive:
                stops[container.name] = builder.add(
                    StopContainer(
                        name=container.name,
                        service=service,
                        cause=_ASKED,
                        timeout=timeout,
                        deaf_timeout=deaf_timeout,
                    ),
                    ordered=ended,
                )
    return stops


_CONDITIONS = {"service_healthy": "healthy", "service_completed_successfully": "completed"}


def _starts(
    builder: PlanBuilder,
    containers: list[ObservedContainer],
    after: dict[str, list[int]],
    wait: bool,
    wait_timeout: float | None,
    cause: Cause = _ASKED,
    fresh: bool = True,
) -> None:
    """Start each container of `after` once its own steps there have succeeded."""
    graph, grouped = _by_service(containers)
    starts: dict[str, int] = {}
    waits: dict[tuple[str, str], int] = {}

    def wait_for(container: ObservedContainer, condition: str, reason: str) -> int:
        key = (container.name, condition)
        if key not in waits:
            waits[key] = builder.add(
                WaitContainer(
                    name=container.name,
                    service=container.service,
                    cause=Cause(reason=reason),
                    condition=condition,  # type: ignore[arg-type]  # one of WaitCondition's words
                    timeout=wait_timeout,
                ),
                after=[starts[container.name]],
            )
        return waits[key]

    for service in graph:
        for container in grouped[service]:
            if container.name not in after:
                continue
            needs = list(after[container.name])
            ordered: list[int] = []
            declared = dependencies(container.spec["service"])
            for dependency, terms in sorted(declared.items()):
                condition = terms.get("condition") or "service_started"
                for other in grouped.get(dependency, ()):
                    if other.name not in starts:
                        continue
                    step = (
                        wait_for(other, _CONDITIONS[condition], f"a dependent needs {condition}")
                        if condition in _CONDITIONS
                        else starts[other.name]
                    )
                    (needs if terms.get("required", True) else ordered).append(step)
            starts[container.name] = builder.add(
                StartContainer(name=container.name, service=service, cause=cause, fresh=fresh),
                after=needs,
                ordered=ordered,
            )
    if wait:
        for service in graph:
            for container in grouped[service]:
                if container.name in starts:
                    wait_for(container, "ready", "the run waits for it")
