"""Sending a manifest's blobs: what is there stays, what a neighbour has is mounted, the rest goes.

Source: OCI distribution-spec "Pushing blobs", "Mounting a blob from another repository".
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager

from runtime.oci.descriptor import Descriptor
from runtime.registry.errors import printable
from runtime.registry.progress import Teller
from runtime.registry.repository import Document, Repository
from runtime.registry.transfer import side_by_side
from runtime.registry.upload import Content, mount, upload


class Sender:
    """Brings blobs to one repository.

    `neighbour` gives the path of a repository of the same registry that has a digest, or None;
    `opened` gives a blob's bytes for as long as its context lasts.
    """

    def __init__(
        self,
        target: Repository,
        teller: Teller,
        *,
        neighbour: Callable[[str], str | None],
        opened: Callable[[Descriptor], AbstractContextManager[Content]],
    ) -> None:
        self._target = target
        self._tell = teller.tell
        self._neighbour = neighbour
        self._opened = opened

    async def blobs_of(self, document: Document) -> None:
        """Send the config and the layers of a manifest, each digest once."""
        manifest = document.manifest()
        distinct = {part.digest: part for part in (manifest.config, *manifest.layers)}
        await side_by_side(
            [functools.partial(self._send, part) for part in distinct.values()],
            self._target.client.config.uploads,
        )

    async def _send(self, descriptor: Descriptor) -> None:
        digest, size = descriptor.digest, descriptor.size
        if await self._target.has_blob(digest) is not None:
            self._tell("exists", digest, size, size)
            return
        neighbour = self._neighbour(digest)
        if neighbour is not None and await mount(self._target, digest, neighbour):
            self._tell("mounted", digest, size, size, detail=neighbour)
            return
        with self._opened(descriptor) as content:
            await self._upload(descriptor, content)
        self._tell("done", digest, size, size)

    async def _upload(self, descriptor: Descriptor, content: Content) -> None:
        digest, size = descriptor.digest, descriptor.size
        offset = 0

        async def from_offset(start: int, length: int) -> AsyncIterator[bytes]:
            nonlocal offset
            offset = start
            async for piece in content(start, length):
                yield piece

        def sent(length: int) -> None:
            nonlocal offset
            offset += length
            self._tell("uploading", digest, offset, size)

        def retrying(start: int, reason: str) -> None:
            self._tell("retrying", digest, start, size, detail=printable(reason))

        await upload(self._target, descriptor, from_offset, sent=sent, retrying=retrying)
