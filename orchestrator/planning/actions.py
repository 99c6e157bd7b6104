"""The closed union of what a plan can do; each action is exactly one call of the backend.

An action is complete: whoever performs it decides nothing about the desired state. `cause`
says why it is in the plan, `destructive` that it deletes data which nothing can bring back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from orchestrator.planning.drift import Change
from orchestrator.planning.observed import Role, Spec
from specs.project import Project

WaitCondition = Literal["started", "healthy", "completed", "ready", "stable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why an action is in the plan: a reason, and the changed fields that lead to it.

    A `brief` one stands in the text of a plan in place of both, where a step before this one
    has told them.
    """

    reason: str
    changes: tuple[Change, ...] = ()
    brief: str = ""

    def __str__(self) -> str:
        details = "; ".join(change.text() for change in self.changes)
        return f"{self.reason} ({details})" if details else self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Base of all actions; `name` is the resource's real name.

    `words` are Compose's for an action under way and one that is done. An `interruptible` one
    may be cancelled half-way and leaves nothing half-made then.
    """

    verb: ClassVar[str]
    words: ClassVar[tuple[str, str]]
    kind: ClassVar[str]
    destructive: ClassVar[bool] = False
    interruptible: ClassVar[bool] = False

    name: str
    cause: Cause

    @property
    def resource(self) -> str:
        return f"{self.kind} {self.name}"

    def details(self) -> dict[str, Any]:
        """What the JSON form adds for this kind of action."""
        return {}

    def text(self) -> str:
        return f"{self.verb} {self.resource}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PullImage(Action):
    """Fetch from the registry what it has for `platform`, "" for this machine's; where that is
    not `allowed`, the image must be there."""

    verb = "pull"
    words = ("Pulling", "Pulled")
    kind = "image"
    interruptible = True

    project: str = ""
    platform: str = ""
    allowed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildImage(Action):
    """Build `service` of `project`; `name` is the reference that the image gets.

    `environ` is what the build may know of the person's environment, `ssh` agents' sockets or
    keys by ID beside those of the project, `memory` bounds each command (bytes). All platforms
    of the service are built with `all_platforms`, else the one that it runs on.
    """

    verb = "build"
    words = ("Building", "Built")
    kind = "image"
    interruptible = True

    service: str
    project: Project
    no_cache: bool = False
    pull: bool = False
    arguments: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None
    all_platforms: bool = False

    def details(self) -> dict[str, Any]:
        return {"service": self.service}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveImage(Action):
    verb = "remove"
    words = ("Removing", "Removed")
    kind = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateNetwork(Action):
    """Create the network, or put back what is missing of it; `spec` is its canonical form, and
    there is to be room for so many `endpoints`."""

    verb = "create"
    words = ("Creating", "Created")
    kind = "network"

    project: str
    key: str
    spec: Spec
    endpoints: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateNetwork(Action):
    """Take over the fields that need no new link (labels)."""

    verb = "update"
    words = ("Updating", "Updated")
    kind = "network"

    project: str
    key: str
    spec: Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNetwork(Action):
    verb = "remove"
    words = ("Removing", "Removed")
    kind = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVolume(Action):
    verb = "create"
    words = ("Creating", "Created")
    kind = "volume"

    project: str
    key: str
    spec: Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveVolume(Action):
    verb = "remove"
    words = ("Removing", "Removed")
    kind = "volume"
    destructive = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerAction(Action):
    kind = "container"

    service: str

    def details(self) -> dict[str, Any]:
        return {"service": self.service}


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateContainer(ContainerAction):
    """Create replica `number`; `spec` is the blueprint to store with it, `image` a reference or
    an id, as are by target the images `mounted`.

    `anonymous` are the anonymous volumes that it takes over from the container it replaces.
    """

    verb = "create"
    words = ("Creating", "Created")

    project: Project
    number: int
    image: str
    spec: Spec
    mounted: Mapping[str, str] = field(default_factory=dict)
    anonymous: Mapping[str, str] = field(default_factory=dict)
    role: Role = "current"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateContainer(ContainerAction):
    """Take over, without a restart, the changes that `cause` lists; `spec` replaces the stored
    blueprint."""

    verb = "update"
    words = ("Updating", "Updated")

    project: Project
    spec: Spec

    @property
    def fields(self) -> frozenset[str]:
        """The names of the service's changed attributes."""
        return frozenset(change.field.partition(".")[0] for change in self.cause.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer(ContainerAction):
    """Start; `fresh` begins the count of restarts anew, as a person's start does."""

    verb = "start"
    words = ("Starting", "Started")

    fresh: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StopContainer(ContainerAction):
    """Stop; `timeout` in seconds, None for the container's own; `deaf_timeout` for one whose first
    process does not listen to its stop signal, None for as long as any other. Interrupted, it
    leaves a container that was asked to end and that nobody kills."""

    verb = "stop"
    words = ("Stopping", "Stopped")
    interruptible = True

    timeout: float | None = None
    deaf_timeout: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KillContainer(ContainerAction):
    verb = "kill"
    words = ("Killing", "Killed")

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveContainer(ContainerAction):
    """Remove a stopped container; `volumes` takes its anonymous volumes with it, `bequeath` keeps
    them for the one that takes its place, `release` lets its addresses go to others."""

    verb = "remove"
    words = ("Removing", "Removed")

    volumes: bool = False
    bequeath: bool = False
    release: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitContainer(ContainerAction):
    """Wait until the container fulfils `condition`; `timeout` in seconds, None is no bound.

    `ready` is what `up --wait` asks for: healthy where there is a health check, else running,
    or ended with 0. `stable` is a rollout's: healthy where there is a health check, else running
    for `monitor` seconds, and never ended since its start.
    """

    verb = "wait for"
    words = ("Waiting", "Waited")
    interruptible = True

    condition: WaitCondition
    timeout: float | None = None
    monitor: float = 0.0

    def details(self) -> dict[str, Any]:
        return {"service": self.service, "condition": self.condition}

    @property
    def fulfilled(self) -> str:
        """Compose's word for the condition once it holds."""
        return {"healthy": "Healthy", "completed": "Exited", "started": "Started"}.get(
            self.condition, "Ready"
        )

    def text(self) -> str:
        state = {"started": "running"}.get(self.condition, self.condition)
        return f"{self.verb} {self.resource} to be {state}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHook(ContainerAction):
    """Run a command in the container, which must succeed: hook `number` of `phase`, a canonical
    hook."""

    verb = "run hook in"
    words = ("Running hook", "Ran hook")
    interruptible = True

    phase: str
    number: int
    hook: Mapping[str, Any]

    def text(self) -> str:
        return f"run {self.phase} hook {self.number} in {self.resource}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteContainer(ContainerAction):
    """Switch traffic: the container called `candidate` takes the name, the names on networks and
    the published ports of `name`, whose own is called `aside` from then on, in this `role`.

    It is one transaction; whoever connects reaches the one or the other. A `pausable` one is
    not done in a rollout that somebody has paused: what there is goes on serving.
    """

    verb = "switch traffic to"
    words = ("Switching", "Switched")

    candidate: str
    aside: str
    role: Role = "retired"
    pausable: bool = False

    def text(self) -> str:
        return f"{self.verb} {self.kind} {self.candidate} as {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainContainer(ContainerAction):
    """Lead no new connection to the container, and wait at most `timeout` seconds until those
    that are open have ended."""

    verb = "drain"
    words = ("Draining", "Drained")
    interruptible = True

    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProceedRollout(ContainerAction):
    """Stand between two batches: wait `delay` seconds, and go on unless somebody has paused the
    rollout, or more than `tolerated` of the `replicas` so far are not of the form `spec`."""

    verb = "go on with"
    words = ("Holding", "Going on")
    kind = "rollout"
    interruptible = True

    project: str
    delay: float
    spec: Spec
    replicas: tuple[str, ...]
    tolerated: int = 0

    def text(self) -> str:
        after = f" after {self.delay:g} s" if self.delay else ""
        return f"{self.verb} {self.resource}{after}"


AnyAction = (
    PullImage
    | BuildImage
    | RemoveImage
    | CreateNetwork
    | UpdateNetwork
    | RemoveNetwork
    | CreateVolume
    | RemoveVolume
    | CreateContainer
    | UpdateContainer
    | StartContainer
    | StopContainer
    | KillContainer
    | RemoveContainer
    | WaitContainer
    | RunHook
    | PromoteContainer
    | DrainContainer
    | ProceedRollout
)
