"""All sources of an instance: what is asked of them, and when each is looked at."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from time import time
from typing import TYPE_CHECKING, Any

from orchestrator.engine.errors import EngineError, chain
from orchestrator.engine.events import ContainerEvent, Event, GitopsEvent, ResourceEvent
from orchestrator.engine.gitops_table import Passage, SourceRecord
from orchestrator.gitops import reconcile
from orchestrator.gitops.errors import GitOpsError
from orchestrator.supervisor.attempts import Repository, Told
from orchestrator.supervisor.bringing import Stacks
from orchestrator.supervisor.errors import BadRequest
from orchestrator.supervisor.operations import Run, result
from orchestrator.supervisor.queue import KeyedQueue
from orchestrator.supervisor.syncing import Syncer
from specs.errors import SpecError

if TYPE_CHECKING:
    from orchestrator.engine.host import Host
    from orchestrator.gitops.source import GitSource

_log = logging.getLogger(__name__)

WORKERS = 16
SETTLING = 0.5
"""Seconds after a change of a source's project until it is looked at: changes come in crowds."""
_CHANGES = frozenset({"create", "destroy", "update", "stop", "kill", "rename"})

Open = Callable[["GitSource"], Repository]
Notify = Callable[["GitSource", Told], Coroutine[Any, Any, None]]


class NoSuchSource(EngineError):
    def __init__(self, name: str) -> None:
        super().__init__(f"no such source: {name}", hint="bay gitops ls lists them")


class SourceSuspended(EngineError):
    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"source {name} {what}", hint=f"bay gitops resume {name} has it followed again"
        )


class NoSuchPassage(EngineError):
    def __init__(self, name: str, word: str) -> None:
        super().__init__(
            f"source {name} has no revision {word} to go back to",
            hint=f"bay gitops history {name} lists them",
        )


