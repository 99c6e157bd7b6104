"""One source at work: takes the steps that `gitops.reconcile` decides on, and notes how they end.

Everything is written down before it is done, so that the next daemon takes a step on where this
one was killed. Nothing is decided here but what an error means.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from time import time
from typing import TYPE_CHECKING, Any

from orchestrator.engine.errors import chain
from orchestrator.engine.exits import HOST_FAULTS
from orchestrator.engine.gitops_table import (
    Attempt,
    GitopsTable,
    Outcome,
    Passage,
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
from orchestrator.supervisor.operations import Run

if TYPE_CHECKING:
    from orchestrator.gitops.source import GitSource

_log = logging.getLogger(__name__)

SECOND = 1e9
LEAST_WAIT = 0.2

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
        self.source = source
        self.repository = repository
        self.sight = Sight()
        self.doing = ""
        self.accept_rewrite = False
        self._table = table
        self._stacks = stacks
        self._tell = tell
        self._unready = unready
        self._busy = asyncio.Lock()
        self._holders = 0
        self._cancel = asyncio.Event()
        self._woken = asyncio.Event()
        self._emits: list[Emit] = []
        self._asked = 0
        self._seen = 0
        self._answered = 0
        self._rested = asyncio.Condition()
        self._untidy = False

    @property
    def name(self) -> str:
        return self.source.name

    def want(self) -> int:
        """Have the repository asked at once; the result is for `answered`."""
        self.sight = dataclasses.replace(self.sight, wanted=True)
        self._woken.set()
        self._asked += 1
        return self._asked

    def suspect(self) -> None:
        """Have what stands be looked at."""
        self.sight = dataclasses.replace(self.sight, suspect=True)

    async def answered(self, number: int) -> None:
        """Return once what `want` asked for has been looked at and followed to a rest."""
        async with self._rested:
            await self._rested.wait_for(lambda: self._answered >= number)

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
        self.source, self.repository = source, repository
        self.sight = Sight(wanted=self.sight.wanted)

    async def attend(self) -> float | None:
        """Take steps until there is nothing to do; the result is after how many seconds to look
        again, None for when somebody wants it."""
        async with self._busy:
            while not self._holders:
                record = self._table.get(self.name)
                if record is None:
                    break
                self.sight = dataclasses.replace(self.sight, unready=self._unready(self.source))
                step = reconcile.decide(record, self._terms(), self.sight, time())
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
                    await self._probe()
                case Apply(commit=commit):
                    await self._apply(record, commit)
                case Return(number=number):
                    await self._return(record, number)
                case Settle():
                    await self._settle(record)
        except Exception as exc:
            # The queue has it tried again; whoever waits for an answer is to have one.
            self.sight = dataclasses.replace(self.sight, trouble=chain(exc))
            await self._rest()
            raise
        finally:
            self.doing = ""

    async def _rest(self) -> None:
        # One that is suspended, pinned or gone is not asked at all.
        self._seen = self._asked if self.sight.wanted else self._seen
        self.sight = dataclasses.replace(self.sight, wanted=False)
        async with self._rested:
            self._answered = self._seen
            self._rested.notify_all()
        if self._untidy:
            self._untidy = False
            await self._retain()

    # The repository

    async def _probe(self) -> None:
        self._seen = self._asked
        self._woken.clear()
        self.sight = dataclasses.replace(self.sight, wanted=False)
        try:
            head = await self.repository.probe()
        except GitOpsError as exc:
            self._lost(exc)
            return
        if head != self.sight.head:
            self.sight = dataclasses.replace(self.sight, setbacks=0, setback="")
        self.sight = dataclasses.replace(
            self.sight, head=head, probed_at=time(), failures=0, reason="", message=""
        )

    def _lost(self, error: GitOpsError) -> None:
        """Note that the repository could not be read; said once for each reason."""
        message, now = words_of(error), time()
        # What does not pass by itself is asked again at the next interval, no sooner.
        failures = self.sight.failures if error.transient else self._terms().retries
        if message != self.sight.message:
            self._tell_failure("", Failure(reason=error.reason, message=message))
        self.sight = dataclasses.replace(
            self.sight,
            probed_at=now,
            failures=failures + 1,
            failed_at=now,
            reason=error.reason,
            message=message,
        )

    def _set_back(self, commit: str, failure: Failure) -> None:
        """Note that an attempt ended for want of a connection; said once for each reason."""
        if failure.message != self.sight.setback:
            self._tell_failure(commit, failure)
        self.sight = dataclasses.replace(
            self.sight,
            setbacks=self.sight.setbacks + 1,
            setback_at=time(),
            setback=failure.message,
        )

    async def _apply(self, record: SourceRecord, head: str) -> None:
        began, commit = time(), head
        subject = author = ""
        accept, self.accept_rewrite = self.accept_rewrite, False
        try:
            revision = await self.repository.fetch(accept_rewrite=accept)
            commit, subject, author = revision.commit, revision.subject, revision.author
            self.sight = dataclasses.replace(self.sight, head=commit)
            if not reconcile.is_due(record, commit):
                return
            projects = await self.repository.render(commit)
            self._guard(projects)
        except GitOpsError as exc:
            if exc.transient:
                self._set_back(commit, Failure(reason=exc.reason, message=words_of(exc)))
                return
            if isinstance(exc, HistoryRewritten):
                commit = exc.new
            failed = Candidate(
                commit=commit, projects={}, began=began, subject=subject, author=author
            )
            self._note(record, failed, Failure(reason=exc.reason, message=words_of(exc)))
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

    # Applying

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
            self._note(record, candidate, Failure(reason="Claimed", message=words_of(exc)))
            return
        # What follows is to be looked at once, whatever trouble there was with what stood before.
        self.sight = dataclasses.replace(self.sight, troubles=0, trouble="")
        async with self._running(candidate.commit if record.pinned is None else None) as run:
            failure = await self._switch(candidate.commit, candidate.projects)
            if failure is None:
                bringing = self._bringing(inventory, run, candidate.began)
                failure = await bringing.bring(candidate.projects)
        if failure is not None and failure.reason == CANCELED:
            self._tell(Told(action="superseded", source=self.name, commit=candidate.commit))
            return
        if failure is not None and failure.transient and record.pinned is None:
            self._set_back(candidate.commit, failure)
            return
        self.sight = dataclasses.replace(self.sight, setbacks=0, setback="")
        self._note(record, candidate, failure, begun=True)

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
            self._note(record, candidate, Failure(reason="PlanFailed", message=chain(exc)))
            return
        for belonging in reconcile.departing(inventory, candidate.projects):
            texts.append(f"{belonging.project}: left the repository, and would be removed")
        self._note(record, candidate, None, plan="\n".join(texts))

    def _note(
        self,
        record: SourceRecord,
        candidate: Candidate,
        failure: Failure | None,
        *,
        begun: bool = False,
        plan: str | None = None,
    ) -> None:
        """Write down how an attempt ended, and tell it; `plan` is what a dry one would do."""
        outcome: Outcome = "applied" if plan is None else "planned"
        if failure is not None:
            outcome = "reverting" if begun and record.applied is not None else "failed"
        now = time()
        self._untidy = True
        passage = Passage(
            source=self.name,
            commit=candidate.commit,
            at=now,
            outcome=outcome,
            subject=candidate.subject,
            author=candidate.author,
            reason=failure.reason if failure is not None else "",
            message=failure.message if failure is not None else plan or "",
            seconds=now - candidate.began,
            projects=candidate.projects if outcome == "applied" else None,
        )
        if outcome == "applied":
            self._table.succeed(passage, record.digest)
        else:
            self._table.fail(passage, record.digest)
        self._tell(
            Told(
                action=outcome,
                source=self.name,
                commit=passage.commit,
                subject=passage.subject,
                author=passage.author,
                reason=passage.reason,
                message=passage.message if failure is not None else "",
                seconds=passage.seconds,
                plan=plan or "",
            )
        )

    # What stands

    async def _settle(self, record: SourceRecord) -> None:
        """Have what stands be the last healthy revision, and remove what has left."""
        assert record.applied is not None, "decided on from what was applied"
        began, applied = time(), record.applied
        fresh = not record.settled or self.sight.checked_at is None
        self.sight = dataclasses.replace(self.sight, suspect=False, checked_at=began)
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
            self._troubled(applied.commit, failure)
            return
        self._table.settle(self.name, applied.commit, projects)
        # Two who undo each other's work must not do so without a pause.
        again = self.sight.troubles + 1 if deviating and record.settled else 0
        self.sight = dataclasses.replace(self.sight, troubles=again, troubled_at=time(), trouble="")
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

    def _troubled(self, commit: str, failure: Failure) -> None:
        """Note that what was applied could not be brought back; it is tried again."""
        if failure.reason == CANCELED:
            self.suspect()
            return
        if failure.message != self.sight.trouble:
            self._tell_failure(commit, failure)
        self.sight = dataclasses.replace(
            self.sight,
            troubles=self.sight.troubles + 1,
            troubled_at=time(),
            trouble=failure.message,
        )

    # Parts

    async def _switch(self, commit: str, projects: Projects) -> Failure | None:
        try:
            await self.repository.switch(commit, projects)
        except GitOpsError as exc:
            return Failure(reason=exc.reason, message=words_of(exc))
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

    def _tell_failure(self, commit: str, failure: Failure) -> None:
        self._tell(
            Told(
                action="failed",
                source=self.name,
                commit=commit,
                reason=failure.reason,
                message=failure.message,
            )
        )

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
        while self.sight.head in (None, commit):
            due = reconcile.next_probe(self._terms(), self.sight)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(LEAST_WAIT, due - time())):
                    await self._woken.wait()
            await self._probe()
        cancel.set()

    def _emit(self, event: dict[str, Any]) -> None:
        for emit in self._emits:
            emit(event)

    def _terms(self) -> reconcile.Terms:
        source = self.source
        return reconcile.Terms(
            interval=source.interval / SECOND,
            retries=source.retry.limit,
            backoff=source.retry.backoff / SECOND,
            longest_backoff=source.retry.max_backoff / SECOND,
            dry_run=source.dry_run,
        )
