"""What a failed `up` leaves half-made, and the plan that takes it away again.

A container that this very run made and that never ran is of no use to anybody: it goes, and
with it the networks and volumes that the run made for nobody else. What runs stays, and so
does what existed before.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.planning.actions import (
    Cause,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    StartContainer,
)
from orchestrator.planning.observed import Observed
from orchestrator.planning.plan import Plan, PlanBuilder

_CAUSE = Cause(reason="made by a run that failed before it was used")


def undo(plan: Plan, statuses: Mapping[int, str], observed: Observed, now: float) -> Plan:
    """Plan the removal; `statuses` are those of `plan`'s steps, `observed` is how it is now."""
    builder = PlanBuilder(plan.project)
    replaced = {s.action.name for s in plan.steps if isinstance(s.action, RemoveContainer)}
    meant_to_run = {s.action.name for s in plan.steps if isinstance(s.action, StartContainer)}
    made = {
        s.action.name: s.action
        for s in plan.steps
        if isinstance(s.action, CreateContainer)
        and statuses.get(s.id) == "done"
        and s.action.name not in replaced
        and s.action.name in meant_to_run
    }
    removed: dict[str, int] = {}
    kept = []
    for container in observed.containers:
        if container.name in made and container.status == "created":
            # What it has inherited is not in vain.
            inherits = bool(made[container.name].anonymous)
            removed[container.name] = builder.add(
                RemoveContainer(
                    name=container.name,
                    service=container.service,
                    cause=_CAUSE,
                    volumes=not inherits,
                    bequeath=inherits,
                    release=not inherits,
                )
            )
        else:
            kept.append(container)
    for step in plan.steps:
        action = step.action
        if statuses.get(step.id) != "done":
            continue
        if isinstance(action, CreateNetwork):
            used = any(action.name in c.spec["networks"].values() for c in kept)
            existed = any(
                isinstance(s.action, RemoveNetwork) and s.action.name == action.name
                for s in plan.steps
            )
            if not used and not existed and not observed.elsewhere.get(action.name):
                builder.add(RemoveNetwork(name=action.name, cause=_CAUSE), after=removed.values())
        elif isinstance(action, CreateVolume):
            used = any(action.name in c.spec["volumes"].values() for c in kept)
            if not used:
                builder.add(RemoveVolume(name=action.name, cause=_CAUSE), after=removed.values())
    return builder.build()
