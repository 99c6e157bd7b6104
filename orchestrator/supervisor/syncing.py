"""One source at work: takes the steps that `gitops.reconcile` decides on.

Everything is written down before it is done, so that the next daemon takes a step on where this
one was killed. Nothing is decided here but what an error means.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from time import time
from typing import TYPE_CHECKING, Any

from orchestrator.engine.errors import chain
from orchestrator.engine.exits import HOST_FAULTS
from orchestrator.engine.gitops_table import (
    Attempt,
    GitopsTable,
    ProjectClaimed,
    SourceRecord,
)
from orchestrator.gitops import reconcile
from orchestrator.gitops.errors import GitOpsError, HistoryRewritten
from orchestrator.gitops.reconcile import Apply, Probe, Rest, Return, Settle, Sight
from orchestrator.planning.errors import PlanningError
from orchestrator.supervisor.attempts import (
    Candidate,
    Refused,
    Repository,
    Told,
    words_of,
)
from orchestrator.supervisor.bringing import CANCELED, Bringing, Failure, Projects, Stacks, Terms
from orchestrator.supervisor.ledger import Ledger
from orchestrator.supervisor.operations import Run
from orchestrator.supervisor.outlook import LEAST_WAIT, SECOND, Outlook

if TYPE_CHECKING:
    from orchestrator.gitops.source import GitSource

_log = logging.getLogger(__name__)

Emit = Callable[[dict[str, Any]], None]


class Syncer:
    """`tell` takes what is to be known, `unready` gives the sources that this one waits for."""

    def __init__(
        self,
        source: GitSource,
        table: GitopsTable,
        repository: Repository,
        stacks: Stacks,
        tell: Callable[[Told], None],
        unready: Callable[[GitSource], tuple[str, ...]],
    ) -> None:
        self.outlook = Outlook(source, repository, tell)
        self.doing = ""
        self.accept_rewrite = False
        self._table = table
        self._ledger = Ledger(table, source.name, tell)
        self._stacks = stacks
        self._tell = tell
        self._unready = unready
        self._busy = asyncio.Lock()
        self._holders = 0
        self._cancel = asyncio.Event()
        self._emits: list[Emit] = []
        self._untidy = False

    @property
    def source(self) -> GitSource:
        return self.outlook.source

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def repository(self) -> Repository:
        return self.outlook.repository

    @property
    def sight(self) -> Sight:
        return self.outlook.sight

    @contextlib.contextmanager
    def followed(self, emit: Emit) -> Iterator[None]:
        """Hand the events of everything that is done to `emit`."""
        self._emits.append(emit)
        try:
            yield
        finally:
            self._emits.remove(emit)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """End what is under way, and keep the source still meanwhile."""
        self._holders += 1
        self._cancel.set()
        try:
            async with self._busy:
                yield
        finally:
            self._holders -= 1

    def redefine(self, source: GitSource, repository: Repository) -> None:
        """Go on with another definition; the caller holds the source."""
        self.outlook.redefine(source, repository)

    async def attend(self) -> float | None:
        """Take steps until there is nothing to do; the result is after how many seconds to look
        again, None for when somebody wants it."""
        async with self._busy:
            while not self._holders:
                record = self._table.get(self.name)
                if record is None:
                    break
                self.outlook.wait_for(self._unready(self.source))
                step = reconcile.decide(record, self.outlook.terms(), self.sight, time())
                if isinstance(step, Rest):
                    await self._rest()
                    return None if step.until is None else max(LEAST_WAIT, step.until - time())
                await self._take(record, step)
            await self._rest()
            return None

    async def _take(self, record: SourceRecord, step: Probe | Apply | Return | Settle) -> None:
        self.doing = type(step).__name__.lower()
        try:
            match step:
                case Probe():
                    await self.outlook.probe()
                case Apply(commit=commit):
                    await self._apply(record, commit)
                case Return(number=number):
                    await self._return(record, number)
                case Settle():
                    await self._settle(record)
        except Exception as exc:
            # The queue has it tried again; whoever waits for an answer is to have one.
            self.outlook.broken(chain(exc))
            await self._rest()
            raise
        finally:
            self.doing = ""

    async def _rest(self) -> None:
        await self.outlook.rest()
        if self._untidy:
            self._untidy = False
            await self._retain()

    # Applying

    async def _apply(self, record: SourceRecord, head: str) -> None:
        began, commit = time(), head
        subject = author = ""
        accept, self.accept_rewrite = self.accept_rewrite, False
        try:
            revision = await self.repository.fetch(accept_rewrite=accept)
            commit, subject, author = revision.commit, revision.subject, revision.author
            self.outlook.found(commit)
            if not reconcile.is_due(record, commit):
                return
            projects = await self.repository.render(commit)
            self._guard(projects)
        except GitOpsError as exc:
            if exc.transient:
                self.outlook.set_back(commit, Failure(reason=exc.reason, message=words_of(exc)))
                return
            if isinstance(exc, HistoryRewritten):
                commit = exc.new
            failed = Candidate(
                commit=commit, projects={}, began=began, subject=subject, author=author
            )
            self._conclude(record, failed, Failure(reason=exc.reason, message=words_of(exc)))
            return
        candidate = Candidate(
            commit=commit, projects=projects, began=began, subject=subject, author=author
        )
        if self.source.dry_run:
            await self._rehearse(record, candidate)
        else:
            await self._try(record, candidate)

    def _guard(self, projects: Projects) -> None:
        inventory = self._table.inventory(self.name)
        if not self.source.allow_empty and reconcile.removes_everything(inventory, projects):
            raise Refused(
                "WouldRemoveAll",
                "the commit has no service left, and everything would be removed",
                hint="set allowEmpty: true if that is meant, or bay gitops rm",
            )

    async def _return(self, record: SourceRecord, number: int) -> None:
        passage = self._table.passage(self.name, number)
        if passage is None or passage.projects is None:
            # It was let go of since it was asked for.
            self._table.update(
                self.name, pinned=record.applied.number if record.applied is not None else None
            )
            return
        candidate = Candidate(
            commit=passage.commit,
            projects=passage.projects,
            began=time(),
            subject=passage.subject,
            author=passage.author,
        )
        await self._try(record, candidate)

    async def _try(self, record: SourceRecord, candidate: Candidate) -> None:
        """Apply a revision and have it prove itself; the outcome is on record at the end, unless
        a newer one came."""
        inventory = tuple(self._table.inventory(self.name))
        attempt = Attempt(
            commit=candidate.commit, source=record.digest, at=candidate.began, outcome="applying"
        )
        try:
            self._table.begin(self.name, attempt, candidate.projects)
        except ProjectClaimed as exc:
            self._conclude(record, candidate, Failure(reason="Claimed", message=words_of(exc)))
            return
        self.outlook.begin_anew()
        async with self._running(candidate.commit if record.pinned is None else None) as run:
            failure = await self._switch(candidate.commit, candidate.projects)
            if failure is None:
                bringing = self._bringing(inventory, run, candidate.began)
                failure = await bringing.bring(candidate.projects)
        if failure is not None and failure.reason == CANCELED:
            self._tell(Told(action="superseded", source=self.name, commit=candidate.commit))
            return
        if failure is not None and failure.transient and record.pinned is None:
            self.outlook.set_back(candidate.commit, failure)
            return
        self.outlook.got_through()
        self._conclude(record, candidate, failure, begun=True)

    async def _rehearse(self, record: SourceRecord, candidate: Candidate) -> None:
        """Tell what would be done, and do nothing."""
        inventory = tuple(self._table.inventory(self.name))
        run = Run(emit=self._emit, cancel=asyncio.Event())
        bringing = self._bringing(inventory, run, candidate.began)
        texts = []
        try:
            for spec in candidate.projects.values():
                plan = await self._stacks.plan(spec, bringing.policy(spec, refresh=True))
                texts.append(plan.text())
                self._emit({"type": "plan", **plan.to_json()})
        except (PlanningError, *HOST_FAULTS) as exc:
            self._conclude(record, candidate, Failure(reason="PlanFailed", message=chain(exc)))
            return
        for belonging in reconcile.departing(inventory, candidate.projects):
            texts.append(f"{belonging.project}: left the repository, and would be removed")
        self._conclude(record, candidate, None, plan="\n".join(texts))

    def _conclude(
        self,
        record: SourceRecord,
        candidate: Candidate,
        failure: Failure | None,
        *,
        begun: bool = False,
        plan: str | None = None,
    ) -> None:
        self._untidy = True
        self._ledger.note(record, candidate, failure, begun=begun, plan=plan)

    # What stands

    async def _settle(self, record: SourceRecord) -> None:
        """Have what stands be the last healthy revision, and remove what has left."""
        assert record.applied is not None, "decided on from what was applied"
        began, applied = time(), record.applied
        fresh = not record.settled or self.sight.checked_at is None
        self.outlook.check(began)
        passage = self._table.passage(self.name, applied.number)
        projects = (passage.projects if passage is not None else None) or {}
        inventory = tuple(self._table.inventory(self.name))
        async with self._running(self.sight.head) as run:
            bringing = self._bringing(inventory, run, began)
            failure = await self._switch(applied.commit, projects) if fresh else None
            deviating: Projects = {}
            if failure is None:
                try:
                    deviating = await bringing.deviating(projects)
                except (PlanningError, *HOST_FAULTS) as exc:
                    failure = Failure(reason="PlanFailed", message=chain(exc))
            if failure is None and deviating:
                failure = await bringing.bring(deviating, refresh=False)
            if failure is None:
                failure = await bringing.prune(projects, self._table.hold, self._table.disown)
        if failure is not None:
            self.outlook.troubled(applied.commit, failure)
            return
        self._table.settle(self.name, applied.commit, projects)
        self.outlook.stood(changed=bool(deviating) and record.settled)
        last = record.attempted
        if last is not None and last.outcome == "reverting":
            self._tell(
                Told(
                    action="rolled-back",
                    source=self.name,
                    commit=last.commit,
                    reason=last.reason,
                    message=f"{last.message}; {applied.commit[:12]} stands again",
                    seconds=time() - began,
                )
            )
        elif record.settled and deviating:
            message = f"{', '.join(deviating)} was changed by somebody else, and put back"
            self._tell(
                Told(action="drift", source=self.name, commit=applied.commit, message=message)
            )

    # Parts

    async def _switch(self, commit: str, projects: Projects) -> Failure | None:
        try:
            await self.repository.switch(commit, projects)
        except GitOpsError as exc:
            return Failure(reason=exc.reason, message=words_of(exc), transient=exc.transient)
        except OSError as exc:
            return Failure(reason="CheckoutFailed", message=f"check out {commit[:12]}: {exc}")
        return None

    async def _retain(self) -> None:
        """Keep what there may be a way back to."""
        history = self._table.history(self.name)
        revisions = [entry for entry in history if entry.projects is not None]
        kept = {entry.commit: entry.projects or {} for entry in revisions[-self.source.keep :]}
        try:
            await self.repository.retain(kept)
        except (GitOpsError, OSError) as exc:
            _log.error("source %s: let go of old commits: %s", self.name, chain(exc))

    def _bringing(self, inventory: tuple[Any, ...], run: Run, since: float) -> Bringing:
        source = self.source
        return Bringing(
            stacks=self._stacks,
            inventory=inventory,
            terms=Terms(
                prune=source.prune,
                gate=source.health_gate.enabled,
                patience=source.health_gate.timeout / SECOND,
            ),
            run=run,
            since=since,
        )

    @contextlib.asynccontextmanager
    async def _running(self, commit: str | None) -> AsyncIterator[Run]:
        """A run that ends early when the repository names another commit than this one."""
        self._cancel = asyncio.Event()
        if self._holders:
            self._cancel.set()
        watch = None
        if commit is not None:
            watch = asyncio.create_task(self._supersede(commit, self._cancel))
        try:
            yield Run(emit=self._emit, cancel=self._cancel)
        finally:
            if watch is not None:
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watch

    async def _supersede(self, commit: str, cancel: asyncio.Event) -> None:
        await self.outlook.superseded(commit)
        cancel.set()

    def _emit(self, event: dict[str, Any]) -> None:
        for emit in self._emits:
            emit(event)