class SourceKeeper:
    """`open` gives the repository of a source, `notify` tells those whom the source names."""

    def __init__(
        self, host: Host, stacks: Stacks, open: Open, notify: Notify, rng: random.Random
    ) -> None:
        self._host = host
        self._table = host.store.gitops
        self.stacks = stacks
        self._repository_of = open
        self._notify = notify
        self._syncers: dict[str, Syncer] = {}
        self._changing = asyncio.Lock()
        self._rng = rng
        self._telling: set[asyncio.Task[None]] = set()
        self.queue = KeyedQueue(rng, self._report)

    async def open(self) -> None:
        """Take up the sources that are on record. Secrets that memory has forgotten since come
        back: the containers that are due to start need them."""
        for record in self._table.all():
            try:
                self._take_up(record)
                await self._recall(record)
            except (SpecError, GitOpsError, OSError) as exc:
                # One source, or what another version wrote, must not keep the daemon from the rest.
                _log.error("source %s: %s", record.name, chain(exc))

    async def _recall(self, record: SourceRecord) -> None:
        if record.applied is None:
            return
        passage = self._table.passage(record.name, record.applied.number)
        if passage is not None and passage.projects is not None:
            repository = self._syncers[record.name].repository
            await repository.recall(passage.commit, passage.projects)

    async def run(self) -> None:
        """Look after all sources until cancelled."""
        with self._host.bus.listen(self._on_event):
            try:
                await self.queue.run(self._work, WORKERS)
            finally:
                self.queue.close()
                for task in tuple(self._telling):
                    task.cancel()
                await asyncio.gather(*self._telling, return_exceptions=True)

    def find(self, name: str) -> GitSource | None:
        syncer = self._syncers.get(name)
        return syncer.source if syncer is not None else None

    def syncer(self, name: str) -> Syncer:
        """Raises NoSuchSource."""
        if name not in self._syncers:
            raise NoSuchSource(name)
        return self._syncers[name]

    def record(self, name: str) -> SourceRecord:
        """Raises NoSuchSource."""
        found = self._table.get(name)
        if found is None:
            raise NoSuchSource(name)
        return found

    # What people ask

    async def add(self, source: GitSource) -> SourceRecord:
        """Take a source on, or go on with another definition of it; raises BadRequest."""
        async with self._changing:
            self._check_dependencies(source)
            before = self._table.get(source.name)
            suspended = source.suspend
            if before is not None and bool(before.document["spec"].get("suspend")) == suspended:
                suspended = before.suspended
            document, digest, now = source.canonical(), source.digest(), time()
            syncer = self._syncers.get(source.name)
            if syncer is None:
                self._table.put(source.name, document, digest, suspended=suspended, now=now)
                self._take_up(self.record(source.name))
            elif before is None or before.digest != digest:
                async with syncer.held():
                    self._table.put(source.name, document, digest, suspended=suspended, now=now)
                    syncer.redefine(source, self._repository_of(source))
            self.queue.add(source.name)
            return self.record(source.name)

    def _check_dependencies(self, source: GitSource) -> None:
        needs = {
            record.name: tuple(record.document["spec"].get("dependsOn") or ())
            for record in self._table.all()
        }
        cycle = reconcile.find_cycle({**needs, source.name: source.depends_on})
        if cycle:
            raise BadRequest(
                f"source {source.name} would wait for itself: {' -> '.join(cycle)}",
                hint="take one of them out of dependsOn",
            )

    async def remove(self, name: str, *, keep: bool, run: Run) -> dict[str, Any]:
        """Forget a source, and take down what it has put here unless that is to be kept; the
        result is the last event of a run."""
        async with self._changing:
            syncer = self.syncer(name)
            # A daemon that is killed meanwhile must not bring back what is gone.
            self._table.update(name, suspended=True)
            async with syncer.held():
                for belonging in () if keep else self._table.inventory(name):
                    ended = await self.stacks.down(belonging.project, belonging.services, run)
                    if not ended["ok"]:
                        return ended
                    self._table.disown(belonging.project)
                self._table.remove(name)
                await syncer.repository.remove(tree=not keep)
            del self._syncers[name]
            self.queue.forget(name)
            for record in self._table.all():
                if record.attempted is not None and record.attempted.reason == "Claimed":
                    # What was another's may be nobody's now.
                    self._table.reopen(record.name)
                    self.queue.add(record.name)
            return result(None)

    def suspend(self, name: str) -> SourceRecord:
        """Follow the source no further; what is under way is finished."""
        self.syncer(name)
        self._table.update(name, suspended=True)
        self.tell(Told(action="suspended", source=name))
        return self.record(name)

    def resume(self, name: str) -> SourceRecord:
        """Follow the source again, from where it was suspended or rolled back to."""
        syncer = self.syncer(name)
        self._table.update(name, suspended=False, pinned=None)
        self.tell(Told(action="resumed", source=name))
        syncer.outlook.want()
        self.queue.add(name)
        return self.record(name)

    async def sync(self, name: str, *, force: bool) -> int:
        """Have the source looked at now; `force` also tries again what failed, and accepts a
        history that was rewritten. Gives what `Outlook.answered` waits for."""
        syncer, record = self.syncer(name), self.record(name)
        if record.suspended:
            raise SourceSuspended(name, "is suspended")
        if record.pinned is not None:
            raise SourceSuspended(name, "was rolled back, and stays there")
        if force:
            async with syncer.held():
                self._table.reopen(name)
                syncer.accept_rewrite = True
        return self.poke(name)

    def poke(self, name: str) -> int:
        """Have the repository asked at once."""
        number = self.syncer(name).outlook.want()
        self.queue.add(name)
        return number

    async def rollback(self, name: str, word: str | None) -> Passage:
        """Go back to a revision, the one before the present one where none is named, and stay
        there; raises NoSuchPassage."""
        syncer, record = self.syncer(name), self.record(name)
        passage = self._passage(record, word)
        async with syncer.held():
            self._table.update(name, pinned=passage.number, suspended=False)
        syncer.outlook.want()
        self.queue.add(name)
        return passage

    def _passage(self, record: SourceRecord, word: str | None) -> Passage:
        """The revision of this number, commit or beginning of a commit."""
        kept = [p for p in self._table.history(record.name) if p.projects is not None]
        kept = kept[-self.syncer(record.name).source.keep :]
        if word is None:
            now = record.applied.commit if record.applied is not None else ""
            kept = [p for p in kept if p.commit != now]
        elif word.isdecimal() and any(p.number == int(word) for p in kept):
            kept = [p for p in kept if p.number == int(word)]
        else:
            kept = [p for p in kept if len(word) >= 4 and p.commit.startswith(word)]
        if not kept:
            raise NoSuchPassage(record.name, word or "before this one")
        return kept[-1]

    # What happens

    def tell(self, told: Told) -> None:
        """Have the log, the journal and whom the source names know."""
        syncer = self._syncers.get(told.source)
        level = logging.INFO if told.action in ("applied", "resumed") else logging.WARNING
        _log.log(level, "source %s %s %s %s", told.source, told.action, told.commit, told.message)
        self._host.bus.publish(
            GitopsEvent(
                project="",
                at=time(),
                action=told.action,
                source=told.source,
                commit=told.commit,
                reason=told.reason,
                message=told.message or told.plan,
                seconds=told.seconds,
            )
        )
        if syncer is not None:
            task = asyncio.create_task(self._notify(syncer.source, told), name="notify")
            self._telling.add(task)
            task.add_done_callback(self._told)
        if told.action == "applied":
            for other in self._syncers.values():
                if told.source in other.source.depends_on:
                    self.queue.add(other.name)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("telling of a source: %s", error, exc_info=error)

    def _take_up(self, record: SourceRecord) -> None:
        from orchestrator.gitops.source import GitSource

        source = GitSource.from_canonical(record.document)
        self._syncers[source.name] = Syncer(
            source, self._table, self._repository_of(source), self.stacks, self.tell, self._unready
        )
        self.queue.add(source.name)

    def _unready(self, source: GitSource) -> tuple[str, ...]:
        return tuple(
            name for name in source.depends_on if not reconcile.is_ready(self._table.get(name))
        )

    async def _work(self, name: str) -> float | None:
        syncer = self._syncers.get(name)
        if syncer is None:
            return None
        again = await syncer.attend()
        # Many sources of one server must not ask it all at once for ever.
        return None if again is None else again * self._rng.uniform(1.0, 1.05)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ContainerEvent):
            if event.action not in _CHANGES:
                return
        elif not (isinstance(event, ResourceEvent) and event.kind == "network"):
            return
        owner = self._table.owner(event.project) if self._syncers else None
        if owner in self._syncers:
            syncer = self._syncers[owner]
            syncer.outlook.suspect()
            if not syncer.doing:
                self.queue.add_after(owner, SETTLING)

    def _report(self, name: str, error: Exception) -> None:
        _log.error("source %s: %s", name, chain(error), exc_info=error)
