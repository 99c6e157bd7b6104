"""Projects as the sources of git see them: brought up, proved, compared and taken down.

What goes wrong is in the result, as for every run, so that one failure is one outcome; each run
is written into the journal like a person's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from time import time
from typing import TYPE_CHECKING, Any

from orchestrator.planning.gate import deviates, health_gate
from orchestrator.planning.images import referenced
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy, Removal
from orchestrator.planning.reconcile import reconcile
from orchestrator.supervisor.diary import Diary
from orchestrator.supervisor.errors import error_body, expected
from orchestrator.supervisor.operations import Run, result
from specs.project import Project

if TYPE_CHECKING:
    from orchestrator.supervisor.instance import Instance

_log = logging.getLogger(__name__)

COMMAND = "gitops"
STABLE = 1.0
"""Seconds that a container without a health check has to run before it counts as healthy."""

Result = dict[str, Any]


class Stacks:
    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    async def up(self, spec: Mapping[str, Any], policy: Policy, run: Run) -> Result:
        """Make the canonical project so."""

        async def operation(run: Run) -> Result:
            project = Project.from_canonical(dict(spec))
            return await self._instance.operations.up(project, policy, run)

        return await self._written_down(str(spec["name"]), operation, run)

    async def down(self, name: str, services: Collection[str], run: Run) -> Result:
        """Remove the containers of these services, and the project's networks where nothing else
        is in them; volumes stay, and so does what others have put into the project."""
        store = self._instance.host.store
        there = {record.service for record in store.containers(name) if not record.oneoff}
        ours, foreign = there & set(services), there - set(services)
        if foreign and not ours:
            return result(None)
        removal = Removal(remove_orphans=True)
        if foreign:
            removal = Removal(services=tuple(sorted(ours)))

        async def operation(run: Run) -> Result:
            return await self._instance.operations.down(name, None, removal, run)

        ended = await self._written_down(name, operation, run)
        if ended["ok"] and not foreign:
            store.remove_project(name)
        return ended

    async def prove(
        self, spec: Mapping[str, Any], since: float, timeout: float, run: Run
    ) -> Result:
        """Wait until the project's services are healthy; containers made after `since` must not
        end meanwhile. Times in seconds."""
        name = str(spec["name"])

        async def operation(run: Run) -> Result:
            store = self._instance.host.store
            observed = await self._instance.backend.observe(name)
            records = store.containers(name)
            lasting = {r.name for r in records if r.restarts and r.created_at < since}
            plan = health_gate(name, spec["services"], observed, lasting, STABLE, timeout)
            return await self._instance.operations.carry_out(plan, run)

        return await self._guarded(operation, run)

    async def plan(self, spec: Mapping[str, Any], policy: Policy) -> Plan:
        """What `up` would do; raises PlanningError and what the host raises."""
        project = Project.from_canonical(dict(spec))
        return await self._instance.operations.plan(project, policy)

    async def deviates(self, spec: Mapping[str, Any], policy: Policy) -> bool:
        """Whether the project is not as it was applied; raises as `plan`."""
        project = Project.from_canonical(dict(spec))
        rollouts = self._instance.operations.rollouts(project.name)
        if any(rollout.state in ("paused", "running") for rollout in rollouts):
            return False  # on its way, or waiting for a person's word
        backend = self._instance.backend
        observed = await backend.observe(
            project.name,
            images=referenced(project),
            networks=[network.name for network in project.networks.values()],
            volumes=[volume.name for volume in project.volumes.values()],
        )
        return deviates(reconcile(project, observed, policy, time()), observed)

    async def _written_down(
        self, project: str, operation: Callable[[Run], Awaitable[Result]], run: Run
    ) -> Result:
        diary = Diary(self._instance, project, COMMAND)

        def emit(event: dict[str, Any]) -> None:
            diary.see(event)
            run.emit(event)

        ended = await self._guarded(operation, Run(emit=emit, cancel=run.cancel))
        await diary.finish(ended)
        return ended

    async def _guarded(self, operation: Callable[[Run], Awaitable[Result]], run: Run) -> Result:
        try:
            return await operation(run)
        except Exception as exc:
            if not expected(exc):
                _log.exception("a run for a source failed")
            body = error_body(exc)
            return {"type": "result", "ok": False, "error": body, "exit_code": body["exit_code"]}
