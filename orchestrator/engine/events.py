"""Typed events, and the bus that the API, the log and the waits listen to.

An event says that something may have changed. Whoever acts on it reads the whole state again;
nothing depends on having seen it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

StepStatus = Literal["running", "done", "failed", "skipped", "canceled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; `at` is in seconds since the epoch."""

    type: ClassVar[str]

    project: str
    at: float

    def to_json(self) -> dict[str, Any]:
        # Not asdict(): it copies to the bottom, and an `up` tells hundreds of events.
        return {"type": self.type, **{part.name: getattr(self, part.name) for part in fields(self)}}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent(Event):
    """A step of a plan moved on; `resource` and `text` are Compose's words (Container web-1,
    Creating), `detail` is an error's text."""

    type = "step"

    id: int
    status: StepStatus
    resource: str
    text: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildEvent(Event):
    """A builder's progress: one line of output or one step."""

    type = "build"

    service: str
    step: str = ""
    line: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PullEvent(Event):
    """A pull's progress: `digest` is the blob or manifest, `current` and `total` are bytes."""

    type = "pull"

    image: str
    stage: str
    digest: str = ""
    current: int = 0
    total: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEvent(Event):
    """A container changed: create, start, stop, die, kill, restart, destroy, update,
    health_status, exec_create, exec_start, exec_die, as Docker names it."""

    type = "container"

    action: str
    id: str
    name: str
    service: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceEvent(Event):
    """A network, volume or image changed: create, remove, pull, build, repair."""

    type = "resource"

    action: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningEvent(Event):
    """What a person should know of how an operation went; `hint` says what can be done."""

    type = "warning"

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftEvent(Event):
    """Something that is ours was changed by somebody else: `what` was found of the network,
    container or volume `name`, and `done` about it; empty where a person has to decide."""

    type = "drift"

    kind: str
    name: str
    what: str
    done: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitopsEvent(Event):
    """Something became of a git source: applied, failed, reverting, rolled-back, superseded,
    planned, drift, suspended, resumed. `message` is an error's text, or what a dry run would
    do; `seconds` is what it took."""

    type = "gitops"

    action: str
    source: str
    commit: str = ""
    reason: str = ""
    message: str = ""
    seconds: float = 0.0


class Subscription:
    """The events since it was opened, oldest first; at most `limit` are held.

    A slow listener loses the oldest events and is told so by `lost`, rather than holding the
    memory of the process.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events: list[Event] = []
        self._ready = asyncio.Event()
        self.lost = 0

    def put(self, event: Event) -> None:
        if len(self._events) >= self._limit:
            del self._events[0]
            self.lost += 1
        self._events.append(event)
        self._ready.set()

    async def get(self) -> Event:
        while not self._events:
            self._ready.clear()
            await self._ready.wait()
        return self._events.pop(0)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            yield await self.get()


class EventBus:
    """Hands every event to every open subscription; used from one event loop only."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[Callable[[Event], None]] = []

    def publish(self, event: Event) -> None:
        for subscription in self._subscriptions:
            subscription.put(event)
        for listener in self._listeners:
            listener(event)

    @contextmanager
    def listen(self, listener: Callable[[Event], None]) -> Iterator[None]:
        """Call `listener` with every event, at once."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @contextmanager
    def subscribe(self, limit: int = 10_000) -> Iterator[Subscription]:
        subscription = Subscription(limit)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
