"""Walks a plan: runs what is ready with bounded concurrency, and decides nothing.

A step that fails skips its descendants and nothing else; every failure is reported. When the
run is cancelled no further step begins, waits and builds end at once, and any other action
that is under way is let finish, because half an action would leave what the plan does not know.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Literal

from orchestrator.engine.backend import Backend, perform
from orchestrator.engine.errors import chain
from orchestrator.engine.events import StepEvent, StepStatus
from orchestrator.planning.actions import WaitContainer
from orchestrator.planning.plan import Plan, Step

PARALLEL = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    step: Step
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of every step, by id; `failures` are in the order in which they happened."""

    statuses: dict[int, StepStatus]
    failures: tuple[Failure, ...] = ()

    @property
    def ok(self) -> bool:
        return all(status == "done" for status in self.statuses.values())

    @property
    def canceled(self) -> bool:
        return "canceled" in self.statuses.values()


@dataclass(slots=True)
class _Walk:
    plan: Plan
    statuses: dict[int, StepStatus] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    missing: dict[int, int] = field(default_factory=dict)
    followers: dict[int, list[Step]] = field(default_factory=dict)
    ready: list[tuple[int, Step]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for step in self.plan.steps:
            waits = (*step.after, *step.ordered)
            self.missing[step.id] = len(waits)
            for other in waits:
                self.followers.setdefault(other, []).append(step)
            if not waits:
                heapq.heappush(self.ready, (step.id, step))

    def end(self, step: Step, status: StepStatus) -> list[Step]:
        """Record the end of a step; the result lists the steps that are skipped for it."""
        skipped: list[Step] = []
        ended = [(step, status)]
        while ended:
            current, current_status = ended.pop()
            self.statuses[current.id] = current_status
            for follower in self.followers.get(current.id, ()):
                self.missing[follower.id] -= 1
                if self.missing[follower.id]:
                    continue
                if all(self.statuses[id] == "done" for id in follower.after):
                    heapq.heappush(self.ready, (follower.id, follower))
                else:
                    skipped.append(follower)
                    ended.append((follower, "skipped"))
        return skipped


async def execute(
    plan: Plan,
    backend: Backend,
    emit: Callable[[StepEvent], None],
    *,
    parallel: int = PARALLEL,
    cancel: asyncio.Event | None = None,
) -> Outcome:
    """Run the plan; `parallel` bounds the actions under way, waits not counted.

    Setting `cancel` ends the run cleanly; so does cancelling the task, which then raises
    CancelledError once what was under way has finished.
    """
    walk = _Walk(plan)
    cancel = cancel or asyncio.Event()
    running: dict[asyncio.Task[None], tuple[Step, float]] = {}
    canceling = asyncio.ensure_future(cancel.wait())
    stopped = False
    interrupted: set[asyncio.Task[None]] = set()

    def tell(step: Step, status: StepStatus, detail: str = "", seconds: float = 0.0) -> None:
        emit(
            StepEvent(
                project=plan.project,
                at=time(),
                id=step.id,
                status=status,
                resource=step.action.resource[:1].upper() + step.action.resource[1:],
                text=_word(step, status),
                detail=detail,
                seconds=seconds,
            )
        )

    def begin() -> None:
        waiting: list[tuple[int, Step]] = []
        busy = sum(not isinstance(s.action, WaitContainer) for s, _ in running.values())
        while walk.ready:
            entry = heapq.heappop(walk.ready)
            step = entry[1]
            if not isinstance(step.action, WaitContainer):
                if busy >= parallel:
                    waiting.append(entry)
                    continue
                busy += 1
            tell(step, "running")
            running[asyncio.create_task(perform(backend, step.action))] = (step, monotonic())
        walk.ready = waiting
        heapq.heapify(walk.ready)

    def finish(task: asyncio.Task[None]) -> None:
        step, started = running.pop(task)
        seconds = monotonic() - started
        if task.cancelled():
            status: StepStatus = "canceled"
            tell(step, status, seconds=seconds)
        elif (error := task.exception()) is None:
            status = "done"
            tell(step, status, seconds=seconds)
        elif isinstance(error, Exception):
            status = "failed"
            walk.failures.append(Failure(step=step, error=error))
            tell(step, status, chain(error), seconds)
        else:
            raise error
        for skipped in walk.end(step, status):
            tell(skipped, "skipped")

    try:
        while True:
            if not cancel.is_set():
                begin()
            if not running:
                break
            try:
                await _first_done(running, canceling)
            except asyncio.CancelledError:
                stopped = True
                cancel.set()
            if cancel.is_set():
                for task, (step, _) in running.items():
                    # Once only: a second time would cut short what it does to end cleanly.
                    if step.action.interruptible and task not in interrupted:
                        interrupted.add(task)
                        task.cancel()
            for task in [task for task in running if task.done()]:
                finish(task)
    finally:
        canceling.cancel()
    for step in plan.steps:
        if step.id not in walk.statuses:
            walk.statuses[step.id] = "canceled"
            tell(step, "canceled")
    if stopped:
        raise asyncio.CancelledError
    return Outcome(statuses=dict(sorted(walk.statuses.items())), failures=tuple(walk.failures))


def _word(step: Step, status: StepStatus) -> str:
    """Compose's word for a step in this status."""
    under_way, done = step.action.words
    match status:
        case "running":
            return under_way
        case "done":
            return step.action.fulfilled if isinstance(step.action, WaitContainer) else done
        case "failed":
            return "Error"
        case "skipped":
            return "Skipped"
        case "canceled":
            return "Canceled"


async def _first_done(
    running: Iterable[asyncio.Task[None]], canceling: asyncio.Future[Literal[True]]
) -> None:
    """Return when a task has ended, or when the run is cancelled for the first time."""
    watched: set[asyncio.Future[None] | asyncio.Future[Literal[True]]] = {*running}
    if not canceling.done():
        watched.add(canceling)
    await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
