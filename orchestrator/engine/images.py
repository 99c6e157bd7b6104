"""Images on this host: built from a service's instructions, or found in the store."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Any

from orchestrator.engine.events import PullEvent
from orchestrator.engine.host import Host
from orchestrator.planning import actions
from orchestrator.planning.images import same_platform
from runtime.errors import ImageError, ImageNotFound
from runtime.images.bootstrap import bootstrap
from runtime.images.platforms import parse_platform
from runtime.images.store import Image
from runtime.registry.errors import RegistryError
from runtime.registry.progress import TransferEvent
from runtime.registry.settings import read_settings

BETWEEN = 0.1


class ImageWork:
    def __init__(self, host: Host) -> None:
        self._host = host

    async def pull(self, action: actions.PullImage) -> None:
        """Fetch the image, telling of it as it comes; raises ImageNotFound and RegistryErrors."""
        host = self._host
        if not action.allowed:
            try:
                await asyncio.to_thread(host.images.resolve, action.name)
            except ImageNotFound as exc:
                raise ImageNotFound(action.name, hint=hint_for(action.name)) from exc
            return
        loop = asyncio.get_running_loop()
        progress = PullProgress(host, action.project, action.name, loop)
        # With an HTTP client: only where something is fetched.
        from runtime.registry.pull import pull

        try:
            config = await asyncio.to_thread(read_settings)
            image = await pull(
                action.name,
                store=host.images,
                platform=parse_platform(action.platform) if action.platform else None,
                config=config,
                progress=progress.tell,
            )
        except ImageNotFound as exc:
            exc.hint = exc.hint or hint_for(action.name)
            raise
        except RegistryError as exc:
            raise ImageError(f"pull {action.name}", hint=exc.hint or hint_for(action.name)) from exc
        check_platform(action.name, image, action.platform)
        host.store.put_pull(action.name, time())
        host.tell_resource("pull", "image", action.name, action.project)

    async def remove(self, action: actions.RemoveImage) -> None:
        with contextlib.suppress(ImageNotFound):
            await self.discard(action.name, force=False)

    async def discard(self, reference: str, *, force: bool) -> dict[str, Any]:
        """Remove an image that no container uses; raises ImageNotFound, InUse."""
        users: dict[str, list[str]] = {}
        for record in self._host.store.containers():
            for id in (record.image_id, *record.mounted_images):
                users.setdefault(id, []).append(record.name)
        removed = await asyncio.to_thread(
            self._host.images.remove, reference, force=force, used_by=users
        )
        self._host.tell_resource("remove", "image", reference)
        return {
            "untagged": list(removed.untagged),
            "deleted": list(removed.deleted),
            "freed": removed.freed,
        }

    async def bootstrap(
        self,
        reference: str,
        include: Sequence[str],
        mirror: str | None,
        tell: Callable[[str], None],
    ) -> str:
        """Make a base image from a distribution's packages; the result is its id. `tell` gets
        the lines of progress."""
        loop = asyncio.get_running_loop()

        def progress(line: str) -> None:
            loop.call_soon_threadsafe(tell, line)

        image = await self._host.slowly(
            functools.partial(
                bootstrap,
                self._host.images,
                reference,
                include=tuple(include),
                mirror=mirror,
                progress=progress,
            )
        )
        self._host.tell_resource("pull", "image", reference)
        return image.id


class PullProgress:
    """Passes on what a transfer tells, from any thread, of each blob's bytes a few times a
    second."""

    def __init__(
        self, host: Host, project: str, image: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._host = host
        self._project = project
        self._image = image
        self._loop = loop
        self._told: dict[str, float] = {}

    def tell(self, event: TransferEvent) -> None:
        now = monotonic()
        if event.stage == "downloading" and event.current < event.total:
            if now - self._told.get(event.digest, 0.0) < BETWEEN:
                return
            self._told[event.digest] = now
        told = PullEvent(
            project=self._project,
            at=time(),
            image=self._image,
            stage=event.stage,
            digest=event.digest,
            current=event.current,
            total=event.total,
            detail=event.detail,
        )
        self._loop.call_soon_threadsafe(self._host.bus.publish, told)


def check_platform(reference: str, image: Image, wanted: str) -> None:
    """Raise ImageError for an image that a registry has for one platform, and not this one."""
    if wanted and not same_platform(str(image.config.platform), wanted):
        raise ImageError(
            f"image {reference} is for {image.config.platform}, not for {wanted}",
            hint="take another tag, or drop platform and DOCKER_DEFAULT_PLATFORM",
        )


def hint_for(reference: str) -> str:
    """What to do about an image that is not there."""
    name = reference.partition(":")[0].partition("@")[0].rpartition("/")[2]
    if name in ("debian", "ubuntu"):
        return f"make it with: bay image bootstrap {reference}"
    return "build it, or make a base image with: bay image bootstrap debian:bookworm"
