"""The images that builds start from: the store's own, or pulled as the build's policy says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from time import time

from orchestrator.engine.host import Host
from orchestrator.engine.images import PullProgress, hint_for
from runtime.build.waiting import finish
from runtime.errors import BuildError, ImageError, ImageNotFound
from runtime.images.store import Image
from runtime.oci.descriptor import Platform
from runtime.registry.endpoints import RegistryConfig
from runtime.registry.errors import RegistryError
from runtime.registry.pull import pull


class BaseImages:
    """Gives one build its base images; used from the build's threads.

    `own` are names that builds of the project give, which no registry is asked for; with
    `refresh` the registry is asked even for what is there.
    """

    def __init__(
        self,
        host: Host,
        project: str,
        loop: asyncio.AbstractEventLoop,
        *,
        own: Collection[str],
        refresh: bool,
        config: RegistryConfig | None,
        cancel: threading.Event,
        tell: Callable[[str], None],
    ) -> None:
        self._host = host
        self._project = project
        self._loop = loop
        self._own = own
        self._refresh = refresh
        self._config = config
        self._cancel = cancel
        self._tell = tell

    def find(self, name: str, platform: Platform) -> Image:
        """Raises ImageNotFound and ImageError."""
        missing: Exception | None = None
        try:
            known = self._host.images.resolve(name, platform)
            if known.config.platform.architecture == platform.architecture and (
                name in self._own or not self._refresh
            ):
                return known
        except ImageError as exc:  # not for this platform
            missing = exc
        except ImageNotFound as exc:
            missing = exc
        if name in self._own:
            raise missing or ImageNotFound(name)
        return self._pulled(name, platform)

    def _pulled(self, name: str, platform: Platform) -> Image:
        self._tell(f"pulling {name}")
        progress = PullProgress(self._host, self._project, name, self._loop)
        fetching = pull(
            name,
            store=self._host.images,
            config=self._config,
            progress=progress.tell,
            platform=platform,
        )
        try:
            image = finish(fetching, self._look)
        except ImageNotFound as exc:
            exc.hint = exc.hint or hint_for(name)
            raise
        except RegistryError as exc:
            raise ImageError(
                f"the image {name} cannot be pulled", hint=exc.hint or hint_for(name)
            ) from exc
        self._loop.call_soon_threadsafe(self._host.store.put_pull, name, time())
        return image

    def _look(self, _seconds: float) -> None:
        if self._cancel.is_set():
            raise BuildError("the build was canceled")
