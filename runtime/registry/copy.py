"""Copying from registry to registry: blobs stream through memory, the disk is not touched.

Indexes are copied entire, with the images of all platforms, byte for byte, so that digests
stay what they were. Within one registry, blobs are mounted.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator

from runtime.errors import ImageError
from runtime.images.reference import Reference
from runtime.oci.descriptor import Descriptor
from runtime.registry.client import RegistryClient
from runtime.registry.endpoints import RegistryConfig, endpoint_of
from runtime.registry.progress import Progress, Teller, silent
from runtime.registry.pull import locate
from runtime.registry.push import Pushed
from runtime.registry.repository import Document, Repository
from runtime.registry.sending import Sender
from runtime.registry.transfer import gathered
from runtime.registry.upload import Content

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
        teller = Teller(given.familiar(), progress)
        copying = _Copy(found.repositories[0], target, teller)
        await copying.document(found.document, _DEPTH)
        asked = given.tag or given.digest or given.tagged.tag or ""
        await target.put_manifest(asked, found.document)
        for warning in client.warnings:
            teller.tell("warning", found.document.digest, detail=warning)
        teller.tell("done", found.document.digest)
        return Pushed(
            reference=given.familiar(),
            digest=found.document.digest,
            size=len(found.document.content),
        )


class _Copy:
    def __init__(self, source: Repository, target: Repository, teller: Teller) -> None:
        self._source = source
        self._target = target
        self._name = teller.name
        self._sender = Sender(target, teller, neighbour=self._neighbour, opened=self._opened)

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
        await self._sender.blobs_of(document)

    @contextlib.contextmanager
    def _opened(self, descriptor: Descriptor) -> Iterator[Content]:
        yield functools.partial(self._read, descriptor)

    def _neighbour(self, _digest: str) -> str | None:
        same = self._source.endpoint.host == self._target.endpoint.host
        return self._source.path if same else None

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
