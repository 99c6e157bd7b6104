"""Brings a source's projects to what a commit says, and takes away what has left it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.engine.gitops_table import Belonging
from orchestrator.gitops.reconcile import departed_services, departing, must_leave_first
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy
from orchestrator.supervisor.operations import Run

Result = dict[str, Any]
Spec = Mapping[str, Any]
Projects = Mapping[str, Spec]
"""Canonical projects by name, in the order in which they are applied."""

CANCELED = "Canceled"


class Stacks(Protocol):
    """What is done with projects; what fails is in the results."""

    async def up(self, spec: Spec, policy: Policy, run: Run) -> Result: ...

    async def down(self, name: str, services: Collection[str], run: Run) -> Result: ...

    async def prove(self, spec: Spec, since: float, timeout: float, run: Run) -> Result: ...

    async def plan(self, spec: Spec, policy: Policy) -> Plan: ...

    async def deviates(self, spec: Spec, policy: Policy) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a source wants its projects brought: `patience` bounds every wait for health, in
    seconds; without a `gate` the revision counts as soon as everything is started."""

    prune: bool
    gate: bool
    patience: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """`reason` is a word for statuses and metrics; CANCELED where the run was ended early. One
    that is `transient` says nothing against the commit: something could not be reached."""

    reason: str
    message: str
    transient: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bringing:
    """One source's projects on their way; `inventory` is what the source has put here so far,
    `since` the moment at which the attempt began."""

    stacks: Stacks
    inventory: tuple[Belonging, ...]
    terms: Terms
    run: Run
    since: float

    def policy(self, spec: Spec, *, refresh: bool) -> Policy:
        """`refresh` also asks for images anew where a service wants that."""
        owned = next((b for b in self.inventory if b.project == spec["name"]), None)
        departed = departed_services(owned, spec) if self.terms.prune else frozenset()
        return Policy(departed=departed, refresh=refresh, wait_timeout=self.terms.patience)

    async def deviating(self, projects: Projects) -> dict[str, Spec]:
        """Those that are not as they were applied; raises what planning raises."""
        return {
            name: spec
            for name, spec in projects.items()
            if await self.stacks.deviates(spec, self.policy(spec, refresh=False))
        }

    async def bring(self, projects: Projects, *, refresh: bool = True) -> Failure | None:
        """Apply one project after the other, then wait until all of them are healthy."""
        if self.terms.prune:
            for belonging in departing(self.inventory, projects):
                if must_leave_first(belonging.spec, projects):
                    ended = await self._down(belonging)
                    if not ended["ok"]:
                        return _failure(belonging.project, ended, "ApplyFailed")
        for name, spec in projects.items():
            ended = await self.stacks.up(spec, self.policy(spec, refresh=refresh), self.run)
            if not ended["ok"]:
                return _failure(name, ended, "ApplyFailed")
        if not self.terms.gate:
            return None
        patience = self.terms.patience
        results = await asyncio.gather(
            *(self.stacks.prove(spec, self.since, patience, self.run) for spec in projects.values())
        )
        for name, ended in zip(projects, results, strict=True):
            if not ended["ok"]:
                return _failure(name, ended, "Unhealthy")
        return None

    async def prune(
        self,
        projects: Iterable[str],
        hold: Callable[[str, str], None],
        let_go: Callable[[str], None],
    ) -> Failure | None:
        """Take down the projects that are not among these; one that cannot be stays on record
        with the reason (`hold`), the others are let go of."""
        failed: Failure | None = None
        if not self.terms.prune:
            return None
        for belonging in departing(self.inventory, dict.fromkeys(projects)):
            ended = await self._down(belonging)
            if ended["ok"]:
                let_go(belonging.project)
                continue
            failed = _failure(belonging.project, ended, "PruneFailed")
            if failed.reason == CANCELED:
                return failed
            hold(belonging.project, failed.message)
        return failed

    async def _down(self, belonging: Belonging) -> Result:
        return await self.stacks.down(belonging.project, belonging.services, self.run)


def _failure(project: str, ended: Result, reason: str) -> Failure:
    error = ended["error"]
    if error["type"] == "Canceled":
        return Failure(reason=CANCELED, message=str(error["message"]))
    words = [str(error["message"])]
    if error.get("output_tail"):
        words += str(error["output_tail"]).strip().splitlines()[-1:]
    transient = bool(error.get("transient"))
    return Failure(
        reason=str(error.get("reason") or reason),
        message=f"project {project}: {': '.join(words)}",
        transient=transient,
    )
