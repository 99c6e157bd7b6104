"""Builds the images of services; their steps run in containers on a network made for builds."""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
import threading
from collections.abc import Callable
from time import time

from orchestrator.engine.base_images import BaseImages
from orchestrator.engine.build_network import PREFIX, BuildNetwork, StepNetworks
from orchestrator.engine.build_requests import (
    network_of,
    opened_request,
    own_images,
    platforms_of,
    service_of,
    without_effect,
)
from orchestrator.engine.events import BuildEvent
from orchestrator.engine.host import Host
from orchestrator.engine.networks import NetworkWork
from orchestrator.planning import actions
from runtime.build import agents, checkouts, events, remote_contexts
from runtime.build.builder import build_platforms
from runtime.build.cache import StepCache
from runtime.build.run import ContainerStepRunner
from runtime.errors import BuildError
from runtime.removal import discard

_log = logging.getLogger(__name__)

_CACHE_SHARE = 10
"""The build cache may take one part in so many of the file system, as BuildKit's does."""


class BuildWork:
    def __init__(self, host: Host, networks: NetworkWork) -> None:
        self._host = host
        self._network = BuildNetwork(host, networks)
        self._grown = False
        self._scratch = host.root / "build"

    async def build(self, action: actions.BuildImage) -> None:
        """Build and tag; raises BuildError. Cancelling it ends the step that runs."""
        loop = asyncio.get_running_loop()

        def tell(line: str, step: str = "") -> None:
            event = BuildEvent(
                project=action.project.name,
                at=time(),
                service=action.service,
                step=step,
                line=line,
            )
            loop.call_soon_threadsafe(self._host.bus.publish, event)

        self._grown = True
        async with self._network.used(network_of(action)) as network:
            steps = ContainerStepRunner(
                self._host.containers,
                open_network=network.open,
                scratch=self._scratch,
            )
            cancel = threading.Event()
            work = asyncio.ensure_future(
                self._host.slowly(
                    functools.partial(
                        self._build, action, network, steps, tell=tell, cancel=cancel, loop=loop
                    )
                )
            )
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                cancel.set()
                steps.cancel()
                # The step's container is taken away before the network is.
                await asyncio.wait((work,))
                if not work.cancelled():
                    work.exception()
                raise
        self._host.tell_resource("build", "image", action.name, action.project.name)

    def _build(
        self,
        action: actions.BuildImage,
        network: StepNetworks,
        steps: ContainerStepRunner,
        *,
        tell: Callable[..., None],
        cancel: threading.Event,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        service = service_of(action)
        for line in without_effect(service["build"]):
            tell(f"warning: {line}")

        def stop() -> None:
            if cancel.is_set():
                raise BuildError("the build was canceled")

        with opened_request(
            action, self._scratch, gateway=network.gateway, tell=tell, stop=stop
        ) as request:
            bases = BaseImages(
                self._host,
                action.project.name,
                loop,
                own=own_images(action),
                refresh=request.pull,
                config=request.registry,
                cancel=cancel,
                tell=tell,
            )
            build_platforms(
                request,
                platforms_of(action, service),
                store=self._host.images,
                steps=steps,
                progress=_Narrator(tell).tell,
                find_image=bases.find,
                cancel=cancel,
            )

    async def tidy(self) -> None:
        """While nothing is built: make what came into the image store survive a power cut, and
        after builds hold their cache to its share of the disk."""
        if self._network.users:
            return
        grown, self._grown = self._grown, False
        await self._host.slowly(functools.partial(self._tidy, grown=grown))

    def _tidy(self, *, grown: bool) -> None:
        images = self._host.images
        images.settle()
        if not grown:
            return
        keep = shutil.disk_usage(images.root).total // _CACHE_SHARE
        forgotten = StepCache(images).prune(keep=keep)
        if forgotten:
            freed = images.collect_garbage()
            _log.info("build cache: forgot %d bytes, of which %d are free now", forgotten, freed)

    def sweep(self) -> None:
        """Remove what builds have left that a crash cut short. Blocking."""
        for prefix in (checkouts.PREFIX, remote_contexts.PREFIX, agents.PREFIX):
            for left in self._scratch.glob(f"{prefix}*"):
                discard(left)
        for state in self._host.containers.list():
            if state.id.startswith(PREFIX):
                self._host.containers.delete(state.id, force=True)
        self._network.close()


class _Narrator:
    """Turns the builder's events into lines; called from the builder's threads."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._names: dict[str, str] = {}

    def tell(self, event: events.BuildEvent) -> None:
        match event:
            case events.StepStarted():
                self._names[event.step] = event.name
                self._tell(event.name, event.name)
            case events.StepCached():
                self._tell("CACHED", self._name(event.step))
            case events.StepOutput():
                for line in event.text.splitlines():
                    self._tell(line, self._name(event.step))
            case events.StepDone():
                self._tell(f"DONE {event.seconds:.1f}s", self._name(event.step))
            case events.StepFailed():
                self._tell(f"ERROR {event.message}", self._name(event.step))
            case events.BuildWarning():
                place = f" (line {event.line})" if event.line else ""
                self._tell(f"warning: {event.rule}: {event.message}{place}")

    def _name(self, step: str) -> str:
        return self._names.get(step, step)
