"""Memory is given back once the work has come to rest, and once only."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.engine import memory


def test_memory_is_given_back_once_after_the_last_piece_of_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[float] = []
    monkeypatch.setattr(memory, "QUIET", 0.02)
    monkeypatch.setattr(memory, "give_back", lambda: given.append(1))

    async def main() -> None:
        tidying = memory.Tidying()
        for _ in range(5):
            tidying.soon()
        async with asyncio.timeout(10):
            while not given:
                await asyncio.sleep(0.01)
        await asyncio.get_running_loop().shutdown_default_executor()
        tidying.close()

    asyncio.run(main())
    assert given == [1]


def test_nothing_is_given_back_once_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr(memory, "QUIET", 0.0)
    monkeypatch.setattr(memory, "give_back", lambda: given.append(1))

    async def main() -> None:
        tidying = memory.Tidying()
        tidying.soon()
        tidying.close()
        await asyncio.sleep(0.02)

    asyncio.run(main())
    assert given == []


def test_memory_is_given_back_at_once_after_a_large_piece_and_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[float] = []
    monkeypatch.setattr(memory, "QUIET", 3600.0)
    monkeypatch.setattr(memory, "give_back", lambda: given.append(1))

    async def large(tidying: memory.Tidying, *, times: int) -> None:
        tidying.now()
        async with asyncio.timeout(10):
            while len(given) < times:
                await asyncio.sleep(0.01)

    async def main() -> None:
        tidying = memory.Tidying()
        await large(tidying, times=1)
        monkeypatch.setattr(memory, "QUIET", 0.02)
        await large(tidying, times=3)
        await asyncio.get_running_loop().shutdown_default_executor()
        tidying.close()

    asyncio.run(main())
    assert len(given) == 3
