"""How a plan is walked: order, bounds, failure, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from orchestrator.engine.backend import Backend
from orchestrator.engine.errors import EngineError, chain
from orchestrator.engine.events import StepEvent
from orchestrator.engine.executor import Outcome, execute
from orchestrator.engine.simulated import SimulatedBackend
from orchestrator.planning.actions import Cause, StartContainer, StopContainer, WaitContainer
from orchestrator.planning.plan import Plan, PlanBuilder

CAUSE = Cause(reason="a test")


def start(name: str) -> StartContainer:
    return StartContainer(name=name, service=name, cause=CAUSE)


class Recorder(SimulatedBackend):
    """Starts take until `gate` opens; names in `failing` fail; `most` counts those at once."""

    def __init__(self, failing: tuple[str, ...] = (), gate: asyncio.Event | None = None) -> None:
        super().__init__()
        self.failing = failing
        self.gate = gate
        self.started: list[str] = []
        self.ended: list[str] = []
        self.now = self.most = 0

    async def start_container(self, action: StartContainer) -> None:
        self.started.append(action.name)
        self.now += 1
        self.most = max(self.most, self.now)
        if self.gate is not None:
            await self.gate.wait()
        else:
            await asyncio.sleep(0)
        self.now -= 1
        if action.name in self.failing:
            raise EngineError(f"{action.name} cannot start")
        self.ended.append(action.name)

    async def wait_container(self, action: WaitContainer) -> None:
        await asyncio.Event().wait()


def run(plan: Plan, backend: Backend, parallel: int = 16) -> tuple[Outcome, list[StepEvent]]:
    events: list[StepEvent] = []
    outcome = asyncio.run(execute(plan, backend, events.append, parallel=parallel))
    return outcome, events


def diamond() -> Plan:
    builder = PlanBuilder("shop")
    first = builder.add(start("a"))
    left, right = builder.add(start("b"), [first]), builder.add(start("c"), [first])
    builder.add(start("d"), [left, right])
    return builder.build()


def test_steps_run_after_what_they_wait_for() -> None:
    backend = Recorder()
    outcome, events = run(diamond(), backend)
    assert outcome.ok
    assert backend.started[0] == "a"
    assert backend.started[3] == "d"
    assert [(e.id, e.status) for e in events[:2]] == [(1, "running"), (1, "done")]


def test_a_failure_skips_its_descendants_only() -> None:
    builder = PlanBuilder("shop")
    bad = builder.add(start("bad"))
    child = builder.add(start("child"), [bad])
    builder.add(start("grandchild"), [child])
    builder.add(start("other"))
    outcome, _ = run(builder.build(), Recorder(failing=("bad",)))
    assert outcome.statuses == {1: "failed", 2: "skipped", 3: "skipped", 4: "done"}
    assert [str(failure.error) for failure in outcome.failures] == ["bad cannot start"]


def test_every_failure_is_reported() -> None:
    builder = PlanBuilder("shop")
    for name in ("x", "y", "z"):
        builder.add(start(name))
    outcome, _ = run(builder.build(), Recorder(failing=("x", "z")))
    assert [failure.step.action.name for failure in outcome.failures] == ["x", "z"]


def test_an_ordered_step_runs_even_after_a_failure() -> None:
    builder = PlanBuilder("shop")
    bad = builder.add(start("bad"))
    builder.add(start("next"), ordered=[bad])
    backend = Recorder(failing=("bad",))
    outcome, _ = run(builder.build(), backend)
    assert outcome.statuses == {1: "failed", 2: "done"}
    assert backend.started == ["bad", "next"]


def test_no_more_steps_run_at_once_than_allowed() -> None:
    builder = PlanBuilder("shop")
    for number in range(20):
        builder.add(start(f"c{number}"))
    backend = Recorder()
    outcome, _ = run(builder.build(), backend, parallel=3)
    assert outcome.ok
    assert backend.most == 3


def test_waits_do_not_take_a_place() -> None:
    builder = PlanBuilder("shop")
    builder.add(WaitContainer(name="w", service="w", cause=CAUSE, condition="healthy"))
    builder.add(start("a"))

    async def main() -> Outcome:
        cancel = asyncio.Event()
        backend = Recorder()

        def emit(event: StepEvent) -> None:
            if event.id == 2 and event.status == "done":
                cancel.set()

        return await execute(builder.build(), backend, emit, parallel=1, cancel=cancel)

    assert asyncio.run(main()).statuses == {1: "canceled", 2: "done"}


def cancelled(how: Callable[[asyncio.Event, asyncio.Task[Outcome]], object]) -> Recorder:
    """Run two steps in a row, cancel while the first is under way, and let it finish then."""

    async def main() -> Recorder:
        gate, cancel = asyncio.Event(), asyncio.Event()
        backend = Recorder(gate=gate)
        builder = PlanBuilder("shop")
        builder.add(start("b"), [builder.add(start("a"))])
        under_way = asyncio.Event()

        def emit(event: StepEvent) -> None:
            if event.status == "running":
                under_way.set()

        task = asyncio.ensure_future(execute(builder.build(), backend, emit, cancel=cancel))
        await under_way.wait()
        how(cancel, task)
        await asyncio.sleep(0)
        gate.set()
        try:
            outcome = await task
            assert outcome.statuses == {1: "done", 2: "canceled"}
            assert outcome.canceled
        except asyncio.CancelledError:
            pass
        return backend

    return asyncio.run(main())


def test_a_cancel_lets_finish_what_is_under_way_and_begins_nothing() -> None:
    backend = cancelled(lambda cancel, task: cancel.set())
    assert (backend.started, backend.ended) == (["a"], ["a"])


def test_cancelling_the_task_does_the_same() -> None:
    backend = cancelled(lambda cancel, task: task.cancel())
    assert (backend.started, backend.ended) == (["a"], ["a"])


def test_what_is_interrupted_may_take_its_time_to_end() -> None:
    class Slow(Recorder):
        """Its waits end only some time after they were told to."""

        async def wait_container(self, action: WaitContainer) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                for _ in range(20):
                    await asyncio.sleep(0)
                self.ended.append(action.name)
                raise

    async def main() -> Slow:
        cancel = asyncio.Event()
        backend = Slow()
        builder = PlanBuilder("shop")
        for name in ("a", "b", "c"):
            builder.add(WaitContainer(name=name, service=name, cause=CAUSE, condition="ready"))
        builder.add(start("d"))

        def emit(event: StepEvent) -> None:
            if event.id == 4 and event.status == "done":
                cancel.set()

        outcome = await execute(builder.build(), backend, emit, cancel=cancel)
        assert outcome.statuses == {1: "canceled", 2: "canceled", 3: "canceled", 4: "done"}
        return backend

    assert sorted(asyncio.run(main()).ended) == ["a", "b", "c", "d"]


def test_an_empty_plan_ends_at_once() -> None:
    outcome, events = run(Plan(project="shop"), Recorder())
    assert outcome.ok
    assert events == []


def test_steps_are_told_in_composes_words() -> None:
    builder = PlanBuilder("shop")
    builder.add(StopContainer(name="shop-web-1", service="web", cause=CAUSE))
    _, events = run(builder.build(), SimulatedBackend())
    assert [(e.resource, e.text) for e in events] == [
        ("Container shop-web-1", "Stopping"),
        ("Container shop-web-1", "Error"),
    ]
    assert events[1].detail == "no such container: shop-web-1"


def test_a_chain_of_causes_reads_as_one_line() -> None:
    with pytest.raises(EngineError) as caught:
        try:
            raise OSError("disk full")
        except OSError as exc:
            raise EngineError("write the log") from exc
    assert chain(caught.value) == "write the log: disk full"
