"""Reads the store and the backend's parts into a snapshot for the planner. Pure but for what it
is handed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from orchestrator.engine.records import ContainerRecord, NetworkRecord
from orchestrator.planning.observed import (
    ContainerStatus,
    HealthStatus,
    ObservedContainer,
    ObservedNetwork,
)


def container_status(record: ContainerRecord, status: str) -> ContainerStatus:
    """The status as people know it: `status` is the runtime's, and an ended container that is
    due to start again is restarting. While it is being started, the runtime knows of no run."""
    if status in ("running", "paused") or (status == "created" and record.restart_at is None):
        return status  # type: ignore[return-value]  # one of the three words of ContainerStatus
    return "restarting" if record.restart_at is not None else "exited"


def health_status(record: ContainerRecord, status: ContainerStatus) -> HealthStatus:
    if record.process.health is None or status not in ("running", "paused"):
        return "none"
    return record.health.status if record.health else "starting"


def observed_containers(
    records: Iterable[ContainerRecord], statuses: Mapping[str, str]
) -> tuple[ObservedContainer, ...]:
    """`statuses` are the runtime's by id; a container that the runtime does not know was left
    half-made or half-removed, or somebody deleted it."""
    observed = []
    for record in records:
        status = container_status(record, statuses.get(record.id, "created"))
        observed.append(
            ObservedContainer(
                id=record.id,
                name=record.name,
                service=record.service,
                number=record.number,
                status=status,
                spec=record.spec,
                image_id=record.image_id,
                intent=record.intent,
                health=health_status(record, status),
                exit_code=record.exit_code,
                oneoff=record.oneoff,
                source=record.source,
                anonymous=record.volumes,
                lost=record.id not in statuses,
                role=record.role,
                hooks_due=record.hooks_due,
            )
        )
    return tuple(observed)


def observed_networks(
    records: Iterable[NetworkRecord], project: str, named: Collection[str], intact: Collection[str]
) -> dict[str, ObservedNetwork]:
    """The project's networks and those of the given names; `intact` lists the ids whose link
    stands."""
    return {
        record.name: ObservedNetwork(
            name=record.name,
            key=record.key,
            project=record.project,
            spec=record.spec,
            intact=record.id in intact,
        )
        for record in records
        if record.project == project or record.name in named
    }


def users_elsewhere(records: Iterable[ContainerRecord], project: str) -> dict[str, tuple[str, ...]]:
    """By network, the containers of other projects that are on it."""
    users: dict[str, tuple[str, ...]] = {}
    for record in records:
        if record.project != project:
            for network in record.spec["networks"].values():
                users[network] = (*users.get(network, ()), record.name)
    return users
