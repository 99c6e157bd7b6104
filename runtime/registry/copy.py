"""Copying from registry to registry: blobs stream through memory, the disk is not touched.

Indexes are copied entire, with the images of all platforms, byte for byte, so that digests
stay what they were. Within one registry, blobs are mounted.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator

from runtime.errors import ImageError
from runtime.images.reference import Reference
from runtime.oci.descriptor import Descriptor
from runtime.registry.client import RegistryClient
from runtime.registry.endpoints import RegistryConfig, endpoint_of
from runtime.registry.errors import printable
from runtime.registry.progress import Progress, Stage, TransferEvent, silent
from runtime.registry.pull import locate
from runtime.registry.push import Pushed
from runtime.registry.repository import Document, Repository
from runtime.registry.transfer import gathered, side_by_side
from runtime.registry.upload import mount, upload

_DEPTH = 4


async def copy(
    source: str,
    destination: str,
    config: RegistryConfig | None = None,
    progress: Progress = silent,
) -> Pushed:
    """Copy what `source` names to `destination`, in full; raises as pull and push do."""
    taken, given = Reference.parse(source), Reference.parse(destination)
    async with RegistryClient(config) as client:
        found = await locate(client, taken, progress)
        if given.digest is not None and given.digest != found.document.digest:
            raise ImageError(f"{taken.familiar()} is {found.document.digest}, not {given.digest}")
        target = Repository(
            client, endpoint_of(given.domain, client.config), given.path, write=True
        )
        copying = _Copy(found.repositories[0], target, given.familiar(), progress)
        await copying.document(found.document, _DEPTH)
        asked = given.tag or given.digest or given.tagged.tag or ""
        await target.put_manifest(asked, found.document)
        for warning in client.warnings:
            copying.tell("warning", found.document.digest, detail=warning)
        copying.tell("done", found.document.digest)
        return Pushed(
            reference=given.familiar(),
            digest=found.document.digest,
            size=len(found.document.content),
        )


class _Copy:
    def __init__(
        self, source: Repository, target: Repository, name: str, progress: Progress
    ) -> None:
        self._source = source
        self._target = target
        self._name = name
        self._progress = progress

    async def document(self, document: Document, depth: int) -> None:
        """Copy all that a manifest or index names."""
        if depth == 0:
            raise ImageError(f"{self._name}: indexes within indexes, more than {_DEPTH} deep")
        if document.is_index:
            for child in document.index().manifests:
                part = await self._source.manifest(child.digest, expected=child)
                await self.document(part, depth - 1)
                await self._target.put_manifest(child.digest, part)
            return
        manifest = document.manifest()
        distinct = {part.digest: part for part in (manifest.config, *manifest.layers)}
        await side_by_side(
            [functools.partial(self._blob, part) for part in distinct.values()],
            self._target.client.config.uploads,
        )

    async def _blob(self, descriptor: Descriptor) -> None:
        digest, size = descriptor.digest, descriptor.size
        if await self._target.has_blob(digest) is not None:
            self.tell("exists", digest, size, size)
            return
        same = self._source.endpoint.host == self._target.endpoint.host
        if same and await mount(self._target, digest, self._source.path):
            self.tell("mounted", digest, size, size, detail=self._source.path)
            return
        offset = 0

        async def content(start: int, length: int) -> AsyncIterator[bytes]:
            nonlocal offset
            offset = start
            async for piece in self._read(descriptor, start, length):
                yield piece

        def sent(length: int) -> None:
            nonlocal offset
            offset += length
            self.tell("uploading", digest, offset, size)

        def retrying(start: int, reason: str) -> None:
            self.tell("retrying", digest, start, size, detail=printable(reason))

        await upload(self._target, descriptor, content, sent=sent, retrying=retrying)
        self.tell("done", digest, size, size)

    async def _read(self, descriptor: Descriptor, start: int, length: int) -> AsyncIterator[bytes]:
        """Part of the source's blob; the target verifies the whole by its digest."""
        async with self._source.blob(descriptor.digest, start) as response:
            skip = 0 if response.status == 206 else start
            async for piece in gathered(response.content.iter_any()):
                kept = piece[skip:]
                skip = max(0, skip - len(piece))
                kept = kept[:length]
                length -= len(kept)
                if kept:
                    yield kept
                if length == 0:
                    return
        if length:
            raise EOFError("the answer ends early")

    def tell(
        self, stage: Stage, digest: str, current: int = 0, total: int = 0, detail: str = ""
    ) -> None:
        self._progress(
            TransferEvent(
                stage=stage,
                reference=self._name,
                digest=digest,
                current=current,
                total=total,
                detail=detail,
            )
        )
