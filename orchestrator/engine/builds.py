"""Builds the images of services; their steps run in containers on a network made for builds."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from time import time

from bridge.config import EndpointConfig, Network, NetworkConfig
from bridge.errors import NetworkNotFound
from bridge.files import hosts_file, resolv_conf
from orchestrator.engine.base_images import BaseImages
from orchestrator.engine.build_requests import (
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
from runtime.build import agents, checkouts, events
from runtime.build.builder import build_platforms
from runtime.build.cache import StepCache
from runtime.build.run import ContainerStepRunner, StepNetwork, host_network
from runtime.build.steps import Network as StepNetworkKind

_log = logging.getLogger(__name__)

NETWORK_ID = "build"
PREFIX = "build-"

_CACHE_SHARE = 10
"""The build cache may take one part in so many of the file system, as BuildKit's does."""
_RESOLV_CONF = Path("/etc/resolv.conf")


class BuildWork:
    """The network for builds is there while one of them runs."""

    def __init__(self, host: Host, networks: NetworkWork) -> None:
        self._host = host
        self._networks = networks
        self._lock = asyncio.Lock()
        self._builds = 0
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

        async with self._network() as network:
            steps = ContainerStepRunner(
                self._host.containers,
                open_network=self._opener(network),
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
        network: Network,
        steps: ContainerStepRunner,
        *,
        tell: Callable[..., None],
        cancel: threading.Event,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        service = service_of(action)
        for line in without_effect(service["build"]):
            tell(f"warning: {line}")
        with opened_request(action, self._scratch, gateway=network.gateway) as request:
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
        if self._builds:
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
        for prefix in (checkouts.PREFIX, agents.PREFIX):
            for left in self._scratch.glob(f"{prefix}*"):
                shutil.rmtree(left)
        for state in self._host.containers.list():
            if state.id.startswith(PREFIX):
                self._host.containers.delete(state.id, force=True)
        self._close_network()

    @asynccontextmanager
    async def _network(self) -> AsyncIterator[Network]:
        async with self._lock:
            self._builds += 1
            self._grown = True
            network = await asyncio.to_thread(
                self._host.networks.create, NetworkConfig(id=NETWORK_ID, name=NETWORK_ID)
            )
            await self._networks.serve(NETWORK_ID)
        try:
            yield network
        finally:
            async with self._lock:
                self._builds -= 1
                if not self._builds:
                    if self._host.resolver is not None:
                        self._host.resolver.forget(NETWORK_ID)
                    await asyncio.to_thread(self._close_network)

    def _close_network(self) -> None:
        for sandbox in self._host.networks.sandboxes():
            if sandbox.startswith(PREFIX):
                self._host.networks.close_sandbox(sandbox, release=True)
        with contextlib.suppress(NetworkNotFound):
            self._host.networks.remove(NETWORK_ID)

    def _opener(
        self, network: Network
    ) -> Callable[[StepNetworkKind], AbstractContextManager[StepNetwork]]:
        @contextmanager
        def open_network(kind: StepNetworkKind) -> Iterator[StepNetwork]:
            if kind == "host":
                with host_network(kind) as host:
                    yield host
                return
            sandbox = PREFIX + secrets.token_hex(8)
            networks = self._host.networks
            netns = networks.open_sandbox(sandbox)
            try:
                nameserver = None
                if kind == "default":
                    networks.connect(sandbox, EndpointConfig(network_id=network.id))
                    nameserver = network.gateway
                yield StepNetwork(
                    netns=str(netns),
                    resolv_conf=resolv_conf(_host_resolv_conf(), nameserver=nameserver),
                    hosts=hosts_file(),
                )
            finally:
                networks.close_sandbox(sandbox, release=True)

        return open_network


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


def _host_resolv_conf() -> str:
    try:
        return _RESOLV_CONF.read_text(errors="replace")
    except FileNotFoundError:
        return ""
