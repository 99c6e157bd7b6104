"""The network that build steps run on: there from the first step that wants one until the last
build has ended."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.config import EndpointConfig, Network, NetworkConfig
from bridge.errors import NetworkNotFound
from bridge.files import hosts_file, resolv_conf
from orchestrator.engine.errors import EngineError
from orchestrator.engine.host import Host
from orchestrator.engine.networks import NetworkWork

if TYPE_CHECKING:
    from runtime.build.run import StepNetwork
    from runtime.build.steps import Network as Kind

NETWORK_ID = "build"
PREFIX = "build-"
_RESOLV_CONF = Path("/etc/resolv.conf")


class BuildNetwork:
    def __init__(self, host: Host, networks: NetworkWork) -> None:
        self._host = host
        self._networks = networks
        self._lock = asyncio.Lock()
        self._network: Network | None = None
        self.users = 0

    @asynccontextmanager
    async def used(self, kind: Kind) -> AsyncIterator[StepNetworks]:
        """Have it at hand for the length of one build, most of whose steps run on `kind`: it, or
        a network that is there already. Raises EngineError where that is not."""
        loop = asyncio.get_running_loop()

        def wanted() -> Network:
            return asyncio.run_coroutine_threadsafe(self._ensure(), loop).result()

        named = None
        if kind not in ("default", "none", "host"):
            named = await self._named(kind)
        self.users += 1
        try:
            yield StepNetworks(self._host, wanted, named)
        finally:
            self.users -= 1
            async with self._lock:
                if not self.users and self._network is not None:
                    self._network = None
                    if self._host.resolver is not None:
                        self._host.resolver.forget(NETWORK_ID)
                    await asyncio.to_thread(self.close)

    async def _named(self, name: str) -> Network:
        record = self._host.store.network(name)
        if record is None:
            import difflib

            there = self._host.store.networks()
            close = difflib.get_close_matches(name, [network.name for network in there], n=1)
            raise EngineError(
                f"there is no network {name} to build on",
                hint=f"did you mean {close[0]}?"
                if close
                else f"make it: bay network create {name}; a project's own is there once a "
                "service on it is up",
            )
        return await asyncio.to_thread(self._host.networks.get, record.id)

    async def _ensure(self) -> Network:
        async with self._lock:
            if self._network is None:
                network = await asyncio.to_thread(
                    self._host.networks.create, NetworkConfig(id=NETWORK_ID, name=NETWORK_ID)
                )
                await self._networks.serve(NETWORK_ID)
                self._network = network
            return self._network

    def close(self) -> None:
        """Remove it, with what a crash may have left on it. Blocking."""
        for sandbox in self._host.networks.sandboxes():
            if sandbox.startswith(PREFIX):
                self._host.networks.close_sandbox(sandbox, release=True)
        with contextlib.suppress(NetworkNotFound):
            self._host.networks.remove(NETWORK_ID)


class StepNetworks:
    """What the steps of one build get; used from the build's threads."""

    def __init__(self, host: Host, wanted: Callable[[], Network], named: Network | None) -> None:
        self._host = host
        self._wanted = wanted
        self._named = named

    def gateway(self) -> str | None:
        """The host's address on the network."""
        return (self._named or self._wanted()).gateway

    @contextmanager
    def open(self, kind: Kind) -> Iterator[StepNetwork]:
        """A step's network namespace for its length."""
        from runtime.build.run import StepNetwork, host_network

        if kind == "host":
            with host_network(kind) as host:
                yield host
            return
        sandbox = PREFIX + secrets.token_hex(8)
        networks = self._host.networks
        network = None if kind == "none" else self._network(kind)
        netns = networks.open_sandbox(sandbox)
        try:
            nameserver = None
            if network is not None:
                networks.connect(sandbox, EndpointConfig(network_id=network.id))
                nameserver = network.gateway
            yield StepNetwork(
                netns=str(netns),
                resolv_conf=resolv_conf(_host_resolv_conf(), nameserver=nameserver),
                hosts=hosts_file(),
            )
        finally:
            networks.close_sandbox(sandbox, release=True)

    def _network(self, kind: Kind) -> Network:
        if kind == "default":
            return self._wanted()
        assert self._named is not None and self._named.name == kind, "a Dockerfile names none"
        return self._named


def _host_resolv_conf() -> str:
    try:
        return _RESOLV_CONF.read_text(errors="replace")
    except FileNotFoundError:
        return ""
