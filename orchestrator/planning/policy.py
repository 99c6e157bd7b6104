"""What the person asked for besides the project itself: the flags of up, down and the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Recreate = Literal["diverged", "force", "never"]
Build = Literal["missing", "always", "never"]
Pull = Literal["missing", "always", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The ids of a service's images, whatever their references stand for by now: of the one that
    it runs, and by target of those that it mounts."""

    image: str
    mounted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to converge. `services` narrows the run to these and what they need, empty is all;
    `all_resources` takes in networks and volumes that no service uses, `ignore_orphans` says
    nothing of orphans; `timeout` (stop) and `wait_timeout` are in seconds, None takes the
    container's own stop timeout and no bound. Without `refresh`, an image that is there is neither
    built nor pulled again. `promote` are the services whose canaries have proved themselves,
    `pins` by service the images that are settled beforehand, `departed` the services that have
    left the project: they go, whatever files they came from; `environ` is what builds may know
    of the person's environment. With `dependents` what runs and depends on these services with
    `restart: true` is restarted where they are replaced."""

    services: tuple[str, ...] = ()
    recreate: Recreate = "diverged"
    build: Build = "missing"
    pull: Pull = "missing"
    dependencies: bool = True
    dependents: bool = False
    recreate_dependencies: bool = False
    remove_orphans: bool = False
    ignore_orphans: bool = False
    all_resources: bool = False
    renew_volumes: bool = False
    start: bool = True
    wait: bool = False
    wait_timeout: float | None = None
    timeout: float | None = None
    scale: Mapping[str, int] = field(default_factory=dict)
    refresh: bool = True
    promote: frozenset[str] = frozenset()
    pins: Mapping[str, Pin] = field(default_factory=dict)
    departed: frozenset[str] = frozenset()
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """How to take a project down; `images` removes its images: all, or those without a name of
    their own (local)."""

    services: tuple[str, ...] = ()
    volumes: bool = False
    remove_orphans: bool = False
    images: Literal["all", "local"] | None = None
    timeout: float | None = None
