"""Container steps: create, replace, update, start, wait, stop and remove the replicas."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from orchestrator.planning.actions import (
    Cause,
    CreateContainer,
    RemoveContainer,
    StartContainer,
    StopContainer,
    UpdateContainer,
    WaitCondition,
    WaitContainer,
)
from orchestrator.planning.draft import Draft, dependencies, namespace_parents
from orchestrator.planning.replicas import Fleet, Replica

_CONDITIONS: dict[str, WaitCondition] = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


class ServiceSteps:
    """Drafts the steps of all services: first what goes (`plan_stops`), then what comes.

    The two are apart because networks that are replaced stand between them.
    """

    def __init__(self, draft: Draft, fleet: Fleet) -> None:
        self._draft = draft
        self._fleet = fleet
        self._stops: dict[str, int] = {}
        self._removals: dict[str, int] = {}
        self._creates: dict[str, int] = {}
        self._starts: dict[str, int] = {}
        self._waits: dict[tuple[str, WaitCondition], int] = {}

    def plan_stops(self, emptied_networks: Iterable[str]) -> dict[str, list[int]]:
        """Stop and remove the replicas on networks that are replaced; the result gives, by
        network, the steps that must end before the network can go."""
        emptied: dict[str, list[int]] = {name: [] for name in emptied_networks}
        for service in self._draft.graph.reverse():
            for replica in self._fleet.of(service):
                observed = replica.observed
                if observed is None:
                    continue
                networks = emptied.keys() & set(observed.spec["networks"].values())
                if networks and replica.verdict in ("replace", "remove"):
                    removal = self._remove(replica)
                    for name in networks:
                        emptied[name].append(removal)
        return emptied

    def plan(self) -> None:
        for service in self._draft.services:
            for replica in self._fleet.of(service):
                self._plan_replica(replica)
        if self._draft.policy.wait and self._draft.policy.start:
            for service in self._draft.services:
                for replica in self._fleet.of(service):
                    if replica.verdict != "remove":
                        self._wait(replica, "ready", Cause(reason="the run waits for it"))

    def _plan_replica(self, replica: Replica) -> None:
        match replica.verdict:
            case "keep":
                return
            case "remove":
                self._remove(replica)
            case "create":
                self._create(replica, after=())
                self._start(replica, Cause(reason="created"))
            case "replace":
                self._create(replica, after=[self._remove(replica)])
                self._start(replica, Cause(reason="created"))
            case "restart":
                self._stop(replica)
                self._start(replica, replica.cause)
            case "update":
                updated = self._draft.builder.add(
                    UpdateContainer(
                        name=replica.name,
                        service=replica.service,
                        cause=replica.cause,
                        project=self._draft.project,
                        spec=self._draft.blueprints[replica.service],
                    )
                )
                if replica.start_cause is not None:
                    stopped = self._stop(replica) if replica.bounce else []
                    self._start(replica, replica.start_cause, after=[updated, *stopped])
            case "start":
                self._start(replica, replica.cause)

    def _create(self, replica: Replica, after: Iterable[int]) -> None:
        draft = self._draft
        spec = draft.blueprints[replica.service]
        reference = draft.image(replica.service)
        needs = [*after]
        if reference in draft.image_steps:
            needs.append(draft.image_steps[reference])
        needs += [
            draft.network_steps[n] for n in spec["networks"].values() if n in draft.network_steps
        ]
        needs += [
            draft.volume_steps[v] for v in spec["volumes"].values() if v in draft.volume_steps
        ]
        for parent in namespace_parents(spec["service"]):
            # The namespace of another service exists once that one runs.
            needs += [
                self._starts[r.name] for r in self._fleet.of(parent) if r.name in self._starts
            ]
        inherited: Mapping[str, str] = {}
        if replica.observed is not None and not draft.policy.renew_volumes:
            inherited = replica.observed.anonymous
        self._creates[replica.name] = draft.builder.add(
            CreateContainer(
                name=replica.name,
                service=replica.service,
                cause=_again(replica.cause, "recreated") if replica.observed else replica.cause,
                project=draft.project,
                number=replica.number,
                image=reference,
                spec=spec,
                anonymous=inherited,
            ),
            after=needs,
        )

    def _start(self, replica: Replica, cause: Cause, after: Iterable[int] = ()) -> None:
        if not self._draft.policy.start:
            return
        needs = [*after]
        # A created replica was stopped long before; a restarted one has no create step.
        for steps in (self._creates, self._stops):
            if replica.name in steps:
                needs.append(steps[replica.name])
                break
        ordered: list[int] = []
        for dependency, terms in sorted(dependencies(self._draft.service(replica.service)).items()):
            met = self._satisfied(dependency, terms.get("condition") or "service_started")
            (needs if terms.get("required", True) else ordered).extend(met)
        self._starts[replica.name] = self._draft.builder.add(
            StartContainer(name=replica.name, service=replica.service, cause=cause),
            after=needs,
            ordered=ordered,
        )

    def _satisfied(self, dependency: str, condition: str) -> list[int]:
        """The steps after which a dependency fulfils its condition; none where it does now."""
        steps = []
        for replica in self._fleet.of(dependency):
            if replica.verdict == "remove":
                continue
            wanted = _CONDITIONS[condition]
            if wanted == "started":
                if replica.name in self._starts:
                    steps.append(self._starts[replica.name])
                continue
            step = self._wait(replica, wanted, Cause(reason=f"a dependent needs {condition}"))
            if step is not None:
                steps.append(step)
        return steps

    def _wait(self, replica: Replica, condition: WaitCondition, cause: Cause) -> int | None:
        key = (replica.name, condition)
        if key not in self._waits:
            started = self._starts.get(replica.name)
            if started is None and _fulfils(replica, condition):
                return None
            if condition == "ready" and (replica.name, "healthy") in self._waits:
                return self._waits[replica.name, "healthy"]
            self._waits[key] = self._draft.builder.add(
                WaitContainer(
                    name=replica.name,
                    service=replica.service,
                    cause=cause,
                    condition=condition,
                    timeout=self._draft.policy.wait_timeout,
                ),
                after=[] if started is None else [started],
            )
        return self._waits[key]

    def _stop(self, replica: Replica) -> list[int]:
        """Stop a replica once its dependents that restart with it are stopped; the result is
        empty where it does not run."""
        if replica.name in self._stops:
            return [self._stops[replica.name]]
        if replica.observed is None or not replica.observed.alive:
            return []
        after: list[int] = []
        for dependent in self._draft.graph.dependents(replica.service):
            terms = dependencies(self._draft.service(dependent))[replica.service]
            if terms.get("restart") and dependent in self._draft.selected:
                for other in self._fleet.of(dependent):
                    if other.bounce or other.verdict in ("replace", "remove"):
                        after += self._stop(other)
        after += self._gate(replica)
        self._stops[replica.name] = self._draft.builder.add(
            StopContainer(
                name=replica.name,
                service=replica.service,
                cause=(replica.start_cause if replica.bounce else None) or replica.cause,
                timeout=self._draft.policy.timeout,
            ),
            after=after,
        )
        return [self._stops[replica.name]]

    def _gate(self, replica: Replica) -> list[int]:
        """What must succeed before a replica that comes back may be stopped: its new image, and
        the dependencies that it will wait for and whose steps are drafted by now."""
        if replica.verdict != "replace" and not replica.bounce:
            return []
        draft = self._draft
        reference = draft.image(replica.service)
        steps = [draft.image_steps[reference]] if reference in draft.image_steps else []
        for dependency, terms in sorted(dependencies(draft.service(replica.service)).items()):
            if terms.get("restart") or not terms.get("required", True):
                continue
            if all(
                r.name in self._starts or r.verdict == "keep" for r in self._fleet.of(dependency)
            ):
                steps += self._satisfied(dependency, terms.get("condition") or "service_started")
        return steps

    def _remove(self, replica: Replica) -> int:
        if replica.name not in self._removals:
            stopped = self._stop(replica)
            self._removals[replica.name] = self._draft.builder.add(
                RemoveContainer(
                    name=replica.name,
                    service=replica.service,
                    cause=_again(replica.cause, "stopped") if stopped else replica.cause,
                    volumes=self._draft.policy.renew_volumes,
                    # What replaces it keeps its addresses.
                    release=replica.verdict == "remove",
                ),
                after=stopped or self._gate(replica),
            )
        return self._removals[replica.name]


def _again(cause: Cause, brief: str) -> Cause:
    return dataclasses.replace(cause, brief=brief)


def _fulfils(replica: Replica, condition: WaitCondition) -> bool:
    container = replica.observed
    if container is None:
        return False
    running = container.status == "running"
    match condition:
        case "started":
            return running
        case "healthy":
            return running and container.health == "healthy"
        case "completed":
            return container.completed
        case "ready":
            return container.completed or (running and container.health in ("none", "healthy"))
