"""Images on this host: built from a service's instructions, or found in the store."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.engine.host import Host
from orchestrator.planning import actions
from runtime.errors import ImageNotFound
from runtime.images.bootstrap import bootstrap


class ImageWork:
    def __init__(self, host: Host) -> None:
        self._host = host

    async def pull(self, action: actions.PullImage) -> None:
        """Without a registry to pull from, an image is there or it is not."""
        try:
            await asyncio.to_thread(self._host.images.resolve, action.name)
        except ImageNotFound as exc:
            raise ImageNotFound(action.name, hint=hint_for(action.name)) from exc

    async def remove(self, action: actions.RemoveImage) -> None:
        with contextlib.suppress(ImageNotFound):
            await self.discard(action.name, force=False)

    async def discard(self, reference: str, *, force: bool) -> dict[str, Any]:
        """Remove an image that no container uses; raises ImageNotFound, InUse."""
        users: dict[str, list[str]] = {}
        for record in self._host.store.containers():
            users.setdefault(record.image_id, []).append(record.name)
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


def hint_for(reference: str) -> str:
    """What to do about an image that is not there."""
    name = reference.partition(":")[0].partition("@")[0].rpartition("/")[2]
    if name in ("debian", "ubuntu"):
        return f"make it with: bay image bootstrap {reference}"
    return "build it, or make a base image with: bay image bootstrap debian:bookworm"
