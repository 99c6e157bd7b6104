"""What the engine remembers of projects, networks and containers, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.planning.blueprint import mounted_ids
from orchestrator.planning.health import HealthState
from orchestrator.planning.observed import Intent, Role, Spec
from specs.canonical import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRecord:
    """A project as it was last applied; `spec` is its canonical form."""

    name: str
    working_dir: str
    config_files: tuple[str, ...]
    spec: Spec
    digest: str
    updated_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One of the forms in which a project was applied, counted from 1."""

    project: str
    number: int
    digest: str
    spec: Spec
    applied_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load of spec files that somebody started in `directory`; `inputs` are the files and
    variables that it read, with digests, `spec` is the canonical project that it gave."""

    directory: str
    project: str
    config_files: tuple[str, ...]
    inputs: Mapping[str, Any]
    spec: Spec
    used_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecord:
    name: str
    id: str
    key: str
    project: str
    spec: Spec
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRecord:
    """A container's place on a network, by the network's real name."""

    network: str
    network_id: str
    address: str
    mac: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRecord:
    """A published port; `host_port` 0 until the host has given one."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """What supervision needs of the effective process, image and service merged.

    `health` is a healthcheck with Compose's keys, None where there is none; `shell` runs
    CMD-SHELL tests; `stop_signal` is a number, `stop_timeout` in seconds.
    """

    command: tuple[str, ...] = ()
    health: Mapping[str, Any] | None = None
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    stop_signal: int = 15
    stop_timeout: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """A container: what it was made from, what is wanted of it, and how it has fared.

    Times are in seconds since the epoch. `restart_at` is set while a restart by policy is due;
    `volumes` maps the targets of its anonymous volumes to their names; `role` is its part in a
    rollout; `hooks_due` tells that it was started and its post_start hooks have not all
    succeeded.
    """

    id: str
    name: str
    project: str
    service: str
    number: int
    source: tuple[str, ...]
    spec: Spec
    image: str
    image_id: str
    created_at: float
    oneoff: bool = False
    process: ProcessRecord = ProcessRecord()
    endpoints: tuple[EndpointRecord, ...] = ()
    ports: tuple[PortRecord, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)
    intent: Intent = "stopped"
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    error: str = ""
    restarts: int = 0
    restart_delay: float = 0.0
    restart_at: float | None = None
    health: HealthState | None = None
    role: Role = "current"
    hooks_due: bool = False

    @property
    def mounted_images(self) -> tuple[str, ...]:
        """The ids of the images that are mounted in it."""
        return tuple(mounted_ids(self.spec).values())

    @property
    def labels(self) -> dict[str, str]:
        """The service's labels, and those by which Compose's own tools know a container."""
        service = self.spec["service"]
        return {
            **(service.get("labels") or {}),
            "com.docker.compose.project": self.project,
            "com.docker.compose.service": self.service,
            "com.docker.compose.container-number": str(self.number),
            "com.docker.compose.oneoff": str(self.oneoff),
            "com.docker.compose.config-hash": digest(service).removeprefix("sha256:"),
            "com.docker.compose.image": self.image_id,
            "com.docker.compose.project.config_files": ",".join(self.source),
        }
