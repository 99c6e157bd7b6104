"""Whether a project stands as it was applied, and how it proves itself once it does. Pure."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.planning.actions import Cause, RunHook, StartContainer, WaitContainer
from orchestrator.planning.observed import Observed
from orchestrator.planning.plan import Plan, PlanBuilder

_PROOF = Cause(reason="the revision is to prove itself")


def health_gate(
    project: str,
    services: Collection[str],
    observed: Observed,
    lasting: Collection[str],
    monitor: float,
    timeout: float,
) -> Plan:
    """Wait until every one of the services is healthy: by its health check, else by having run
    for `monitor` seconds without an end. Containers named in `lasting` ended and came back
    before, so that for them it is enough to run. Times in seconds."""
    builder = PlanBuilder(project)
    for container in observed.containers:
        if container.oneoff or container.role != "current" or container.service not in services:
            continue
        builder.add(
            WaitContainer(
                name=container.name,
                service=container.service,
                cause=_PROOF,
                condition="ready" if container.name in lasting else "stable",
                timeout=timeout,
                monitor=monitor,
            )
        )
    return builder.build()


def deviates(plan: Plan, observed: Observed) -> bool:
    """Whether a plan puts right what somebody changed. A container that ended by itself and that
    its restart policy leaves so is no deviation: starting it again would never come to an end."""
    ended = {c.name for c in observed.containers if c.status == "exited" and c.intent == "running"}
    return any(
        not isinstance(step.action, WaitContainer)
        and not (isinstance(step.action, StartContainer | RunHook) and step.action.name in ended)
        for step in plan.steps
    )
