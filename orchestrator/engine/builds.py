"""Builds the images of services, and looks after what builds leave."""

from __future__ import annotations

import functools
import logging
import shutil

from orchestrator.engine.build_network import PREFIX, BuildNetwork
from orchestrator.engine.host import Host
from orchestrator.engine.networks import NetworkWork
from orchestrator.planning import actions
from runtime.build import scratch

_log = logging.getLogger(__name__)

_CACHE_SHARE = 10
"""The build cache may take one part in so many of the file system, as BuildKit's does."""


class BuildWork:
    """Imports the builder (2 MB) when there is something to build."""

    def __init__(self, host: Host, networks: NetworkWork) -> None:
        self._host = host
        self._network = BuildNetwork(host, networks)
        self._grown = False
        self._scratch = host.root / "build"

    async def build(self, action: actions.BuildImage) -> None:
        """Build and tag; raises BuildError. Cancelling it ends the step that runs."""
        from orchestrator.engine.building import build

        self._grown = True
        await build(self._host, self._network, self._scratch, action)
        self._host.tell_resource("build", "image", action.name, action.project.name)

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
        from runtime.build.cache import StepCache

        forgotten = StepCache(images).prune(keep=keep)
        if forgotten:
            freed = images.collect_garbage()
            _log.info("build cache: forgot %d bytes, of which %d are free now", forgotten, freed)

    def sweep(self) -> None:
        """Remove what builds have left that a crash cut short. Blocking."""
        scratch.sweep(self._scratch)
        for state in self._host.containers.list():
            if state.id.startswith(PREFIX):
                self._host.containers.delete(state.id, force=True)
        self._network.close()
