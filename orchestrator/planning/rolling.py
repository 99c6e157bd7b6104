"""The steps of a rollout: batch after batch, each replica's successor takes over and is judged.

What a replica is exchanged for stands beside it by the name NAME-next, and what has been
exchanged stays, stopped, as NAME-old until all have passed; so a way back is there at every
moment and needs nothing that may have changed meanwhile. The steps start from whatever is
observed: a rollout that was cut short is taken on by planning it once more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from orchestrator.planning.actions import (
    Cause,
    DrainContainer,
    ProceedRollout,
    PromoteContainer,
    RemoveContainer,
    StopContainer,
    WaitContainer,
)
from orchestrator.planning.observed import ObservedContainer
from orchestrator.planning.plan import RolloutPlan
from orchestrator.planning.replicas import Replica
from orchestrator.planning.rollout import Strategy, obstacle

if TYPE_CHECKING:
    from orchestrator.planning.services import ServiceSteps

_JUDGE = Cause(reason="the rollout goes on once it has proved itself")


class RolloutSteps:
    """Drafts the rollout of one service; everything else of the service is drafted before."""

    def __init__(self, steps: ServiceSteps, service: str, strategy: Strategy) -> None:
        self._steps = steps
        self._builder = steps.draft.builder
        self._service = service
        spec = steps.draft.service(service)
        why = obstacle(spec) if strategy.order == "start-first" else None
        if why is not None:
            self._builder.note(f"service {service} is rolled out stop-first, as {why}")
            strategy = dataclasses.replace(strategy, order="stop-first")
        self._strategy = strategy
        self._published = bool(spec.get("ports"))
        replicas = steps.fleet.of(service)
        self._waiting = [r for r in replicas if r.verdict == "replace"]
        self._ahead = [r for r in replicas if r.retired is not None]
        self._count = sum(r.verdict != "remove" for r in replicas)

    def plan(self) -> None:
        first = self._builder.size + 1
        held = self._strategy.promote == "manual" and (
            self._service not in self._steps.draft.policy.promote
        )
        batches = self._strategy.batches(self._waiting, len(self._ahead))
        if held:
            ready = max(0, self._strategy.canary - len(self._ahead))
            batches = batches[:1] if ready else []
            if self._waiting:
                self._builder.note(
                    f"service {self._service}: {self._strategy.canary} of {self._count} replicas "
                    "go ahead; bay rollout resume takes the others along"
                )
        # What an earlier run has switched it may not have judged; judging again costs little.
        judged = [] if held and not batches else [self._judge_again(r) for r in self._ahead]
        passed: dict[str, int] = dict(judged)
        last = list(passed.values())
        for batch in batches:
            boundary = self._boundary(passed, last) if last else None
            last = []
            for replica in batch:
                passed[replica.name] = self._exchange(replica, boundary)
                last.append(passed[replica.name])
        if not held:
            self._clean_up(batches, passed)
        names = [r.name for batch in batches for r in batch]
        if self._builder.size >= first:
            self._builder.rollout(self._summary(first, names, held))

    def _boundary(self, passed: dict[str, int], last: list[int]) -> list[int]:
        """The step between two batches; where failures are tolerated it counts them."""
        total = len(self._waiting) + len(self._ahead)
        tolerated = self._strategy.tolerated(total)
        if self._strategy.failure_action == "continue":
            tolerated = total
        action = ProceedRollout(
            name=self._service,
            service=self._service,
            cause=Cause(reason=f"{len(passed)} of {total} replicas have been rolled out"),
            project=self._steps.draft.project.name,
            delay=self._strategy.delay,
            spec=self._steps.draft.blueprints[self._service],
            replicas=tuple(passed),
            tolerated=tolerated,
        )
        if tolerated:
            return [self._builder.add(action, ordered=last)]
        return [self._builder.add(action, after=last)]

    def _exchange(self, replica: Replica, boundary: list[int] | None) -> int:
        """Exchange one replica; the result is the step after which it has proved itself."""
        after = [*(boundary or ()), *self._steps.gate(replica)]
        if self._service in self._steps.inits:
            after.append(self._steps.inits[self._service])
        if self._strategy.order == "start-first":
            return self._start_first(replica, after)
        return self._stop_first(replica, after)

    def _start_first(self, replica: Replica, after: list[int]) -> int:
        steps, name = self._steps, replica.next_name
        if replica.candidate is None:
            after = [steps.create(replica, after, name=name, role="next", told=False)]
        if replica.candidate is None or not replica.candidate.alive:
            after = [steps.start_step(replica, name, Cause(reason="created"), after)]
        judged = self._judge(replica, name, after)
        serving = replica.observed is not None and replica.observed.alive
        switched = self._promote(replica, [judged], pausable=serving)
        steps.starts[replica.name] = switched
        if not serving:
            return switched
        cause = dataclasses.replace(replica.cause, brief="its successor has taken over")
        return self._stop(replica, replica.retired_name, cause, [switched], drain=True)

    def _stop_first(self, replica: Replica, after: list[int]) -> int:
        steps = self._steps
        if replica.observed is not None and replica.observed.alive:
            drain = self._count > 1
            after = [self._stop(replica, replica.name, replica.cause, after, drain=drain)]
        if replica.candidate is None:
            after = [steps.create(replica, after, name=replica.next_name, role="next")]
        switched = self._promote(replica, after)
        if replica.candidate is not None and replica.candidate.alive:
            steps.starts[replica.name] = switched
        else:
            started = steps.start_step(replica, replica.name, Cause(reason="created"), [switched])
            steps.starts[replica.name] = started
        return self._judge(replica, replica.name, [steps.starts[replica.name]])

    def _judge(self, replica: Replica, name: str, after: Iterable[int]) -> int:
        return self._builder.add(
            WaitContainer(
                name=name,
                service=self._service,
                cause=_JUDGE,
                condition="stable",
                timeout=self._strategy.deadline,
                monitor=self._strategy.monitor,
            ),
            after=after,
        )

    def _judge_again(self, replica: Replica) -> tuple[str, int]:
        after = []
        if replica.name in self._steps.starts:
            after.append(self._steps.starts[replica.name])
        return replica.name, self._judge(replica, replica.name, after)

    def _promote(self, replica: Replica, after: Iterable[int], *, pausable: bool = False) -> int:
        return self._builder.add(
            PromoteContainer(
                name=replica.name,
                service=self._service,
                cause=dataclasses.replace(replica.cause, brief="it takes over"),
                candidate=replica.next_name,
                aside=replica.retired_name,
                pausable=pausable,
            ),
            after=after,
        )

    def _stop(
        self, replica: Replica, name: str, cause: Cause, after: Sequence[int], *, drain: bool
    ) -> int:
        if drain and self._published and self._strategy.drain:
            after = [
                self._builder.add(
                    DrainContainer(
                        name=name,
                        service=self._service,
                        cause=cause,
                        timeout=self._strategy.drain,
                    ),
                    after=after,
                )
            ]
        return self._builder.add(
            StopContainer(
                name=name,
                service=self._service,
                cause=cause,
                timeout=self._steps.draft.policy.timeout,
            ),
            after=after,
        )

    def _clean_up(self, batches: Sequence[Sequence[Replica]], passed: dict[str, int]) -> None:
        """Remove what has been exchanged, once there is no way back any more."""
        everything = set(passed.values())
        going = [
            *((r, r.observed) for batch in batches for r in batch),
            *((r, r.retired) for r in self._ahead),
        ]
        for replica, container in going:
            if container is None:
                continue
            done = passed[replica.name]
            after = {done} if self._strategy.failure_action == "continue" else everything
            needs = sorted(after)
            cause = Cause(reason="it has been exchanged")
            if replica.retired is not None and container.alive:
                needs = [self._stop(replica, replica.retired_name, cause, needs, drain=True)]
            self._remove(container, replica.retired_name, cause, needs, everything - after)

    def _remove(
        self,
        container: ObservedContainer,
        name: str,
        cause: Cause,
        after: Iterable[int],
        ordered: Iterable[int],
    ) -> None:
        self._builder.add(
            RemoveContainer(
                name=name,
                service=self._service,
                cause=cause,
                volumes=self._steps.draft.policy.renew_volumes and bool(container.anonymous),
                release=False,
            ),
            after=after,
            ordered=ordered,
        )

    def _summary(self, first: int, names: Sequence[str], held: bool) -> RolloutPlan:
        draft = self._steps.draft
        before = next(
            c
            for r in (*self._waiting, *self._ahead)
            if (c := r.observed if r.verdict == "replace" else r.retired) is not None
        )
        return RolloutPlan(
            service=self._service,
            strategy=self._strategy,
            old=before.spec,
            old_image=before.image_id,
            new=draft.blueprints[self._service],
            new_image=draft.observed.images.get(draft.image(self._service), ""),
            replicas=tuple(names),
            steps=frozenset(range(first, self._builder.size + 1)),
            held=held,
        )
