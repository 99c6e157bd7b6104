"""The level-triggered queue: each key once, never twice at a time, again after a failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from orchestrator.supervisor import queue
from orchestrator.supervisor.queue import KeyedQueue


class Bench:
    """A queue with workers whose work a test scripts."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.queue = KeyedQueue(random.Random(1), lambda key, exc: self.errors.append(str(exc)))
        self.seen: list[str] = []

    async def during(
        self,
        work: Callable[[str], Awaitable[float | None]],
        body: Callable[[], Awaitable[None]],
        workers: int = 2,
    ) -> None:
        async def note(key: str) -> float | None:
            self.seen.append(key)
            return await work(key)

        running = asyncio.ensure_future(self.queue.run(note, workers))
        try:
            await asyncio.wait_for(body(), 5)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.queue.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_a_key_that_is_added_twice_is_looked_at_once() -> None:
    async def main() -> None:
        bench = Bench()

        async def work(key: str) -> None:
            return None

        async def body() -> None:
            for _ in range(3):
                bench.queue.add("a")
            bench.queue.add("b")
            await until(lambda: "b" in bench.seen)
            assert bench.seen == ["a", "b"]

        await bench.during(work, body)

    asyncio.run(main())


def test_a_key_that_is_added_while_it_is_worked_on_comes_back_once() -> None:
    async def main() -> None:
        bench = Bench()
        gate = asyncio.Event()
        at_once = most = 0

        async def work(key: str) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await gate.wait()
            at_once -= 1

        async def body() -> None:
            bench.queue.add("a")
            await until(lambda: bench.seen == ["a"])
            bench.queue.add("a")
            bench.queue.add("a")
            gate.set()
            await until(lambda: len(bench.seen) == 2 and at_once == 0)
            assert most == 1

        await bench.during(work, body)

    asyncio.run(main())


def test_a_failure_is_reported_and_tried_again() -> None:
    async def main() -> None:
        bench = Bench()

        async def work(key: str) -> None:
            if len(bench.seen) < 3:
                raise ValueError(f"attempt {len(bench.seen)}")

        async def body() -> None:
            bench.queue.add("a")
            await until(lambda: len(bench.seen) == 3)
            assert bench.errors == ["attempt 1", "attempt 2"]

        await bench.during(work, body)

    asyncio.run(main())


def test_work_can_ask_to_look_again_later_and_an_event_comes_before_that() -> None:
    async def main() -> None:
        bench = Bench()

        async def work(key: str) -> float | None:
            return 3600.0 if len(bench.seen) == 1 else None

        async def body() -> None:
            bench.queue.add("a")
            await until(lambda: len(bench.seen) == 1)
            bench.queue.add("a")
            await until(lambda: len(bench.seen) == 2)

        await bench.during(work, body)

    asyncio.run(main())


def test_what_is_forgotten_does_not_come() -> None:
    async def main() -> None:
        bench = Bench()

        async def work(key: str) -> None:
            return None

        async def body() -> None:
            bench.queue.add("a")
            bench.queue.add_after("b", 0.0)
            bench.queue.forget("a")
            bench.queue.forget("b")
            bench.queue.add("c")
            await until(lambda: "c" in bench.seen)
            assert bench.seen == ["c"]

        await bench.during(work, body)

    asyncio.run(main())


def test_what_is_added_gently_rests_after_it_was_looked_at_and_is_not_forgotten() -> None:
    async def main() -> None:
        bench = Bench()
        ended: list[float] = []
        began: list[float] = []
        loop = asyncio.get_running_loop()

        async def work(key: str) -> None:
            if key == "a":
                began.append(loop.time())
                await asyncio.sleep(0.01)
                ended.append(loop.time())

        async def body() -> None:
            bench.queue.add_gently("a")
            await until(lambda: len(began) == 1)
            bench.queue.add_gently("a")
            bench.queue.add_gently("a")
            await until(lambda: len(ended) == 1)
            bench.queue.add_gently("a")
            bench.queue.add("b")
            await until(lambda: "b" in bench.seen)
            assert bench.seen == ["a", "b"]
            await until(lambda: len(ended) == 2)
            assert began[1] - ended[0] > 0.01
            assert bench.seen == ["a", "b", "a"]

        await bench.during(work, body)

    asyncio.run(main())


def test_what_rests_is_looked_at_at_once_when_it_is_added_as_usual(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "LONGEST_REST", 3600.0)
    monkeypatch.setattr(queue, "REST", 1e9)

    async def main() -> None:
        bench = Bench()
        ended: list[str] = []

        async def work(key: str) -> None:
            await asyncio.sleep(0)
            ended.append(key)

        async def body() -> None:
            bench.queue.add_gently("a")
            await until(lambda: ended == ["a"])
            bench.queue.add("a")
            await until(lambda: ended == ["a", "a"])

        await bench.during(work, body)

    asyncio.run(main())
