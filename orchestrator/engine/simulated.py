"""The backend on memory: dry runs, demonstrations, and the planner's property tests.

It keeps the rules of the real one (what exists cannot be created again, what is in use cannot
be removed) and can be told how containers behave and which actions fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from orchestrator.engine.errors import (
    EngineError,
    HookFailed,
    NameTaken,
    NoSuchContainer,
    RolloutFailed,
    WaitFailed,
)
from orchestrator.planning import actions
from orchestrator.planning.blueprint import image_content, mounted_references
from orchestrator.planning.drift import same_form
from orchestrator.planning.observed import (
    HealthStatus,
    Observed,
    ObservedContainer,
    ObservedNetwork,
    ObservedVolume,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a container does once started: it ends at once with `exit_code`, or runs and has
    this health."""

    exit_code: int | None = None
    health: HealthStatus = "none"


Fault = Callable[[actions.AnyAction], Exception | None]


class SimulatedFault(EngineError):
    """An error that was asked for."""


class SimulatedBackend:
    """A world of dictionaries.

    `behaviours` are by service; `before` and `after` are asked at every action for an error to
    raise before it has any effect, or when its effect is there but not yet known.
    `log` lists what was performed, as text.
    """

    def __init__(
        self,
        *,
        images: Mapping[str, str] | None = None,
        behaviours: Mapping[str, Behaviour] | None = None,
        before: Fault | None = None,
        after: Fault | None = None,
    ) -> None:
        self.images = dict(images or {})
        self.behaviours = dict(behaviours or {})
        self.before = before
        self.after = after
        self.containers: dict[str, ObservedContainer] = {}
        self.owners: dict[str, str] = {}
        self.networks: dict[str, ObservedNetwork] = {}
        self.volumes: dict[str, ObservedVolume] = {}
        self.inheritance: dict[tuple[str, int], Mapping[str, str]] = {}
        self.log: list[str] = []
        self._ids = 0

    @classmethod
    def of(cls, project: str, observed: Observed) -> Self:
        """A world that looks like `observed`, to try a plan on."""
        world = cls(images=observed.images)
        world.networks = dict(observed.networks)
        world.volumes = dict(observed.volumes)
        world.inheritance = dict(observed.inheritance)
        world.containers = {c.name: c for c in observed.containers}
        world.owners = dict.fromkeys(world.containers, project)
        for container in observed.containers:
            health: HealthStatus = "healthy" if container.health != "none" else "none"
            world.behaviours.setdefault(container.service, Behaviour(health=health))
        return world

    async def observe(
        self,
        project: str,
        *,
        images: Iterable[str] = (),
        networks: Iterable[str] = (),
        volumes: Iterable[str] = (),
    ) -> Observed:
        named_networks, named_volumes = set(networks), set(volumes)
        elsewhere: dict[str, tuple[str, ...]] = {}
        for name, container in sorted(self.containers.items()):
            if self.owners[name] != project:
                for network in container.spec["networks"].values():
                    elsewhere[network] = (*elsewhere.get(network, ()), name)
        return Observed(
            containers=tuple(
                c for name, c in sorted(self.containers.items()) if self.owners[name] == project
            ),
            networks={
                name: network
                for name, network in self.networks.items()
                if network.project == project or name in named_networks
            },
            volumes={
                name: volume
                for name, volume in self.volumes.items()
                if volume.project == project or name in named_volumes
            },
            images={name: self.images[name] for name in images if name in self.images},
            elsewhere=elsewhere,
            inheritance=dict(self.inheritance),
        )

    async def pull_image(self, action: actions.PullImage) -> None:
        with self._performing(action):
            self.images[action.name] = self._new_id("sha256:")

    async def build_image(self, action: actions.BuildImage) -> None:
        with self._performing(action):
            self.images.setdefault(action.name, self._new_id("sha256:"))

    async def remove_image(self, action: actions.RemoveImage) -> None:
        with self._performing(action):
            self.images.pop(action.name, None)

    async def create_network(self, action: actions.CreateNetwork) -> None:
        with self._performing(action):
            self.networks[action.name] = ObservedNetwork(
                name=action.name, key=action.key, project=action.project, spec=action.spec
            )

    async def update_network(self, action: actions.UpdateNetwork) -> None:
        with self._performing(action):
            self.networks[action.name] = replace(self.networks[action.name], spec=action.spec)

    async def remove_network(self, action: actions.RemoveNetwork) -> None:
        with self._performing(action):
            users = [
                c.name for c in self.containers.values() if action.name in self._networks_of(c)
            ]
            if users:
                raise EngineError(f"network {action.name} is in use by {', '.join(users)}")
            self.networks.pop(action.name, None)

    async def create_volume(self, action: actions.CreateVolume) -> None:
        with self._performing(action):
            self.volumes.setdefault(
                action.name,
                ObservedVolume(
                    name=action.name, key=action.key, project=action.project, spec=action.spec
                ),
            )

    async def remove_volume(self, action: actions.RemoveVolume) -> None:
        with self._performing(action):
            users = [
                c.name
                for c in self.containers.values()
                if action.name in c.spec["volumes"].values()
            ]
            if users:
                raise EngineError(f"volume {action.name} is in use by {', '.join(users)}")
            self.volumes.pop(action.name, None)

    async def create_container(self, action: actions.CreateContainer) -> None:
        with self._performing(action):
            if action.name in self.containers:
                raise NameTaken(action.name, self.owners[action.name])
            for network in action.spec["networks"].values():
                if network not in self.networks:
                    raise EngineError(f"no such network: {network}")
            for volume in action.spec["volumes"].values():
                if volume not in self.volumes:
                    raise EngineError(f"no such volume: {volume}")
            mounted = mounted_references(action.spec["service"]) | dict(action.mounted)
            for image in (action.image, *mounted.values()):
                if image not in self.images:
                    raise EngineError(f"no such image: {image}")
            contents = {image_content(at): self.images[image] for at, image in mounted.items()}
            self.owners[action.name] = action.project.name
            oneoff = "oneoff" in action.spec
            anonymous = {
                str(mount["target"]): action.anonymous.get(mount["target"]) or self._new_id()
                for mount in action.spec["service"].get("volumes") or ()
                if mount.get("type") == "volume" and not mount.get("source")
            }
            if action.role == "current" and not oneoff:
                self.inheritance.pop((action.service, action.number), None)
            self.containers[action.name] = ObservedContainer(
                id=self._new_id(),
                name=action.name,
                service=action.service,
                number=action.number,
                status="created",
                spec={**action.spec, "contents": {**action.spec["contents"], **contents}},
                image_id=self.images[action.image],
                source=tuple(action.project.config_files),
                role=action.role,
                oneoff=oneoff,
                anonymous=anonymous,
            )

    async def update_container(self, action: actions.UpdateContainer) -> None:
        with self._performing(action):
            self._change(action.name, spec=action.spec)

    async def start_container(self, action: actions.StartContainer) -> None:
        with self._performing(action):
            container = self._container(action.name)
            behaviour = self.behaviours.get(container.service, Behaviour())
            if container.oneoff:
                behaviour = Behaviour(exit_code=0)
            if action.fresh:
                hooks = bool(container.spec["service"].get("post_start"))
                self._change(action.name, hooks_due=hooks)
            if behaviour.exit_code is None:
                self._change(
                    action.name, status="running", health=behaviour.health, intent="running"
                )
            else:
                self._change(
                    action.name,
                    status="exited",
                    exit_code=behaviour.exit_code,
                    intent="running",
                )

    async def stop_container(self, action: actions.StopContainer) -> None:
        with self._performing(action):
            self._end(action.name, 143)

    async def kill_container(self, action: actions.KillContainer) -> None:
        with self._performing(action):
            if action.signal in ("SIGKILL", "KILL", "9"):
                self._end(action.name, 137)

    async def remove_container(self, action: actions.RemoveContainer) -> None:
        with self._performing(action):
            container = self.containers.get(action.name)
            if container is not None and container.alive:
                raise EngineError(f"cannot remove container {action.name}: it is running")
            self.containers.pop(action.name, None)
            self.owners.pop(action.name, None)
            if container is not None:
                self._settle_inheritance(container, action)

    def _settle_inheritance(
        self, container: ObservedContainer, action: actions.RemoveContainer
    ) -> None:
        replica = (container.service, container.number)
        if action.bequeath:
            self.inheritance[replica] = {
                **self.inheritance.get(replica, {}),
                **container.anonymous,
            }
        elif action.release and container.role == "current" and not container.oneoff:
            self.inheritance.pop(replica, None)

    async def wait_container(self, action: actions.WaitContainer) -> None:
        with self._performing(action):
            container = self._container(action.name)
            running = container.status == "running"
            fulfilled = {
                "started": running,
                "healthy": running and container.health == "healthy",
                "completed": container.status == "exited" and container.exit_code == 0,
                "ready": (running and container.health in ("none", "healthy"))
                or container.completed,
                "stable": (running and container.health in ("none", "healthy"))
                or container.completed,
            }[action.condition]
            if not fulfilled:
                raise WaitFailed(action.name, f"will not be {action.condition}")

    async def run_hook(self, action: actions.RunHook) -> None:
        with self._performing(action):
            if not self._container(action.name).alive:
                raise HookFailed(action.name, action.phase, action.number, "it does not run")
            hooks = self._container(action.name).spec["service"].get(action.phase) or ()
            if action.phase == "post_start" and action.number == len(hooks):
                self._change(action.name, hooks_due=False)

    async def promote_container(self, action: actions.PromoteContainer) -> None:
        with self._performing(action):
            if action.candidate not in self.containers:
                return
            current = self._container(action.name)
            self.containers[action.aside] = replace(current, name=action.aside, role=action.role)
            successor = self.containers.pop(action.candidate)
            self.containers[action.name] = replace(successor, name=action.name, role="current")
            self.owners[action.aside] = self.owners.pop(action.candidate)

    async def drain_container(self, action: actions.DrainContainer) -> None:
        with self._performing(action):
            self._container(action.name)

    async def proceed_rollout(self, action: actions.ProceedRollout) -> None:
        with self._performing(action):
            behind = [
                name
                for name in action.replicas
                if name not in self.containers
                or not same_form(self.containers[name].spec, action.spec)
            ]
            if len(behind) > action.tolerated:
                raise RolloutFailed(action.service, behind)

    def _performing(self, action: actions.AnyAction) -> _Performing:
        return _Performing(self, action)

    def _container(self, name: str) -> ObservedContainer:
        if name not in self.containers:
            raise NoSuchContainer(name)
        return self.containers[name]

    def _change(self, name: str, **changes: object) -> None:
        self.containers[name] = replace(self._container(name), **changes)  # type: ignore[arg-type]  # checked by its callers

    def _end(self, name: str, exit_code: int) -> None:
        if self._container(name).alive:
            self._change(
                name, status="exited", exit_code=exit_code, intent="stopped", health="none"
            )

    def _networks_of(self, container: ObservedContainer) -> frozenset[str]:
        return frozenset(container.spec["networks"].values())

    def _new_id(self, prefix: str = "") -> str:
        self._ids += 1
        return f"{prefix}{self._ids:064x}"


class _Performing:
    """Raises the faults that were asked for around an action's effect, and logs it."""

    def __init__(self, world: SimulatedBackend, action: actions.AnyAction) -> None:
        self._world = world
        self._action = action

    def __enter__(self) -> None:
        fault = self._world.before(self._action) if self._world.before else None
        if fault is not None:
            raise fault

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is not None:
            return
        self._world.log.append(self._action.text())
        fault = self._world.after(self._action) if self._world.after else None
        if fault is not None:
            raise fault
