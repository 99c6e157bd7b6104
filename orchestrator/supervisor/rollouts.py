"""Rollouts as objects: begun with a plan, followed step by step, judged when it has ended.

A rollout that fails takes back what has not proved itself, at once; what else becomes of it is
its failure action. Everything is written down before it is done, so that the next daemon goes
on where this one was killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import time
from typing import Any

from orchestrator.engine.errors import EngineError, RolloutPaused, chain
from orchestrator.engine.executor import PARALLEL, Failure, Outcome
from orchestrator.engine.local import LocalBackend
from orchestrator.engine.outputs import last_lines
from orchestrator.engine.rollout_table import RolloutRecord, RolloutState
from orchestrator.planning.actions import (
    ContainerAction,
    CreateContainer,
    DrainContainer,
    PromoteContainer,
    RemoveContainer,
    WaitContainer,
)
from orchestrator.planning.drift import Change, same_form, service_drift
from orchestrator.planning.plan import Plan, RolloutPlan
from orchestrator.planning.replicas import NEXT, RETIRED
from orchestrator.planning.revert import revert
from orchestrator.planning.rollout import Strategy, rollback_strategy

_log = logging.getLogger(__name__)

LINES = 20

Execute = Callable[[Plan, int], Awaitable[Outcome]]
"""Runs a plan that takes something back, so many actions at a time; nothing cancels it."""


class NoSuchRollout(EngineError):
    def __init__(self, project: str, service: str) -> None:
        super().__init__(f"service {service} of project {project} has had no rollout")


class RolloutNotRunning(EngineError):
    def __init__(self, service: str, state: str) -> None:
        super().__init__(f"the rollout of service {service} is not running but {state}")


class RolledBack(EngineError):
    """A rollout that failed; `output_tail` is what the failing replica wrote last."""

    def __init__(self, service: str, state: RolloutState, reason: str, output: str) -> None:
        what = {
            "rolled_back": "was rolled back",
            "paused": "is paused, and what failed was taken back",
        }.get(state, "failed, and what failed was taken back")
        super().__init__(
            f"the rollout of service {service} {what}: {reason}",
            hint=f"bay rollout status {service} shows it; change the service and run up again",
        )
        self.output_tail = output


class RolloutKeeper:
    def __init__(self, backend: LocalBackend, execute: Execute) -> None:
        self._backend = backend
        self._table = backend.host.store.rollouts
        self._execute = execute

    def begin(self, plan: Plan) -> dict[str, int]:
        """Write the plan's rollouts down: {service: id}. One to the same form that is under way
        or paused goes on."""
        ids = {}
        for rollout in plan.rollouts:
            new = {"spec": rollout.new, "image_id": rollout.new_image}
            latest = self._table.latest(plan.project, rollout.service)
            if (
                latest is not None
                and latest.state in ("running", "paused")
                and same_form(latest.new["spec"], rollout.new)
            ):
                self._table.update(latest.id, state="running", reason="")
                ids[rollout.service] = latest.id
                continue
            now = time()
            strategy = rollout.strategy
            batches = len(strategy.batches(rollout.replicas)) or 1
            begun = self._table.begin(
                RolloutRecord(
                    project=plan.project,
                    service=rollout.service,
                    strategy=strategy.to_json(),
                    old={"spec": rollout.old, "image_id": rollout.old_image},
                    new=new,
                    started_at=now,
                    deadline=now + batches * (strategy.deadline + strategy.delay + strategy.drain),
                )
            )
            ids[rollout.service] = begun.id
        return ids

    def step(self, plan: Plan, ids: dict[str, int], number: int) -> None:
        """Note that a step of the plan has begun."""
        for rollout in plan.rollouts:
            if number in rollout.steps:
                action = plan.steps[number - 1].action
                self._table.update(ids[rollout.service], step=action.text())

    async def judge(
        self, plan: Plan, ids: dict[str, int], outcome: Outcome, parallel: int = PARALLEL
    ) -> dict[str, RolledBack]:
        """What became of the plan's rollouts; what failed is taken back, `parallel` actions at a
        time. The result has an error for each service whose rollout failed."""
        failed = {}
        for rollout in plan.rollouts:
            id = ids[rollout.service]
            if all(outcome.statuses[number] == "done" for number in rollout.steps):
                if rollout.held:
                    self._table.update(id, state="paused", reason="the canaries wait for your word")
                else:
                    self._table.update(id, state="completed", reason="", finished_at=time())
                continue
            own = [f for f in outcome.failures if _concerns(f, rollout)]
            if own and isinstance(own[0].error, RolloutPaused):
                self._table.update(id, state="paused", reason="somebody paused it")
                continue
            error = await self._take_back(plan, rollout, id, outcome, own, parallel)
            if error is not None:
                failed[rollout.service] = error
        return failed

    async def _take_back(
        self,
        plan: Plan,
        rollout: RolloutPlan,
        id: int,
        outcome: Outcome,
        own: Sequence[Failure],
        parallel: int,
    ) -> RolledBack | None:
        host = self._backend.host
        if not own:
            # Nothing of it failed: the run was cancelled, or what it needs did not come to be.
            reason = "the run was cancelled" if outcome.canceled else "the run failed before it"
            names = _unproven(plan, rollout, outcome)
            await self._revert(plan.project, rollout, reason, names, parallel)
            self._table.update(
                id,
                state="paused" if outcome.canceled else "failed",
                reason=reason,
                finished_at=None if outcome.canceled else time(),
            )
            return None
        reason = chain(own[0].error)
        lines = await asyncio.to_thread(last_lines, host, own[0].step.action.name, LINES)
        self._table.update(id, reason=reason, output=tuple(lines))
        state: RolloutState
        if rollout.strategy.failure_action == "rollback":
            self._table.update(id, state="reverting")
            why = f"rolled back: {reason}"
            done = await self._revert(plan.project, rollout, why, None, parallel)
            state = "rolled_back"
        else:
            names = _unproven(plan, rollout, outcome)
            why = f"it failed: {reason}"
            done = await self._revert(plan.project, rollout, why, names, parallel)
            state = "paused" if rollout.strategy.failure_action == "pause" else "failed"
        if not done:
            state = "failed"
        self._table.update(id, state=state, finished_at=None if state == "paused" else time())
        return RolledBack(rollout.service, state, reason, "\n".join(lines))

    async def revert_record(
        self, record: RolloutRecord, reason: str, parallel: int = PARALLEL
    ) -> bool:
        """Take a rollout back as far as its containers stand aside; whether that went well."""
        self._table.update(record.id, state="reverting")
        strategy = Strategy.from_json(record.strategy)
        back = rollback_strategy(record.new["spec"]["service"], strategy)
        done = await self._run_back(record.project, record.service, back, reason, None, parallel)
        self._table.update(
            record.id,
            state="rolled_back" if done else "failed",
            reason=record.reason or reason,
            finished_at=time(),
        )
        return done

    async def _revert(
        self,
        project: str,
        rollout: RolloutPlan,
        reason: str,
        names: Iterable[str] | None,
        parallel: int,
    ) -> bool:
        back = rollback_strategy(rollout.new["service"], rollout.strategy)
        return await self._run_back(project, rollout.service, back, reason, names, parallel)

    async def _run_back(
        self,
        project: str,
        service: str,
        strategy: Strategy,
        reason: str,
        names: Iterable[str] | None,
        parallel: int,
    ) -> bool:
        observed = await self._backend.observe(project)
        numbers = None
        if names is not None:
            wanted = set(names)
            numbers = {c.number for c in observed.of_service(service) if c.name in wanted}
        plan = revert(project, service, observed, strategy, reason, time(), numbers=numbers)
        outcome = await self._execute(plan, parallel)
        for failure in outcome.failures:
            _log.error("%s: %s", failure.step.action.text(), chain(failure.error))
        return outcome.ok


def replica_of(name: str) -> str:
    """The replica's name of a container that a rollout calls otherwise."""
    return name.removesuffix(NEXT).removesuffix(RETIRED)


