"""The port between a plan and the world: one method per action, and `observe`.

Two implementations are shipped: `local` acts on this host, `simulated` on memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from orchestrator.planning import actions
from orchestrator.planning.observed import Observed


class Backend(Protocol):
    """Every method performs its action completely or raises; each can be repeated after a crash
    half-way and then completes it."""

    async def observe(
        self,
        project: str,
        *,
        images: Iterable[str] = (),
        networks: Iterable[str] = (),
        volumes: Iterable[str] = (),
    ) -> Observed:
        """Read the project's containers, networks and volumes, and besides them the images,
        networks and volumes of these names."""
        ...

    async def pull_image(self, action: actions.PullImage) -> None: ...

    async def build_image(self, action: actions.BuildImage) -> None: ...

    async def remove_image(self, action: actions.RemoveImage) -> None: ...

    async def create_network(self, action: actions.CreateNetwork) -> None: ...

    async def update_network(self, action: actions.UpdateNetwork) -> None: ...

    async def remove_network(self, action: actions.RemoveNetwork) -> None: ...

    async def create_volume(self, action: actions.CreateVolume) -> None: ...

    async def remove_volume(self, action: actions.RemoveVolume) -> None: ...

    async def create_container(self, action: actions.CreateContainer) -> None: ...

    async def update_container(self, action: actions.UpdateContainer) -> None: ...

    async def start_container(self, action: actions.StartContainer) -> None: ...

    async def stop_container(self, action: actions.StopContainer) -> None: ...

    async def kill_container(self, action: actions.KillContainer) -> None: ...

    async def remove_container(self, action: actions.RemoveContainer) -> None: ...

    async def wait_container(self, action: actions.WaitContainer) -> None: ...

    async def run_hook(self, action: actions.RunHook) -> None: ...

    async def promote_container(self, action: actions.PromoteContainer) -> None: ...

    async def drain_container(self, action: actions.DrainContainer) -> None: ...

    async def proceed_rollout(self, action: actions.ProceedRollout) -> None: ...


async def perform(backend: Backend, action: actions.AnyAction) -> None:
    """Call the one method that the action stands for."""
    match action:
        case actions.PullImage():
            await backend.pull_image(action)
        case actions.BuildImage():
            await backend.build_image(action)
        case actions.RemoveImage():
            await backend.remove_image(action)
        case actions.CreateNetwork():
            await backend.create_network(action)
        case actions.UpdateNetwork():
            await backend.update_network(action)
        case actions.RemoveNetwork():
            await backend.remove_network(action)
        case actions.CreateVolume():
            await backend.create_volume(action)
        case actions.RemoveVolume():
            await backend.remove_volume(action)
        case actions.CreateContainer():
            await backend.create_container(action)
        case actions.UpdateContainer():
            await backend.update_container(action)
        case actions.StartContainer():
            await backend.start_container(action)
        case actions.StopContainer():
            await backend.stop_container(action)
        case actions.KillContainer():
            await backend.kill_container(action)
        case actions.RemoveContainer():
            await backend.remove_container(action)
        case actions.WaitContainer():
            await backend.wait_container(action)
        case actions.RunHook():
            await backend.run_hook(action)
        case actions.PromoteContainer():
            await backend.promote_container(action)
        case actions.DrainContainer():
            await backend.drain_container(action)
        case actions.ProceedRollout():
            await backend.proceed_rollout(action)
