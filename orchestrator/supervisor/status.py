"""How a project is: whether it is as it was asked for (sync), and whether it does well (health).

The two are apart, as in Argo CD: a stack may be exactly what was asked for and crash, or run
well and differ. Sync is what a plan of the stored project would do now. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from orchestrator.engine.records import ContainerRecord
from orchestrator.planning.actions import BuildImage, ContainerAction, WaitContainer
from orchestrator.planning.observed import Observed, ObservedContainer
from orchestrator.planning.plan import Plan, Step


class Health(IntEnum):
    """From best to worst, in Argo's order: the worst of its parts is a whole's health."""

    HEALTHY = 0
    SUSPENDED = 1
    PROGRESSING = 2
    MISSING = 3
    DEGRADED = 4

    @property
    def word(self) -> str:
        return self.name.capitalize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a plan would do, by service; under "" what is of no single service. `error` says why
    there is no plan."""

    steps: Mapping[str, tuple[Step, ...]]
    error: str = ""

    @classmethod
    def of(cls, plan: Plan) -> Comparison:
        steps: dict[str, tuple[Step, ...]] = {}
        for step in plan.steps:
            if isinstance(step.action, WaitContainer):
                continue
            service = ""
            if isinstance(step.action, ContainerAction | BuildImage):
                service = step.action.service
            steps[service] = (*steps.get(service, ()), step)
        return cls(steps=steps)

    def sync(self, service: str | None = None) -> str:
        """Synced, OutOfSync or Unknown; of everything without a service."""
        if self.error:
            return "Unknown"
        found = self.steps.get(service) if service is not None else self.steps
        return "OutOfSync" if found else "Synced"


def health_of(container: ObservedContainer) -> Health:
    if container.lost:
        return Health.MISSING
    match container.status:
        case "running":
            if container.health == "unhealthy":
                return Health.DEGRADED
            return Health.PROGRESSING if container.health == "starting" else Health.HEALTHY
        case "paused":
            return Health.SUSPENDED
        case "restarting":
            return Health.DEGRADED
        case "created":
            return Health.PROGRESSING if container.intent == "running" else Health.SUSPENDED
    if container.completed:
        return Health.HEALTHY
    return Health.SUSPENDED if container.intent == "stopped" else Health.DEGRADED


def service_health(containers: Iterable[ObservedContainer], wanted: int) -> Health:
    """The worst of the replicas'; one that is missing beside others that run is degradation."""
    healths = [health_of(container) for container in containers]
    if len(healths) < wanted:
        healths.append(Health.DEGRADED if healths else Health.MISSING)
    return max(healths, default=Health.HEALTHY)


def health_by_service(
    declared: Mapping[str, Mapping[str, Any]], observed: Observed
) -> dict[str, Health]:
    """`declared` has services of a canonical project by name."""
    return {
        name: service_health(observed.of_service(name), _count(service))
        for name, service in declared.items()
    }


def health_of_all(parts: Iterable[Health]) -> Health:
    """The worst of the parts'; a whole without parts is missing."""
    return max(parts, default=Health.MISSING)


def project_status(
    *,
    name: str,
    spec: Mapping[str, Any] | None,
    observed: Observed,
    records: Iterable[ContainerRecord],
    comparison: Comparison,
) -> dict[str, Any]:
    """The status as JSON; `spec` is the canonical project as last applied, None where none is."""
    by_service: dict[str, list[ContainerRecord]] = {}
    for record in records:
        if not record.oneoff:
            by_service.setdefault(record.service, []).append(record)
    declared = dict(spec["services"]) if spec is not None else {}
    services = [
        _service(service, declared.get(service), observed, by_service.get(service, []), comparison)
        for service in sorted({*declared, *by_service})
    ]
    worst = health_of_all(Health[s["health"].upper()] for s in services)
    return {
        "project": name,
        "sync": comparison.sync(),
        "health": worst.word,
        "error": comparison.error,
        "differences": _differences(comparison.steps.get("", ())),
        "services": services,
    }


def _service(
    name: str,
    declared: Mapping[str, Any] | None,
    observed: Observed,
    records: list[ContainerRecord],
    comparison: Comparison,
) -> dict[str, Any]:
    containers = observed.of_service(name)
    wanted = _count(declared) if declared is not None else 0
    last = max(
        (r for r in records if r.finished_at is not None),
        key=lambda record: record.finished_at or 0.0,
        default=None,
    )
    return {
        "name": name,
        "sync": comparison.sync(name),
        "health": service_health(containers, wanted).word,
        "wanted": wanted,
        "running": sum(c.status == "running" for c in containers),
        "restarts": sum(record.restarts for record in records),
        "last_exit": None
        if last is None
        else {
            "container": last.name,
            "code": last.exit_code,
            "reason": exit_reason(last),
            "at": last.finished_at,
        },
        "last_error": next((r.error for r in records if r.error), ""),
        "differences": _differences(comparison.steps.get(name, ())),
    }


def exit_reason(record: ContainerRecord) -> str:
    """Why a container ended, in a few words."""
    if record.error:
        return record.error
    if record.exit_code == 0:
        return "completed"
    if record.exit_code is not None and record.exit_code > 128:
        return f"ended by signal {record.exit_code - 128}"
    return f"failed with {record.exit_code}"


def _count(service: Mapping[str, Any]) -> int:
    for count in (service.get("scale"), (service.get("deploy") or {}).get("replicas")):
        if count is not None:
            return int(count)
    return 1


def _differences(steps: Iterable[Step]) -> list[dict[str, Any]]:
    return [
        {
            "what": step.action.text(),
            "cause": str(step.action.cause),
            "changes": [change.to_json() for change in step.action.cause.changes],
        }
        for step in steps
    ]