def _concerns(failure: Failure, rollout: RolloutPlan) -> bool:
    action = failure.step.action
    return failure.step.id in rollout.steps or (
        isinstance(action, ContainerAction) and action.service == rollout.service
    )


def _unproven(plan: Plan, rollout: RolloutPlan, outcome: Outcome) -> set[str]:
    """The replicas whose exchange was begun and has not come to its end."""
    begun: set[str] = set()
    unfinished: set[str] = set()
    for step in plan.steps:
        action = step.action
        if step.id not in rollout.steps or not isinstance(action, ContainerAction):
            continue
        name = replica_of(action.name)
        status = outcome.statuses[step.id]
        if isinstance(action, RemoveContainer):
            continue
        if status in ("done", "failed") or (
            status == "canceled" and isinstance(action, WaitContainer | DrainContainer)
        ):
            begun.add(name)
        if status != "done" and isinstance(
            action, CreateContainer | WaitContainer | PromoteContainer
        ):
            unfinished.add(name)
    return begun & unfinished


def rollout_body(record: RolloutRecord) -> dict[str, Any]:
    """A rollout as the API tells it; specs without what may be secret."""

    def form(side: Any) -> dict[str, Any]:
        service = side["spec"]["service"]
        return {"image": service.get("image"), "image_id": side["image_id"]}

    return {
        "id": record.id,
        "service": record.service,
        "state": record.state,
        "step": record.step,
        "reason": record.reason,
        "output": list(record.output),
        "strategy": dict(record.strategy),
        "from": form(record.old),
        "to": form(record.new),
        "changes": [change.to_json() for change in _changes(record)],
        "started_at": record.started_at,
        "deadline": record.deadline,
        "finished_at": record.finished_at,
    }


def _changes(record: RolloutRecord) -> tuple[Change, ...]:
    return service_drift(
        record.old["spec"],
        record.new["spec"],
        old_image=record.old["image_id"] or None,
        new_image=record.new["image_id"] or None,
    )
