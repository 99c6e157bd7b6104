"""The heart: a project, what is observed and what was asked for become one plan.

Everything is decided here and nothing is done; the same arguments always give the same plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.planning.actions import Cause, RemoveContainer, StopContainer
from orchestrator.planning.draft import Draft, begin
from orchestrator.planning.hooks import is_init, with_hooks
from orchestrator.planning.images import plan_images
from orchestrator.planning.networks import networks_to_replace, plan_networks
from orchestrator.planning.observed import Observed, ObservedContainer
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy
from orchestrator.planning.replicas import decide, desired_endpoints
from orchestrator.planning.services import ServiceSteps
from orchestrator.planning.volumes import plan_volumes
from specs.project import Project


def reconcile(
    project: Project,
    observed: Observed,
    policy: Policy,
    now: float,
) -> Plan:
    """Plan how `observed` becomes what `project` says.

    `now` is in seconds since the epoch. Raises PlanningError where there is no way.
    """
    draft = begin(project, observed, policy, now)
    plan_images(draft)
    leaving = _plan_orphans(draft)
    replaced_networks = networks_to_replace(draft, leaving)
    fleet = decide(draft, replaced_networks)
    services = ServiceSteps(draft, fleet)
    emptied = services.plan_stops(replaced_networks)
    for container in observed.containers:
        for network in emptied.keys() & set(container.spec["networks"].values()):
            if container.name in leaving:
                emptied[network].append(leaving[container.name])
    plan_networks(draft, replaced_networks, emptied, desired_endpoints(draft))
    plan_volumes(draft)
    services.plan()
    return with_hooks(draft.builder.build(), observed)


def reconcile_images(project: Project, observed: Observed, policy: Policy, now: float) -> Plan:
    """Plan the builds and pulls alone; what follows from a new image is planned once it is
    there."""
    draft = begin(project, observed, policy, now)
    plan_images(draft)
    return draft.builder.build()


def orphans(
    project: Project, containers: Iterable[ObservedContainer]
) -> tuple[list[ObservedContainer], list[ObservedContainer]]:
    """Containers of services that the project does not have: (its own, another file's).

    A container belongs to the project's own inventory if one of the files that it came from is
    among the project's. Services that no active profile enables are no orphans.
    """
    known = {*project.services, *project.disabled_services}
    files = set(project.config_files)
    own: list[ObservedContainer] = []
    foreign: list[ObservedContainer] = []
    for container in sorted(containers, key=lambda c: c.name):
        ended = container.oneoff and not is_init(container, project.name)
        if container.service not in known and not ended:
            ours = not container.source or not files or files & set(container.source)
            (own if ours else foreign).append(container)
    return own, foreign


def _plan_orphans(draft: Draft) -> dict[str, int]:
    """Remove orphans where that is asked for, and what has departed; the result is the removing
    step of each."""
    leaving: dict[str, int] = {}
    own, foreign = orphans(draft.project, draft.observed.containers)
    departed = [c for c in (*own, *foreign) if c.service in draft.policy.departed]
    own = [c for c in own if c not in departed]
    foreign = [c for c in foreign if c not in departed]
    if foreign:
        draft.builder.note(
            f"left alone, as they come from other files: {', '.join(c.name for c in foreign)}"
        )
    if own and not draft.policy.remove_orphans:
        if not draft.policy.ignore_orphans:
            draft.builder.note(
                f"orphans, whose services are not in the project: "
                f"{', '.join(c.name for c in own)}; --remove-orphans removes them"
            )
        own = []
    for container in sorted((*own, *departed), key=lambda c: c.name):
        cause = Cause(reason=f"the project has no service {container.service}")
        after = []
        if container.alive:
            after.append(
                draft.builder.add(
                    StopContainer(
                        name=container.name,
                        service=container.service,
                        cause=cause,
                        timeout=draft.policy.timeout,
                    )
                )
            )
        leaving[container.name] = draft.builder.add(
            RemoveContainer(
                name=container.name,
                service=container.service,
                cause=dataclasses.replace(cause, brief="stopped" if after else ""),
            ),
            after=after,
        )
        for service in draft.services:
            if _collide(container.spec["service"], draft.service(service)):
                draft.displaced.setdefault(service, []).append(leaving[container.name])
    return leaving


def _collide(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two services cannot be there at once, for their names or published ports."""

    def claims(service: Mapping[str, Any]) -> set[object]:
        ports = {
            (port["published"], port.get("protocol") or "tcp")
            for port in service.get("ports") or ()
            if port.get("published")
        }
        return {*ports, service.get("container_name") or None} - {None}

    return bool(claims(one) & claims(other))
