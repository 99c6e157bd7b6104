"""What becomes of every replica, before any step is drafted: the verdicts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.planning.actions import Cause
from orchestrator.planning.draft import Draft, dependencies, namespace_parents
from orchestrator.planning.drift import needs_recreate, service_drift
from orchestrator.planning.errors import TooManyReplicas
from orchestrator.planning.networks import Replacements
from orchestrator.planning.observed import ObservedContainer
from orchestrator.planning.rollout import Strategy, strategy

NEXT = "-next"
RETIRED = "-old"

Verdict = Literal["keep", "create", "replace", "update", "start", "restart", "remove"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One replica and its verdict.

    `start_cause` is set where it must be started besides; `bounce` where it runs and must be
    stopped before that. In a rollout, `candidate` is the container that takes its place where
    there is one already, `retired` the one whose place it has taken.
    """

    service: str
    number: int
    name: str
    verdict: Verdict
    cause: Cause
    observed: ObservedContainer | None = None
    start_cause: Cause | None = None
    bounce: bool = False
    candidate: ObservedContainer | None = None
    retired: ObservedContainer | None = None

    @property
    def next_name(self) -> str:
        return self.name + NEXT

    @property
    def retired_name(self) -> str:
        return self.name + RETIRED


@dataclass(slots=True, kw_only=True)
class Fleet:
    """All replicas of the run, by service, and the removals of those that are too many.

    `rollouts` has the strategy of every service whose replicas are exchanged by one, `leftovers`
    what earlier rollouts have left and nobody needs.
    """

    replicas: dict[str, tuple[Replica, ...]] = field(default_factory=dict)
    rollouts: dict[str, Strategy] = field(default_factory=dict)
    leftovers: dict[str, tuple[ObservedContainer, ...]] = field(default_factory=dict)

    def of(self, service: str) -> tuple[Replica, ...]:
        return self.replicas.get(service, ())

    def replaced(self, service: str) -> bool:
        return any(replica.verdict == "replace" for replica in self.of(service))


MAX_REPLICAS = 10_000
"""In one plan: a typing error must not fill the memory before anybody can see it."""


def decide(draft: Draft, replaced_networks: Replacements) -> Fleet:
    """Give every replica of the selected services its verdict, dependencies first, because a
    replaced service carries those along that share its namespaces or ask for a restart."""
    fleet = Fleet()
    count = sum(desired_count(draft, service) for service in draft.services)
    if count > MAX_REPLICAS:
        raise TooManyReplicas(draft.project.name, count, MAX_REPLICAS)
    for service in draft.services:
        forced = _forced(draft, service, fleet, replaced_networks)
        replicas = tuple(_replicas(draft, service, forced))
        _decide_rollout(draft, service, replicas, fleet, replaced_networks)
    if draft.policy.start:
        _restart_dependents(draft, fleet)
    return fleet


def _decide_rollout(
    draft: Draft,
    service: str,
    replicas: tuple[Replica, ...],
    fleet: Fleet,
    replaced_networks: Replacements,
) -> None:
    """Settle whether the service's replicas are exchanged by a rollout, and which containers
    beside them belong to it."""
    fleet.replicas[service] = replicas
    observed = draft.observed
    candidates = {c.number: c for c in observed.beside(service, "next")}
    retired = {c.number: c for c in observed.beside(service, "retired")}
    exchanged = [r for r in replicas if r.verdict == "replace"]
    chosen = strategy(draft.service(service))
    if chosen is not None and (exchanged or retired) and draft.policy.start:
        sharers = [
            other
            for other in draft.services
            if service in namespace_parents(draft.service(other)) and other != service
        ]
        moved = replaced_networks.keys() & set(draft.blueprints[service]["networks"].values())
        if sharers or moved:
            why = f"{', '.join(sharers)} shares its namespaces" if sharers else "its network goes"
            draft.builder.note(f"service {service} is replaced at once, as {why}")
        else:
            fleet.rollouts[service] = chosen
            fleet.replicas[service] = replicas = tuple(
                _beside(draft, service, r, candidates, retired) for r in replicas
            )
    used = {c.name for r in replicas for c in (r.candidate, r.retired) if c is not None}
    fleet.leftovers[service] = tuple(
        c for c in (*candidates.values(), *retired.values()) if c.name not in used
    )


def _beside(
    draft: Draft,
    service: str,
    replica: Replica,
    candidates: Mapping[int, ObservedContainer],
    retired: Mapping[int, ObservedContainer],
) -> Replica:
    if replica.verdict == "replace":
        candidate = candidates.get(replica.number)
        if candidate is None or candidate.lost or candidate.status in ("exited", "restarting"):
            return replica
        reference = draft.image(service)
        differs = service_drift(
            candidate.spec,
            draft.blueprints[service],
            old_image=candidate.image_id,
            new_image=draft.observed.images.get(reference),
        )
        return replica if differs else dataclasses.replace(replica, candidate=candidate)
    if replica.verdict in ("create", "remove"):
        return replica
    return dataclasses.replace(replica, retired=retired.get(replica.number))


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


def desired_endpoints(draft: Draft) -> dict[str, int]:
    """How many containers of the project are to be on each network, by its real name; services
    that this run does not select count, too."""
    counts: Counter[str] = Counter()
    for service, spec in draft.blueprints.items():
        for name in spec["networks"].values():
            counts[name] += desired_count(draft, service)
    return dict(counts)


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
        new_image=draft.observed.images.get(reference),
    )
    cause_to_start = start_cause(container)
    if cause_to_start is None and container.completed and _needed_healthy(draft, service):
        cause_to_start = Cause(reason="has ended, but a dependent needs it healthy")

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
        return replica("update", Cause(reason="differs", changes=changes), cause_to_start)
    if cause_to_start is not None:
        return replica("start", cause_to_start, cause_to_start)
    return replica("keep", Cause(reason="as wanted"))


def _needed_healthy(draft: Draft, service: str) -> bool:
    return any(
        dependencies(draft.service(other))[service].get("condition") == "service_healthy"
        for other in draft.graph.dependents(service)
        if other in draft.selected
    )


def start_cause(container: ObservedContainer) -> Cause | None:
    if container.alive or container.completed:
        return None
    if container.status == "created":
        return Cause(reason="was never started")
    if container.intent == "stopped":
        return Cause(reason="was stopped")
    return Cause(reason=f"exited with {container.exit_code}")


def _restart_dependents(draft: Draft, fleet: Fleet) -> None:
    """Restart what depends, with `restart: true`, on a service that is replaced, or restarted
    for the same reason."""
    for service in draft.services:
        for dependency, terms in sorted(dependencies(draft.service(service)).items()):
            if not terms.get("restart"):
                continue
            if fleet.replaced(dependency):
                done = "recreated"
            elif any(replica.bounce for replica in fleet.of(dependency)):
                done = "restarted"
            else:
                continue
            cause = Cause(reason=f"depends on {dependency} with restart: true, which is {done}")
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
