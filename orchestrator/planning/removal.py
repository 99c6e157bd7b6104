"""The plan of `rm`: remove the containers that have ended, and with `stop` the others too."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.planning.actions import Cause, RemoveContainer, StopContainer
from orchestrator.planning.errors import UnknownService
from orchestrator.planning.hooks import with_hooks
from orchestrator.planning.observed import Observed
from orchestrator.planning.plan import Plan, PlanBuilder

_ASKED = Cause(reason="asked for")


def remove(
    project: str,
    observed: Observed,
    services: Iterable[str],
    *,
    names: Iterable[str] = (),
    stop: bool = False,
    volumes: bool = False,
    timeout: float | None = None,
) -> Plan:
    """One-off containers are among them; `names` narrows to these, `volumes` takes anonymous
    volumes along, `timeout` is in seconds."""
    builder = PlanBuilder(project)
    known = {c.service for c in observed.containers}
    wanted, named = set(services), set(names)
    for service in sorted(wanted):
        if service not in known:
            raise UnknownService(service, known)
    for container in sorted(observed.containers, key=lambda c: c.name):
        if (wanted and container.service not in wanted) or (named and container.name not in named):
            continue
        after = []
        if container.alive:
            if not stop:
                continue
            after.append(
                builder.add(
                    StopContainer(
                        name=container.name,
                        service=container.service,
                        cause=_ASKED,
                        timeout=timeout,
                    )
                )
            )
        builder.add(
            RemoveContainer(
                name=container.name, service=container.service, cause=_ASKED, volumes=volumes
            ),
            after=after,
        )
    return with_hooks(builder.build(), observed)
