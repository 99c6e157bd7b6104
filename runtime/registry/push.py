"""Pushing: an image of the store to a registry, blobs first, its name last.

A blob that the registry has is not sent; one that another of our images has put into the
same registry is mounted. An index goes with all manifests that are in the store; where some
are not and the registry does not have them either, the platform that is there is pushed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runtime.errors import ImageError
from runtime.images.reference import Reference
from runtime.images.store import ImageStore, choose, host_platform
from runtime.oci.descriptor import Descriptor
from runtime.registry.client import RegistryClient
from runtime.registry.endpoints import RegistryConfig, endpoint_of
from runtime.registry.errors import printable
from runtime.registry.progress import Progress, Teller, silent
from runtime.registry.repository import Document, Repository, document_of
from runtime.registry.sending import Sender
from runtime.registry.transfer import in_thread, read_pieces
from runtime.registry.upload import Content


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push has put under the name: a manifest or index, its digest and size."""

    reference: str
    digest: str
    size: int


async def push(
    reference: str,
    *,
    store: ImageStore,
    config: RegistryConfig | None = None,
    progress: Progress = silent,
    source: str | None = None,
) -> Pushed:
    """Push the image that `reference` names, or the image `source` under that name.

    Raises ImageNotFound, AccessDenied, Unreachable and other RegistryErrors.
    """
    wanted = Reference.parse(reference)
    if wanted.digest is not None:
        raise ImageError(
            f"cannot push {wanted.familiar()}: a digest is what a push gives, not what it takes",
            hint="push a tag",
        )
    image = await in_thread(store.resolve, source or reference)
    async with RegistryClient(config) as client:
        target = Repository(
            client, endpoint_of(wanted.domain, client.config), wanted.path, write=True
        )
        origins = await in_thread(_origins, store, wanted)
        pushing = _Push(target, store, wanted.familiar(), progress, origins)
        return await pushing.run(wanted.tagged.tag or "", image.digest)


async def push_document(
    reference: str,
    digest: str,
    *,
    store: ImageStore,
    config: RegistryConfig | None = None,
    progress: Progress = silent,
) -> Pushed:
    """Push a manifest of the store that is no image, with the blobs that it names."""
    wanted = Reference.parse(reference)
    async with RegistryClient(config) as client:
        target = Repository(
            client, endpoint_of(wanted.domain, client.config), wanted.path, write=True
        )
        origins = await in_thread(_origins, store, wanted)
        pushing = _Push(target, store, wanted.familiar(), progress, origins)
        return await pushing.run(wanted.tagged.tag or "", digest)


def _origins(store: ImageStore, wanted: Reference) -> dict[str, str]:
    """For each layer of an image that has a name in the same registry: that repository."""
    found: dict[str, str] = {}
    for image in store.list():
        for text in image.references:
            other = Reference.parse(text)
            if other.domain == wanted.domain and other.path != wanted.path:
                for layer in image.manifest.layers:
                    found.setdefault(layer.digest, other.path)
    return found


class _Push:
    """One push: what to where, and who is told."""

    def __init__(
        self,
        target: Repository,
        store: ImageStore,
        name: str,
        progress: Progress,
        origins: Mapping[str, str],
    ) -> None:
        self._target = target
        self._store = store
        self._name = name
        teller = Teller(name, progress)
        self._tell = teller.tell
        self._origins = origins
        self._sender = Sender(target, teller, neighbour=self._neighbour, opened=self._opened)

    async def run(self, tag: str, digest: str) -> Pushed:
        document = await self._document(digest)
        if document.is_index:
            document = await self._index(document)
        else:
            await self._sender.blobs_of(document)
        await self._target.put_manifest(tag, document)
        for warning in self._target.client.warnings:
            self._tell("warning", document.digest, detail=warning)
        self._tell("done", document.digest)
        return Pushed(reference=self._name, digest=document.digest, size=len(document.content))

    async def _document(self, digest: str) -> Document:
        content = await in_thread(self._store.blobs.read, digest)
        return document_of(content)

    async def _index(self, document: Document) -> Document:
        """Push what an index lists; gives back what is to be tagged."""
        index = document.index()
        absent = []
        for child in index.manifests:
            if self._store.blobs.has(child.digest):
                continue
            if await self._target.find_manifest(child.digest) is None:
                absent.append(child)
        if absent:
            names = ", ".join(str(child.platform or child.digest) for child in absent)
            self._tell(
                "warning",
                document.digest,
                detail=f"{printable(names)} not in the store: "
                f"only the image for {host_platform()} is pushed",
            )
            alone = await self._document(choose(index, host_platform()).digest)
            await self._sender.blobs_of(alone)
            return alone
        for child in index.manifests:
            if self._store.blobs.has(child.digest):
                part = await self._document(child.digest)
                if part.is_index:
                    raise ImageError(f"{self._name} is an index within an index")
                await self._sender.blobs_of(part)
                await self._target.put_manifest(child.digest, part)
        return document

    @contextlib.contextmanager
    def _opened(self, descriptor: Descriptor) -> Iterator[Content]:
        with self._store.blobs.open(descriptor.digest) as file:
            yield functools.partial(read_pieces, file)

    def _neighbour(self, digest: str) -> str | None:
        origin = self._origins.get(digest)
        return None if origin is None else self._target.endpoint.repository(origin)
