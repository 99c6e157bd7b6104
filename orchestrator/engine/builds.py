"""Builds the images of services; their steps run in containers on a network made for builds."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from time import time
from typing import Any

from bridge.config import EndpointConfig, Network, NetworkConfig
from bridge.errors import NetworkNotFound
from bridge.files import hosts_file, resolv_conf
from orchestrator.engine.errors import EngineError
from orchestrator.engine.events import BuildEvent
from orchestrator.engine.host import Host
from orchestrator.engine.networks import NetworkWork
from orchestrator.planning import actions
from runtime.build import events
from runtime.build.builder import BuildRequest, build
from runtime.build.run import ContainerStepRunner, StepNetwork, host_network
from runtime.build.steps import Network as StepNetworkKind

NETWORK_ID = "build"
PREFIX = "build-"

_REFUSED = ("additional_contexts", "entitlements", "privileged", "secrets", "ssh")
_WITHOUT_EFFECT = (
    "cache_from",
    "cache_to",
    "isolation",
    "no_cache_filter",
    "platforms",
    "provenance",
    "sbom",
    "ulimits",
)
_NETWORKS: dict[str, StepNetworkKind] = {
    "": "default",
    "default": "default",
    "none": "none",
    "host": "host",
}
_RESOLV_CONF = Path("/etc/resolv.conf")


class BuildWork:
    """The network for builds is there while one of them runs."""

    def __init__(self, host: Host, networks: NetworkWork) -> None:
        self._host = host
        self._networks = networks
        self._lock = asyncio.Lock()
        self._builds = 0

    async def build(self, action: actions.BuildImage) -> None:
        """Build and tag; raises BuildError. Cancelling it ends the step that runs."""
        service = action.project.canonical()["services"][action.service]
        request = build_request(action, service["build"])
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

        for name in _WITHOUT_EFFECT:
            if service["build"].get(name):
                tell(f"warning: build.{name} has no effect")
        narrator = _Narrator(tell)
        async with self._network() as network:
            steps = ContainerStepRunner(
                self._host.containers,
                open_network=self._opener(network),
                scratch=self._host.root / "build",
            )
            cancel = threading.Event()
            work = asyncio.ensure_future(
                self._host.slowly(
                    functools.partial(
                        build,
                        request,
                        store=self._host.images,
                        steps=steps,
                        progress=narrator.tell,
                        cancel=cancel,
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

    def sweep(self) -> None:
        """Remove what builds have left that a crash cut short. Blocking."""
        for state in self._host.containers.list():
            if state.id.startswith(PREFIX):
                self._host.containers.delete(state.id, force=True)
        self._close_network()

    @asynccontextmanager
    async def _network(self) -> AsyncIterator[Network]:
        async with self._lock:
            self._builds += 1
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


def build_request(action: actions.BuildImage, spec: Mapping[str, Any]) -> BuildRequest:
    """A service's build instructions as the builder takes them; raises EngineError for what it
    cannot honour."""
    for name in _REFUSED:
        if spec.get(name):
            raise EngineError(f"service {action.service}: build.{name} is not supported")
    if spec.get("network", "") not in _NETWORKS:
        raise EngineError(
            f"service {action.service}: build.network {spec['network']} is not supported",
            hint="use default, none or host",
        )
    arguments = {key: value for key, value in (spec.get("args") or {}).items() if value is not None}
    return BuildRequest(
        context=Path(spec["context"]),
        dockerfile=spec.get("dockerfile") or None,
        dockerfile_inline=spec.get("dockerfile_inline") or None,
        args={**arguments, **action.arguments},
        target=spec.get("target") or None,
        tags=(action.name, *spec.get("tags", ())),
        labels={
            **(spec.get("labels") or {}),
            "com.docker.compose.project": action.project.name,
            "com.docker.compose.service": action.service,
        },
        no_cache=action.no_cache or bool(spec.get("no_cache")),
        pull=action.pull or bool(spec.get("pull")),
        network=_NETWORKS[spec.get("network", "")],
        extra_hosts=tuple(
            (name, address)
            for name, addresses in (spec.get("extra_hosts") or {}).items()
            for address in addresses
        ),
        shm_size=spec.get("shm_size") or None,
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
                self._tell(f"warning: {event.rule}: {event.message} (line {event.line})")

    def _name(self, step: str) -> str:
        return self._names.get(step, step)


def _host_resolv_conf() -> str:
    try:
        return _RESOLV_CONF.read_text(errors="replace")
    except FileNotFoundError:
        return ""
