"""What is asked of a source's repository, and what is seen of the source on the way.

Nothing of it is on record: the next daemon begins with nothing, and asks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING

from orchestrator.gitops import reconcile
from orchestrator.gitops.errors import GitOpsError
from orchestrator.gitops.reconcile import Sight
from orchestrator.supervisor.attempts import Repository, Told, words_of
from orchestrator.supervisor.bringing import CANCELED, Failure

if TYPE_CHECKING:
    from orchestrator.gitops.source import GitSource

SECOND = 1e9
LEAST_WAIT = 0.2


class Outlook:
    """`tell` takes what is to be known: of each trouble once, however often it comes again."""

    def __init__(
        self, source: GitSource, repository: Repository, tell: Callable[[Told], None]
    ) -> None:
        self.source = source
        self.repository = repository
        self.sight = Sight()
        self._tell = tell
        self._woken = asyncio.Event()
        self._asked = 0
        self._seen = 0
        self._answered = 0
        self._rested = asyncio.Condition()

    def redefine(self, source: GitSource, repository: Repository) -> None:
        """Go on with another definition: what was seen counts for nothing."""
        self.source, self.repository = source, repository
        self.sight = Sight(wanted=self.sight.wanted)

    def terms(self) -> reconcile.Terms:
        source = self.source
        return reconcile.Terms(
            interval=source.interval / SECOND,
            retries=source.retry.limit,
            backoff=source.retry.backoff / SECOND,
            longest_backoff=source.retry.max_backoff / SECOND,
            dry_run=source.dry_run,
        )

    # What people ask

    def want(self) -> int:
        """Have the repository asked at once; the result is for `answered`."""
        self.sight = replace(self.sight, wanted=True)
        self._woken.set()
        self._asked += 1
        return self._asked

    def suspect(self) -> None:
        """Have what stands be looked at."""
        self.sight = replace(self.sight, suspect=True)

    async def answered(self, number: int) -> None:
        """Return once what `want` asked for has been looked at and followed to a rest."""
        async with self._rested:
            await self._rested.wait_for(lambda: self._answered >= number)

    async def rest(self) -> None:
        """Everything that was asked for has been done, as far as it can be now."""
        # One that is suspended, pinned or gone is not asked at all.
        self._seen = self._asked if self.sight.wanted else self._seen
        self.sight = replace(self.sight, wanted=False)
        async with self._rested:
            self._answered = self._seen
            self._rested.notify_all()

    # The repository

    async def probe(self) -> None:
        """Ask the repository where the reference stands."""
        self._seen = self._asked
        self._woken.clear()
        self.sight = replace(self.sight, wanted=False)
        try:
            head = await self.repository.probe()
        except GitOpsError as exc:
            self._lost(exc)
            return
        if head != self.sight.head:
            self.sight = replace(self.sight, setbacks=0, setback="")
        self.sight = replace(
            self.sight, head=head, probed_at=time(), failures=0, reason="", message=""
        )

    async def superseded(self, commit: str) -> None:
        """Return when the repository names another commit than this one; it is asked as always."""
        while self.sight.head in (None, commit):
            due = reconcile.next_probe(self.terms(), self.sight)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(LEAST_WAIT, due - time())):
                    await self._woken.wait()
            await self.probe()

    def _lost(self, error: GitOpsError) -> None:
        """The repository could not be read."""
        message, now = words_of(error), time()
        # What does not pass by itself is asked again at the next interval, no sooner.
        failures = self.sight.failures if error.transient else self.terms().retries
        if message != self.sight.message:
            self._tell_failure("", Failure(reason=error.reason, message=message))
        self.sight = replace(
            self.sight,
            probed_at=now,
            failures=failures + 1,
            failed_at=now,
            reason=error.reason,
            message=message,
        )

    # What was tried

    def found(self, commit: str) -> None:
        """The commit was fetched, which may be newer than the one that was seen last."""
        self.sight = replace(self.sight, head=commit)

    def set_back(self, commit: str, failure: Failure) -> None:
        """An attempt ended for want of a connection, or of what this host lacks."""
        if failure.message != self.sight.setback:
            self._tell_failure(commit, failure)
        self.sight = replace(
            self.sight, setbacks=self.sight.setbacks + 1, setback_at=time(), setback=failure.message
        )

    def got_through(self) -> None:
        """An attempt has come to an end of its own."""
        self.sight = replace(self.sight, setbacks=0, setback="")

    # What stands

    def begin_anew(self) -> None:
        """What is about to stand is to be looked at once, whatever trouble there was before."""
        self.sight = replace(self.sight, troubles=0, trouble="")

    def check(self, at: float) -> None:
        """What stands is being looked at."""
        self.sight = replace(self.sight, suspect=False, checked_at=at)

    def stood(self, *, changed: bool) -> None:
        """What stands is as it was applied; `changed`: because it was put back."""
        # Two who undo each other's work must not do so without a pause.
        again = self.sight.troubles + 1 if changed else 0
        self.sight = replace(self.sight, troubles=again, troubled_at=time(), trouble="")

    def troubled(self, commit: str, failure: Failure) -> None:
        """What was applied could not be brought back; it is tried again."""
        if failure.reason == CANCELED:
            self.suspect()
            return
        if failure.message != self.sight.trouble:
            self._tell_failure(commit, failure)
        self.sight = replace(
            self.sight,
            troubles=self.sight.troubles + 1,
            troubled_at=time(),
            trouble=failure.message,
        )

    def broken(self, message: str) -> None:
        """Something that nobody foresaw; the queue has it tried again."""
        self.sight = replace(self.sight, trouble=message)

    def wait_for(self, unready: tuple[str, ...]) -> None:
        """These sources come first."""
        self.sight = replace(self.sight, unready=unready)

    def _tell_failure(self, commit: str, failure: Failure) -> None:
        self._tell(
            Told(
                action="failed",
                source=self.source.name,
                commit=commit,
                reason=failure.reason,
                message=failure.message,
            )
        )
