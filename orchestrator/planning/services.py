"""Container steps: create, replace, update, start, wait, stop and remove the replicas."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

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
from orchestrator.planning.hooks import due_hooks, is_init, plan_init
from orchestrator.planning.observed import ObservedContainer, Role
from orchestrator.planning.replicas import Fleet, Replica
from orchestrator.planning.rolling import RolloutSteps

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
        self.draft = draft
        self.fleet = fleet
        self._stops: dict[str, int] = {}
        self._removals: dict[str, int] = {}
        self._creates: dict[str, int] = {}
        self.inits: dict[str, int] = {}
        self.leftovers: dict[str, list[int]] = {}
        self.starts: dict[str, int] = {}
        self.waits: dict[tuple[str, WaitCondition], int] = {}

    def plan_stops(self, emptied_networks: Iterable[str]) -> dict[str, list[int]]:
        """Stop and remove the replicas on networks that are replaced; the result gives, by
        network, the steps that must end before the network can go."""
        emptied: dict[str, list[int]] = {name: [] for name in emptied_networks}
        for service in self.draft.services:
            left = [
                *self.fleet.leftovers.get(service, ()),
                *(
                    c
                    for c in self.draft.observed.containers
                    if c.service == service and is_init(c, self.draft.project.name)
                ),
            ]
            for container in left:
                gone = self.leftovers.setdefault(service, [])
                gone.append(self._discard(container, Cause(reason="left over by an earlier run")))
                for name in emptied.keys() & set(container.spec["networks"].values()):
                    emptied[name].append(gone[-1])
        for service in self.draft.graph.reverse():
            for replica in self.fleet.of(service):
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
        for service in self.draft.services:
            rollout = self.fleet.rollouts.get(service)
            plain = [
                replica
                for replica in self.fleet.of(service)
                if rollout is None or replica.verdict != "replace"
            ]
            for replica in plain:
                self._prepare(replica)
            self._plan_init(service)
            for replica in plain:
                self._plan_replica(replica)
            if rollout is not None:
                RolloutSteps(self, service, rollout).plan()
        if self.draft.policy.wait and self.draft.policy.start:
            for service in self.draft.services:
                condition: WaitCondition = "completed" if self._is_job(service) else "ready"
                for replica in self.fleet.of(service):
                    if replica.verdict != "remove":
                        self._wait(replica, condition, Cause(reason="the run waits for it"))

    def _is_job(self, service: str) -> bool:
        """Whether others need the service to complete: having started it is not ready then."""
        return any(
            dependencies(self.draft.service(other))[service].get("condition")
            == "service_completed_successfully"
            for other in self.draft.graph.dependents(service)
            if other in self.draft.selected
        )

    def _prepare(self, replica: Replica) -> None:
        """Everything of a new container up to its start."""
        if replica.verdict == "create":
            self.create(replica, after=())
        elif replica.verdict == "replace":
            self.create(replica, after=[self._remove(replica)])

    def _plan_init(self, service: str) -> None:
        """Init containers run once for a service that is new or replaced, not when more replicas
        of it are wanted, nor when it is started again."""
        replicas = self.fleet.of(service)
        spec = self.draft.service(service)
        if not spec.get("pre_start") or not self.draft.policy.start:
            return
        staying = [r for r in replicas if r.verdict not in ("create", "replace", "remove")]
        # What was made and never started may be so because this was not done.
        if any(r.observed is not None and r.observed.status != "created" for r in staying):
            return
        if not any(r.verdict != "remove" for r in replicas):
            return
        created = [*self.leftovers.get(service, ())]
        created += [self._creates[r.name] for r in replicas if r.name in self._creates]
        needs: list[int] = []
        for dependency, terms in sorted(dependencies(spec).items()):
            if terms.get("required", True):
                needs += self._satisfied(dependency, terms.get("condition") or "service_started")
        self.inits[service] = plan_init(self.draft, service, created, needs)

    def _plan_replica(self, replica: Replica) -> None:
        match replica.verdict:
            case "keep":
                self._complete(replica, ())
            case "remove":
                self._remove(replica)
            case "create" | "replace":
                self.start(replica, Cause(reason="created"))
            case "restart":
                self._stop(replica)
                self.start(replica, replica.cause)
            case "update":
                updated = self.draft.builder.add(
                    UpdateContainer(
                        name=replica.name,
                        service=replica.service,
                        cause=replica.cause,
                        project=self.draft.project,
                        spec=self.draft.blueprints[replica.service],
                    ),
                    after=[
                        self.draft.network_steps[name]
                        for name in self.draft.blueprints[replica.service]["networks"].values()
                        if name in self.draft.network_steps
                    ],
                )
                if replica.start_cause is not None:
                    stopped = self._stop(replica) if replica.bounce else []
                    self.start(replica, replica.start_cause, after=[updated, *stopped])
                else:
                    self._complete(replica, [updated])
            case "start":
                self.start(replica, replica.cause)

    def _complete(self, replica: Replica, after: Iterable[int]) -> None:
        """Run what an earlier run owes a container that runs on: its hooks. Whoever waits for
        its start waits for them."""
        if replica.observed is None or not self.draft.policy.start:
            return
        spec = self.draft.blueprints[replica.service]
        for hook in due_hooks(replica.observed, spec):
            step = self.draft.builder.add(hook, after=after)
            self.starts[replica.name] = step
            after = [step]

    def create(
        self,
        replica: Replica,
        after: Iterable[int],
        *,
        name: str | None = None,
        role: Role = "current",
        told: bool = True,
    ) -> int:
        """Create the replica's container, in a rollout by another name beside the current one;
        `told` where a step before this one has said why."""
        draft = self.draft
        spec = draft.blueprints[replica.service]
        reference = draft.image(replica.service)
        needs = [*after, *self.leftovers.get(replica.service, ())]
        needs += draft.displaced.get(replica.service, ())
        needs += draft.needed_images(replica.service)
        needs += [
            draft.network_steps[n] for n in spec["networks"].values() if n in draft.network_steps
        ]
        needs += [
            draft.volume_steps[v] for v in spec["volumes"].values() if v in draft.volume_steps
        ]
        for parent in namespace_parents(spec["service"]):
            # The namespace of another service exists once that one runs.
            needs += [self.starts[r.name] for r in self.fleet.of(parent) if r.name in self.starts]
        inherited: dict[str, str] = {}
        if not draft.policy.renew_volumes:
            # Of a replica that an earlier run removed, or made in part, there is only the first.
            inherited |= draft.observed.inheritance.get((replica.service, replica.number), {})
            inherited |= replica.observed.anonymous if replica.observed else {}
        created = draft.builder.add(
            CreateContainer(
                name=name or replica.name,
                service=replica.service,
                cause=_again(replica.cause, "recreated")
                if told and replica.observed
                else replica.cause,
                project=draft.project,
                number=replica.number,
                image=reference,
                spec=spec,
                mounted=draft.mounted(replica.service),
                anonymous=inherited,
                role=role,
            ),
            after=needs,
        )
        if name is None:
            self._creates[replica.name] = created
        return created

    def start(self, replica: Replica, cause: Cause, after: Iterable[int] = ()) -> None:
        if not self.draft.policy.start:
            return
        needs = [*after]
        # A created replica was stopped long before; a restarted one has no create step.
        for steps in (self._creates, self._stops):
            if replica.name in steps:
                needs.append(steps[replica.name])
                break
        self.starts[replica.name] = self.start_step(replica, replica.name, cause, needs)

    def start_step(self, replica: Replica, name: str, cause: Cause, after: Iterable[int]) -> int:
        """Start the container of this name once the replica's dependencies allow it."""
        needs = [*after]
        if replica.service in self.inits:
            needs.append(self.inits[replica.service])
        ordered: list[int] = []
        for dependency, terms in sorted(dependencies(self.draft.service(replica.service)).items()):
            met = self._satisfied(dependency, terms.get("condition") or "service_started")
            (needs if terms.get("required", True) else ordered).extend(met)
        return self.draft.builder.add(
            StartContainer(name=name, service=replica.service, cause=cause),
            after=needs,
            ordered=ordered,
        )

    def _satisfied(self, dependency: str, condition: str) -> list[int]:
        """The steps after which a dependency fulfils its condition; none where it does now."""
        steps = []
        for replica in self.fleet.of(dependency):
            if replica.verdict == "remove":
                continue
            wanted = _CONDITIONS[condition]
            if wanted == "started":
                if replica.name in self.starts:
                    steps.append(self.starts[replica.name])
                continue
            step = self._wait(replica, wanted, Cause(reason=f"a dependent needs {condition}"))
            if step is not None:
                steps.append(step)
        return steps

    def _wait(self, replica: Replica, condition: WaitCondition, cause: Cause) -> int | None:
        key = (replica.name, condition)
        if key not in self.waits:
            started = self.starts.get(replica.name)
            if started is None and _fulfils(replica, condition):
                return None
            if condition == "ready" and (replica.name, "healthy") in self.waits:
                return self.waits[replica.name, "healthy"]
            self.waits[key] = self.draft.builder.add(
                WaitContainer(
                    name=replica.name,
                    service=replica.service,
                    cause=cause,
                    condition=condition,
                    timeout=self.draft.policy.wait_timeout,
                ),
                after=[] if started is None else [started],
            )
        return self.waits[key]

    def _stop(self, replica: Replica) -> list[int]:
        """Stop a replica once its dependents that restart with it are stopped; the result is
        empty where it does not run."""
        if replica.name in self._stops:
            return [self._stops[replica.name]]
        if replica.observed is None or not replica.observed.alive:
            return []
        after: list[int] = []
        for dependent in self.draft.graph.dependents(replica.service):
            terms = dependencies(self.draft.service(dependent))[replica.service]
            if terms.get("restart") and dependent in self.draft.selected:
                for other in self.fleet.of(dependent):
                    if other.bounce or other.verdict in ("replace", "remove"):
                        after += self._stop(other)
        after += self.gate(replica)
        self._stops[replica.name] = self.draft.builder.add(
            StopContainer(
                name=replica.name,
                service=replica.service,
                cause=(replica.start_cause if replica.bounce else None) or replica.cause,
                timeout=self.draft.policy.timeout,
            ),
            after=after,
        )
        return [self._stops[replica.name]]

    def gate(self, replica: Replica) -> list[int]:
        """What must succeed before a replica that comes back may be stopped: its new image, and
        the dependencies that it will wait for and whose steps are drafted by now."""
        if replica.verdict != "replace" and not replica.bounce:
            return []
        draft = self.draft
        steps = draft.needed_images(replica.service)
        for dependency, terms in sorted(dependencies(draft.service(replica.service)).items()):
            if terms.get("restart") or not terms.get("required", True):
                continue
            if all(r.name in self.starts or r.verdict == "keep" for r in self.fleet.of(dependency)):
                steps += self._satisfied(dependency, terms.get("condition") or "service_started")
        return steps

    def _remove(self, replica: Replica) -> int:
        if replica.name not in self._removals:
            stopped = self._stop(replica)
            self._removals[replica.name] = self.draft.builder.add(
                RemoveContainer(
                    name=replica.name,
                    service=replica.service,
                    cause=_again(replica.cause, "stopped") if stopped else replica.cause,
                    volumes=self.draft.policy.renew_volumes,
                    bequeath=replica.verdict == "replace" and not self.draft.policy.renew_volumes,
                    # What replaces it keeps its addresses.
                    release=replica.verdict == "remove",
                ),
                after=stopped or self.gate(replica),
            )
        return self._removals[replica.name]

    def _discard(self, container: ObservedContainer, cause: Cause) -> int:
        stopped = []
        if container.alive:
            stopped.append(
                self.draft.builder.add(
                    StopContainer(
                        name=container.name,
                        service=container.service,
                        cause=cause,
                        timeout=self.draft.policy.timeout,
                    )
                )
            )
        return self.draft.builder.add(
            RemoveContainer(
                name=container.name,
                service=container.service,
                cause=_again(cause, "stopped") if stopped else cause,
                # What an init container had for itself, nobody else has.
                volumes=is_init(container, self.draft.project.name),
                release=False,
            ),
            after=stopped,
        )


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
        case "ready" | "stable":
            return container.completed or (running and container.health in ("none", "healthy"))
