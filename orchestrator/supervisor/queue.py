"""A level-triggered queue of keys: what is added is looked at again, once, soon.

A key waits at most once; one that is added while it is being worked on comes back when that
ends; no key is ever worked on twice at a time. A failure brings the key back after a delay
that doubles (with jitter) until a success forgets it. One that is added gently rests after it
was looked at, so that what many ask for does not keep everybody from working.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic

FIRST_DELAY = 0.05
LONGEST_DELAY = 60.0
REST = 2.0
LONGEST_REST = 0.1

Work = Callable[[str], Awaitable[float | None]]
"""Bring one key in order; the result is a number of seconds after which to look again."""


class KeyedQueue:
    """`rng` gives the jitter; `report` gets a key and the error that its work raised; `worked`
    is told of every attempt: its key, whether it succeeded, and the seconds that it took."""

    def __init__(
        self,
        rng: random.Random,
        report: Callable[[str, Exception], None],
        worked: Callable[[str, bool, float], None] | None = None,
    ) -> None:
        self._rng = rng
        self._report = report
        self._worked = worked
        self._waiting: deque[str] = deque()
        self._queued: set[str] = set()
        self._working: set[str] = set()
        self._dirty: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._delays: dict[str, float] = {}
        self._gentle: set[str] = set()
        self._resting: dict[str, asyncio.TimerHandle] = {}
        self._asked: set[str] = set()
        self._ready = asyncio.Event()

    def add(self, key: str) -> None:
        """Have the key looked at as soon as a worker is free."""
        self._cancel_timer(key)
        if key in self._working:
            self._dirty.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.append(key)
            self._ready.set()

    def add_gently(self, key: str) -> None:
        """Have the key looked at soon, but not within REST times as long as the last look took
        after that: for what is added often, and looks at much."""
        if key in self._working or key in self._resting:
            self._asked.add(key)
        else:
            self._gentle.add(key)
            self.add(key)

    def add_after(self, key: str, seconds: float) -> None:
        """Have the key looked at after a time, unless it is added before that."""
        self._cancel_timer(key)
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(max(0.0, seconds), self.add, key)

    def forget(self, key: str) -> None:
        """Drop what is planned for the key."""
        self._cancel_timer(key)
        self._delays.pop(key, None)
        self._dirty.discard(key)
        self._asked.discard(key)
        if key in self._queued:
            self._queued.discard(key)
            self._waiting.remove(key)

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._queued)

    @property
    def failing(self) -> int:
        """How many keys failed when they were last worked on."""
        return len(self._delays)

    async def run(self, work: Work, workers: int) -> None:
        """Work until cancelled, on as many keys at a time as there are workers."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker(work))

    def close(self) -> None:
        for key in list(self._timers):
            self._cancel_timer(key)
        for timer in self._resting.values():
            timer.cancel()
        self._resting.clear()

    async def _worker(self, work: Work) -> None:
        while True:
            while not self._waiting:
                self._ready.clear()
                await self._ready.wait()
            key = self._waiting.popleft()
            self._queued.discard(key)
            self._working.add(key)
            began = monotonic()
            try:
                await self._attempt(key, work)
            finally:
                self._working.discard(key)
                self._rest(key, monotonic() - began)
                if key in self._dirty:
                    self._dirty.discard(key)
                    self.add(key)

    def _rest(self, key: str, took: float) -> None:
        if key in self._gentle | self._asked and key not in self._resting:
            self._gentle.discard(key)
            loop = asyncio.get_running_loop()
            rest = min(REST * took, LONGEST_REST)
            self._resting[key] = loop.call_later(rest, self._rested, key)

    def _rested(self, key: str) -> None:
        del self._resting[key]
        if key in self._asked:
            self._asked.discard(key)
            self.add_gently(key)

    async def _attempt(self, key: str, work: Work) -> None:
        began = monotonic()
        try:
            again = await work(key)
        except Exception as exc:
            self._tell(key, False, began)
            self._report(key, exc)
            delay = min(self._delays.get(key, FIRST_DELAY / 2) * 2, LONGEST_DELAY)
            self._delays[key] = delay
            self.add_after(key, delay * self._rng.uniform(0.8, 1.2))
            return
        self._tell(key, True, began)
        self._delays.pop(key, None)
        if again is not None:
            self.add_after(key, again)

    def _tell(self, key: str, succeeded: bool, began: float) -> None:
        if self._worked is not None:
            self._worked(key, succeeded, monotonic() - began)

    def _cancel_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
