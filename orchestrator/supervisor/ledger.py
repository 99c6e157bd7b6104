"""Writes down how attempts at a source's revisions end, and has it told."""

from __future__ import annotations

from collections.abc import Callable
from time import time

from orchestrator.engine.gitops_table import GitopsTable, Outcome, Passage, SourceRecord
from orchestrator.supervisor.attempts import Candidate, Told
from orchestrator.supervisor.bringing import Failure


class Ledger:
    """The record of the source `name` in `table`; `tell` takes what is to be known."""

    def __init__(self, table: GitopsTable, name: str, tell: Callable[[Told], None]) -> None:
        self._table = table
        self._name = name
        self._tell = tell

    def note(
        self,
        record: SourceRecord,
        candidate: Candidate,
        failure: Failure | None,
        *,
        begun: bool = False,
        plan: str | None = None,
    ) -> None:
        """How an attempt ended; `begun` says that something was changed, `plan` is what a dry one
        would do."""
        outcome: Outcome = "applied" if plan is None else "planned"
        if failure is not None:
            outcome = "reverting" if begun and record.applied is not None else "failed"
        now = time()
        passage = Passage(
            source=self._name,
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
                source=self._name,
                commit=passage.commit,
                subject=passage.subject,
                author=passage.author,
                reason=passage.reason,
                message=passage.message if failure is not None else "",
                seconds=passage.seconds,
                plan=plan or "",
            )
        )
