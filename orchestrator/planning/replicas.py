"""What becomes of every replica, before any step is drafted: the verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.planning.actions import Cause
from orchestrator.planning.draft import Draft, dependencies, namespace_parents
from orchestrator.planning.drift import needs_recreate, service_drift
from orchestrator.planning.networks import Replacements
from orchestrator.planning.observed import ObservedContainer

Verdict = Literal["keep", "create", "replace", "update", "start", "restart", "remove"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One replica and its verdict.

    `start_cause` is set where it must be started besides; `bounce` where it runs and must be
    stopped before that.
    """

    service: str
    number: int
    name: str
    verdict: Verdict
    cause: Cause
    observed: ObservedContainer | None = None
    start_cause: Cause | None = None
    bounce: bool = False


@dataclass(slots=True, kw_only=True)
class Fleet:
    """All replicas of the run, by service, and the removals of those that are too many."""

    replicas: dict[str, tuple[Replica, ...]] = field(default_factory=dict)

    def of(self, service: str) -> tuple[Replica, ...]:
        return self.replicas.get(service, ())

    def replaced(self, service: str) -> bool:
        return any(replica.verdict == "replace" for replica in self.of(service))


def decide(draft: Draft, replaced_networks: Replacements) -> Fleet:
    """Give every replica of the selected services its verdict, dependencies first, because a
    replaced service carries those along that share its namespaces or ask for a restart."""
    fleet = Fleet()
    for service in draft.services:
        forced = _forced(draft, service, fleet, replaced_networks)
        fleet.replicas[service] = tuple(_replicas(draft, service, forced))
    if draft.policy.start:
        _restart_dependents(draft, fleet)
    return fleet


def desired_count(draft: Draft, service: str) -> int:
    """How many replicas: --scale, then `scale`, then `deploy.replicas`, then 1."""
    spec = draft.service(service)
    for count in (
        draft.policy.scale.get(service),
        spec.get("scale"),
        (spec.get("deploy") or {}).get("replicas"),
    ):
        if count is not None:
            return int(count)
    return 1


def container_name(project: str, service: Mapping[str, Any], number: int) -> str:
    return str(service.get("container_name") or f"{project}-{service['name']}-{number}")


def _forced(
    draft: Draft, service: str, fleet: Fleet, replaced_networks: Replacements
) -> Cause | None:
    """Why all replicas of a service are replaced whatever their own difference, if so."""
    if draft.policy.recreate == "never":
        return None
    named = not draft.policy.services or service in draft.policy.services
    if draft.policy.recreate == "force" and (named or draft.policy.recreate_dependencies):
        return Cause(reason="a new container was asked for")
    if draft.policy.recreate_dependencies and not named:
        return Cause(reason="a new container was asked for its dependents' sake")
    for network in sorted(draft.blueprints[service]["networks"].values()):
        if network in replaced_networks:
            return Cause(
                reason=f"network {network} is recreated", changes=replaced_networks[network]
            )
    for parent, shared in sorted(namespace_parents(draft.service(service)).items()):
        if fleet.replaced(parent):
            return Cause(reason=f"shares the {shared} of {parent}, which is recreated")
    return None


def _replicas(draft: Draft, service: str, forced: Cause | None) -> Iterable[Replica]:
    existing = list(draft.observed.of_service(service))
    count = desired_count(draft, service)
    judged = [_judge(draft, service, container, forced) for container in existing]
    # Of too many, first those go that would be replaced anyway, then the highest numbers.
    surplus = sorted(judged, key=lambda r: (r.verdict != "replace", -r.number))[
        : max(0, len(judged) - count)
    ]
    for replica in judged:
        if replica not in surplus:
            yield replica
    taken = {replica.number for replica in judged if replica not in surplus}
    for number in range(1, len(existing) + count + 1):
        if len(taken) >= count:
            break
        if number not in taken:
            taken.add(number)
            yield Replica(
                service=service,
                number=number,
                name=container_name(draft.project.name, draft.service(service), number),
                verdict="create",
                cause=Cause(reason="does not exist"),
            )
    for replica in surplus:
        yield Replica(
            service=service,
            number=replica.number,
            name=replica.name,
            verdict="remove",
            cause=Cause(reason=f"{count} of {len(judged)} replicas are wanted"),
            observed=replica.observed,
        )


def _judge(
    draft: Draft, service: str, container: ObservedContainer, forced: Cause | None
) -> Replica:
    reference = draft.image(service)
    changes = service_drift(
        container.spec,
        draft.blueprints[service],
        old_image=container.image_id,
        new_image=None
        if reference in draft.image_steps and draft.policy.build != "always"
        else draft.observed.images.get(reference),
    )
    start_cause = _start_cause(container)

    def replica(verdict: Verdict, cause: Cause, start: Cause | None = None) -> Replica:
        return Replica(
            service=service,
            number=container.number,
            name=container.name,
            verdict=verdict,
            cause=cause,
            observed=container,
            start_cause=start,
        )

    if container.lost:
        return replica("replace", Cause(reason="it is on record, but not on this host"))
    if forced is not None:
        return replica("replace", forced)
    if changes and draft.policy.recreate == "never":
        draft.builder.note(
            f"container {container.name} {Cause(reason='differs', changes=changes)}; it is kept "
            "as no container is to be recreated"
        )
        changes = ()
    if needs_recreate(changes):
        return replica("replace", Cause(reason="differs", changes=changes))
    if changes:
        return replica("update", Cause(reason="differs", changes=changes), start_cause)
    if start_cause is not None:
        return replica("start", start_cause, start_cause)
    return replica("keep", Cause(reason="as wanted"))


def _start_cause(container: ObservedContainer) -> Cause | None:
    if container.alive or container.completed:
        return None
    if container.status == "created":
        return Cause(reason="was never started")
    if container.intent == "stopped":
        return Cause(reason="was stopped")
    return Cause(reason=f"exited with {container.exit_code}")


def _restart_dependents(draft: Draft, fleet: Fleet) -> None:
    """Restart what depends, with `restart: true`, on a service that is replaced."""
    for service in draft.services:
        for dependency, terms in sorted(dependencies(draft.service(service)).items()):
            if not terms.get("restart") or not fleet.replaced(dependency):
                continue
            cause = Cause(reason=f"depends on {dependency} with restart: true, which is recreated")
            fleet.replicas[service] = tuple(
                _restarted(replica, cause) for replica in fleet.of(service)
            )


def _restarted(replica: Replica, cause: Cause) -> Replica:
    if replica.observed is None or not replica.observed.alive:
        return replica
    if replica.verdict == "keep":
        return dataclasses.replace(
            replica, verdict="restart", cause=cause, start_cause=cause, bounce=True
        )
    if replica.verdict == "update":
        return dataclasses.replace(replica, start_cause=cause, bounce=True)
    return replica
