"""Which container of a project a command means: by service, and by number among replicas."""

from __future__ import annotations

from typing import Any

from orchestrator.cli.errors import UsageError
from orchestrator.cli.session import Session


def one(
    session: Session,
    service: str,
    index: float | None,
    *,
    states: tuple[str, ...] = ("running",),
    project: str | None = None,
) -> dict[str, Any]:
    """The container of `service` with number `index`, or the first of them, in one of `states`
    (empty: in any). One-off containers do not count."""
    found = session.client.get(session.project_path("containers", project), all=1)
    replicas = [c for c in found if c["service"] == service and not c.get("oneoff")]
    wanted = [
        container
        for container in replicas
        if (not states or container["state"] in states) and index in (None, container["number"])
    ]
    if wanted:
        return dict(min(wanted, key=lambda container: int(container["number"])))
    running = " running" if states == ("running",) else ""
    if index is not None and replicas:
        raise UsageError(f"service {service} has no{running} container number {index:g}")
    known = sorted({container["service"] for container in found})
    hint = f"services with containers: {', '.join(known)}" if known else "bay up -d starts them"
    if replicas or states:
        raise UsageError(f"service {service} is not running", hint=hint)
    raise UsageError(f"service {service} has no container", hint=hint)


def declared(session: Session) -> frozenset[str]:
    """The services that the project's files declare, those that no active profile enables, too."""
    project = session.load().project
    return frozenset((*project.services, *project.disabled_services))


def some(
    session: Session,
    services: tuple[str, ...],
    *,
    project: str | None = None,
    oneoffs: bool = False,
) -> list[dict[str, Any]]:
    """All containers of `services` (empty: of the project), one-off ones only with
    `oneoffs`; a service without one is an error."""
    found = [
        container
        for container in session.client.get(session.project_path("containers", project), all=1)
        if oneoffs or not container.get("oneoff")
    ]
    known = {container["service"] for container in found}
    for service in services:
        if service not in known:
            raise UsageError(f"no such service, or no container of it: {service}")
    return [c for c in found if not services or c["service"] in services]
