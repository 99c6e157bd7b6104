"""Writes down each operation on a project: what was asked for, what was planned, how it ended."""

from __future__ import annotations

import asyncio
from time import time
from typing import Any, Self

from orchestrator.serving.messages import Request
from orchestrator.supervisor.instance import Instance
from orchestrator.supervisor.journal import Operation
from orchestrator.supervisor.requests import instance_of

_APPLIES = frozenset({"up", "create", "gitops"})
"""The commands after which the project's last revision is what was asked for."""


class Diary:
    """One operation; `command` is the last word of the request's path, `steps` is how many were
    planned so far."""

    def __init__(self, instance: Instance, project: str, command: str) -> None:
        self._instance = instance
        self._project = project
        self._command = command
        self._started = time()
        self.steps = 0

    @classmethod
    def of(cls, request: Request) -> Self:
        command = request.path.rpartition("/")[2]
        return cls(instance_of(request), request.parameters.get("project", ""), command)

    def see(self, event: dict[str, Any]) -> None:
        """Take note of what the operation tells; a plan that has steps is an event for all."""
        if event.get("type") != "plan" or event.get("empty") or not self._project:
            return
        steps = len(event.get("steps", ()))
        self.steps += steps
        self._instance.journal.publish(
            {
                "type": "plan",
                "action": self._command,
                "project": self._project,
                "at": time(),
                "steps": steps,
                "destructive": bool(event.get("destructive")),
                "text": event.get("text", ""),
            }
        )

    async def finish(self, result: dict[str, Any]) -> None:
        """The operation has ended with this result."""
        error = result.get("error") or {}
        outcome = "done" if result.get("ok") else "failed"
        if error.get("type") == "Canceled":
            outcome = "canceled"
        now = time()
        self._instance.metrics.operation(self._command, outcome, now - self._started)
        if not self._project:
            return
        operation = Operation(
            project=self._project,
            command=self._command,
            started_at=self._started,
            finished_at=now,
            outcome=outcome,
            revision=self._revision() if self._command in _APPLIES else None,
            error=str(error.get("message", "")),
            steps=self.steps,
        )
        await asyncio.to_thread(self._instance.journal.record, operation)

    def _revision(self) -> int | None:
        applied = self._instance.host.store.project(self._project)
        revisions = self._instance.host.store.revisions(self._project)
        if applied is None or not revisions or applied.updated_at < self._started:
            return None
        return revisions[-1].number
