"""What is there: a frozen snapshot of one project's containers, networks, volumes and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.planning.restart import RestartPolicy

ContainerStatus = Literal["created", "running", "paused", "restarting", "exited"]
HealthStatus = Literal["none", "starting", "healthy", "unhealthy"]
Intent = Literal["running", "stopped"]
Role = Literal["current", "next", "retired"]

Spec = Mapping[str, Any]
"""A canonical specification as plain JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedContainer:
    """One container of the project.

    `spec` is the blueprint that it was made from (see `blueprint`), `image_id` the image that
    it runs; `intent` is what was last asked of it, so that a container that ended by itself can
    be told from one that was stopped. `source` lists the files that the project came from;
    `anonymous` maps the targets of its anonymous volumes to their names. A `lost` container is
    on record, but what it runs on is gone or was never completed. In a rollout, `next` is a
    container that is to take the place of the current one, `retired` one whose place is taken.
    `hooks_due` tells that it was started and its post_start hooks have not all succeeded.
    """

    id: str
    name: str
    service: str
    number: int
    status: ContainerStatus
    spec: Spec
    image_id: str
    intent: Intent = "running"
    health: HealthStatus = "none"
    exit_code: int | None = None
    oneoff: bool = False
    source: tuple[str, ...] = ()
    anonymous: Mapping[str, str] = field(default_factory=dict)
    lost: bool = False
    role: Role = "current"
    hooks_due: bool = False

    @property
    def alive(self) -> bool:
        return self.status in ("running", "paused", "restarting")

    @property
    def completed(self) -> bool:
        """It ended by itself, successfully, and nothing will start it again."""
        return (
            self.status == "exited"
            and self.exit_code == 0
            and self.intent == "running"
            and RestartPolicy.of(self.spec["service"]).condition in ("no", "on-failure")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedNetwork:
    """A network by its real name; `project` is None where no project of ours made it.

    `intact` is False when its link or rules are known to be gone.
    """

    name: str
    key: str = ""
    project: str | None = None
    spec: Spec = field(default_factory=dict)
    intact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedVolume:
    """A volume by its real name; `project` is None where no project of ours made it."""

    name: str
    key: str = ""
    project: str | None = None
    spec: Spec = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The project's part of the world, plus every network, volume and image that it names.

    `images` maps a reference to the id of the local image; a reference that is not a key is
    not in the store; `platforms` tells what those that are were made for, `pulled` when one was
    last pulled. `elsewhere` maps a network to the containers of other projects on it.
    `inheritance` has, by service and number, the anonymous volumes of replicas that were removed
    and whose successors have not come to be.
    """

    containers: tuple[ObservedContainer, ...] = ()
    networks: Mapping[str, ObservedNetwork] = field(default_factory=dict)
    volumes: Mapping[str, ObservedVolume] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    platforms: Mapping[str, str] = field(default_factory=dict)
    pulled: Mapping[str, float] = field(default_factory=dict)
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inheritance: Mapping[tuple[str, int], Mapping[str, str]] = field(default_factory=dict)

    def of_service(self, service: str) -> tuple[ObservedContainer, ...]:
        """The service's replicas by number; one-off containers are not among them, nor those
        that a rollout keeps beside the current ones."""
        return self._replicas(service, "current")

    def beside(self, service: str, role: Role) -> tuple[ObservedContainer, ...]:
        """What a rollout keeps beside the service's replicas, by number."""
        return self._replicas(service, role)

    def _replicas(self, service: str, role: Role) -> tuple[ObservedContainer, ...]:
        found = (
            c for c in self.containers if c.service == service and not c.oneoff and c.role == role
        )
        return tuple(sorted(found, key=lambda c: c.number))
