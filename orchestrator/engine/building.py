"""One build of a service's image; its steps run in containers."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from pathlib import Path
from time import time

from orchestrator.engine.base_images import BaseImages
from orchestrator.engine.build_network import BuildNetwork, StepNetworks
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
from orchestrator.planning import actions
from runtime.build import events
from runtime.build.builder import build_platforms
from runtime.build.run import ContainerStepRunner
from runtime.errors import BuildError


async def build(
    host: Host, network: BuildNetwork, scratch: Path, action: actions.BuildImage
) -> None:
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
        loop.call_soon_threadsafe(host.bus.publish, event)

    async with network.used(network_of(action)) as networks:
        steps = ContainerStepRunner(host.containers, open_network=networks.open, scratch=scratch)
        cancel = threading.Event()
        work = asyncio.ensure_future(
            host.slowly(
                functools.partial(
                    _build,
                    host,
                    action,
                    networks,
                    steps,
                    scratch=scratch,
                    tell=tell,
                    cancel=cancel,
                    loop=loop,
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


def _build(
    host: Host,
    action: actions.BuildImage,
    networks: StepNetworks,
    steps: ContainerStepRunner,
    *,
    scratch: Path,
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

    with opened_request(action, scratch, gateway=networks.gateway, tell=tell, stop=stop) as request:
        bases = BaseImages(
            host,
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
            store=host.images,
            steps=steps,
            progress=_Narrator(tell).tell,
            find_image=bases.find,
            cancel=cancel,
        )


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
