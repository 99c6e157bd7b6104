"""One running daemon's parts, wired together once and handed to whoever needs them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import time

from orchestrator.engine.host import Host
from orchestrator.engine.local import LocalBackend
from orchestrator.engine.memory import Tidying
from orchestrator.supervisor.controller import Controller
from orchestrator.supervisor.journal import Journal
from orchestrator.supervisor.metrics import Metrics
from orchestrator.supervisor.operations import Operations
from orchestrator.supervisor.sources import SourceKeeper
from orchestrator.supervisor.webhooks import Webhooks


@dataclass(slots=True, kw_only=True)
class Instance:
    """`ending` is set when the daemon is told to end; `runs` are the operations under way, each
    with the event that ends it early. `sources` and `webhooks` are set once the rest is there,
    which they work with."""

    host: Host
    backend: LocalBackend
    controller: Controller
    operations: Operations
    journal: Journal
    metrics: Metrics = field(default_factory=Metrics)
    started_at: float = field(default_factory=time)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    runs: dict[asyncio.Task[None], asyncio.Event] = field(default_factory=dict)
    tidying: Tidying = field(default_factory=Tidying)
    sources: SourceKeeper = field(init=False)
    webhooks: Webhooks = field(init=False)

    async def end_runs(self) -> None:
        """Cancel every operation and wait until what it was doing is done: what they use must
        not be closed under them."""
        while self.runs:
            for cancel in self.runs.values():
                cancel.set()
            await asyncio.wait(tuple(self.runs))
