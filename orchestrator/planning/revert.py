"""The way back of a rollout: what each replica was exchanged for gives its place back.

It needs nothing but what is observed. A replica whose new container has not taken over yet
loses that one; where it has, the one that stands aside takes its place again.
"""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.planning.actions import (
    Cause,
    DrainContainer,
    PromoteContainer,
    RemoveContainer,
    StartContainer,
    StopContainer,
    WaitContainer,
)
from orchestrator.planning.hooks import with_hooks
from orchestrator.planning.observed import Observed, ObservedContainer
from orchestrator.planning.plan import Plan, PlanBuilder
from orchestrator.planning.replicas import NEXT
from orchestrator.planning.rollout import Strategy, obstacle


def revert(
    project: str,
    service: str,
    observed: Observed,
    strategy: Strategy,
    reason: str,
    now: float,
    *,
    numbers: Collection[int] | None = None,
) -> Plan:
    """Plan it for the replicas of these numbers (None: all) by `strategy`'s order and batches."""
    builder = PlanBuilder(project)
    cause = Cause(reason=reason)
    current = {c.number: c for c in observed.of_service(service)}
    candidates = {c.number: c for c in observed.beside(service, "next")}
    retired = {c.number: c for c in observed.beside(service, "retired")}
    chosen = [
        number
        for number in sorted(current)
        if (numbers is None or number in numbers)
        and (number in candidates or number in retired or not _as_meant(current[number]))
    ]
    last: list[int] = []
    for batch in strategy.batches(chosen):
        ended: list[int] = []
        for number in batch:
            after = list(last)
            if number in candidates:
                after = [
                    _discard(builder, candidates[number], candidates[number].name, cause, after)
                ]
            if number in retired:
                ended.append(
                    _take_back(builder, current[number], retired[number], strategy, cause, after)
                )
            elif _as_meant(current[number]):
                ended += after
            else:
                ended.append(_start(builder, current[number].name, service, cause, after))
        last = ended
    return with_hooks(builder.build(), observed)


def _as_meant(container: ObservedContainer) -> bool:
    return container.alive or container.completed


def _take_back(
    builder: PlanBuilder,
    current: ObservedContainer,
    retired: ObservedContainer,
    strategy: Strategy,
    cause: Cause,
    after: list[int],
) -> int:
    service, name, aside = current.service, current.name, current.name + NEXT
    serving = current.status == "running" and current.health in ("none", "healthy")
    beside = (
        serving and strategy.order == "start-first" and obstacle(retired.spec["service"]) is None
    )

    def judge(name: str, after: list[int]) -> list[int]:
        wait = WaitContainer(
            name=name, service=service, cause=cause, condition="ready", timeout=strategy.deadline
        )
        return [builder.add(wait, after=after)]

    def promote(after: list[int]) -> list[int]:
        switch = PromoteContainer(
            name=name,
            service=service,
            cause=cause,
            candidate=retired.name,
            aside=aside,
            role="next",
        )
        return [builder.add(switch, after=after)]

    if beside:
        if not retired.alive:
            after = [_start(builder, retired.name, service, cause, after)]
        after = promote(judge(retired.name, after))
        if strategy.drain:
            drain = DrainContainer(name=aside, service=service, cause=cause, timeout=strategy.drain)
            after = [builder.add(drain, after=after)]
        return _discard(builder, current, aside, cause, after)
    if current.alive:
        after = [builder.add(StopContainer(name=name, service=service, cause=cause), after=after)]
    after = promote(after)
    if not retired.alive:
        after = [_start(builder, name, service, cause, after)]
    after = judge(name, after)
    return builder.add(
        RemoveContainer(name=aside, service=service, cause=cause, release=False), after=after
    )


def _start(builder: PlanBuilder, name: str, service: str, cause: Cause, after: list[int]) -> int:
    return builder.add(StartContainer(name=name, service=service, cause=cause), after=after)


def _discard(
    builder: PlanBuilder, container: ObservedContainer, name: str, cause: Cause, after: list[int]
) -> int:
    if container.alive:
        stop = StopContainer(name=name, service=container.service, cause=cause)
        after = [builder.add(stop, after=after)]
    return builder.add(
        RemoveContainer(name=name, service=container.service, cause=cause, release=False),
        after=after,
    )
