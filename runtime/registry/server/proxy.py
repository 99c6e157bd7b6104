"""Pull-through: another registry's content, fetched when it is asked for and then kept.

A tag is looked up at the remote (HEAD) each time, or when its last look is too old; while
the remote is away, what is known is served, with a warning. A blob is sent on while it
arrives; several who ask for it at once cause one download, which goes on when they leave.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from runtime.errors import ImageError, ImageNotFound
from runtime.images.reference import DEFAULT_DOMAIN, OFFICIAL
from runtime.oci.descriptor import Descriptor
from runtime.registry.client import BROKEN, RegistryClient
from runtime.registry.endpoints import RegistryConfig, endpoint_of, endpoint_of_url
from runtime.registry.errors import RegistryError
from runtime.registry.fetch import fetch
from runtime.registry.partial import Partials
from runtime.registry.repository import Repository
from runtime.registry.server.config import Proxy
from runtime.registry.server.metrics import Metrics
from runtime.registry.server.refusals import Code, Refusal
from runtime.registry.server.storage import Storage, Stored
from runtime.registry.transfer import PIECE, in_thread

_log = logging.getLogger(__name__)
_LAYER = "application/octet-stream"
T = TypeVar("T")


class Download:
    """A blob that arrives: readers follow it by its file."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.available = 0
        self.path: Path | None = None
        self.failure: BaseException | None = None
        self._changed = asyncio.Event()

    def advance(self, available: int) -> None:
        self.available = max(self.available, available)
        self.changed()

    def changed(self) -> None:
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()

    async def begun(self) -> None:
        """Wait for the first byte; raises Refusal where it fails before, as headers that promise
        the blob are not out yet."""
        while self.size and not self.available and self.failure is None:
            await self._changed.wait()
        if self.failure is not None and not self.available:
            what = f"the remote registry fails: {self.failure}"
            raise Refusal(Code.DENIED, 502, what) from self.failure

    async def read(self, offset: int, length: int) -> AsyncIterator[bytes]:
        """Bytes as they become available; raises what the download fails with."""
        while self.path is None:
            await self._wait()
        with open(self.path, "rb", buffering=0) as file:
            while length > 0:
                piece = b""
                if self.available > offset:
                    count = min(length, self.available - offset, PIECE)
                    file.seek(offset)
                    piece = await in_thread(file.read, count)
                if not piece:
                    await self._wait()
                    continue
                offset += len(piece)
                length -= len(piece)
                yield piece

    async def _wait(self) -> None:
        if self.failure is not None:
            raise self.failure
        await self._changed.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A manifest, and whether the remote could not be asked about it."""

    stored: Stored
    stale: bool = False


class PullThrough:
    """The remote side of a server; use `start` and `stop` around it, in one event loop."""

    def __init__(self, proxy: Proxy, storage: Storage, metrics: Metrics) -> None:
        self._proxy = proxy
        self._storage = storage
        self._metrics = metrics
        config: RegistryConfig = proxy.registry
        if "://" in proxy.remote:
            self._endpoint = endpoint_of_url(proxy.remote, config)
        else:
            self._endpoint = endpoint_of(proxy.remote, config)
        if proxy.credentials is not None:
            known = {**config.credentials, self._endpoint.domain: proxy.credentials}
            config = dataclasses.replace(config, credentials=known)
        self._client = RegistryClient(config)
        # Who asks for a tag that is known need not wait for a remote that is away.
        self._impatient = RegistryClient(dataclasses.replace(config, attempts=1))
        self._partials = Partials(storage.root)
        self._downloads: dict[str, Download] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: dict[tuple[str, str], asyncio.Future[Found | None]] = {}

    async def start(self) -> None:
        await self._client.__aenter__()
        await self._impatient.__aenter__()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.__aexit__(None, None, None)
        await self._impatient.__aexit__(None, None, None)

    def remote(self, repository: str, *, patient: bool = True) -> Repository:
        if self._endpoint.domain == DEFAULT_DOMAIN and "/" not in repository:
            repository = f"{OFFICIAL}/{repository}"
        client = self._client if patient else self._impatient
        return Repository(client, self._endpoint, repository)

    # Manifests

    async def manifest(self, repository: str, reference: str) -> Found | None:
        """A manifest by tag or digest; asked for once, however many wait for it."""
        key = (repository, reference)
        known = self._asking.get(key)
        if known is None:
            known = asyncio.ensure_future(self._manifest(repository, reference))
            self._asking[key] = known
            known.add_done_callback(lambda _done: self._asking.pop(key, None))
        return await asyncio.shield(known)

    async def _manifest(self, repository: str, reference: str) -> Found | None:
        stored = await in_thread(self._storage.find_manifest, repository, reference)
        if stored is not None and await self._is_fresh(repository, reference, stored):
            self._metrics.counters["proxy_hits_total"] += 1
            return Found(stored=stored)
        self._metrics.counters["proxy_misses_total"] += 1
        remote = self.remote(repository, patient=stored is None)
        is_tag = ":" not in reference
        try:
            if is_tag and stored is not None:
                descriptor = await remote.find_manifest(reference)
                if descriptor is None:
                    await in_thread(self._storage.remove_tag, repository, reference)
                    return None
                if await in_thread(self._storage.set_tag, repository, reference, descriptor.digest):
                    current = await in_thread(self._storage.find_manifest, repository, reference)
                    if current is not None:
                        return Found(stored=current)
            document = await remote.manifest(reference)
        except ImageNotFound:
            return None
        except (RegistryError, ImageError) as exc:
            if stored is None:
                raise Refusal(Code.DENIED, 502, f"the remote registry fails: {exc}") from exc
            _log.warning("%s:%s is served as last known: %s", repository, reference, exc)
            return Found(stored=stored, stale=True)
        await in_thread(
            self._storage.put_manifest,
            repository,
            document,
            [reference] if is_tag else [],
            complete=False,
        )
        return Found(
            stored=Stored(
                digest=document.digest, media_type=document.media_type, content=document.content
            )
        )

    async def _is_fresh(self, repository: str, reference: str, stored: Stored) -> bool:
        if reference == stored.digest:
            return True
        checked = await in_thread(self._storage.tag_checked_at, repository, reference)
        return checked is not None and checked + self._proxy.fresh > self._storage.clock()

    # Blobs

    async def blob_size(self, repository: str, digest: str) -> int | None:
        size = await in_thread(self._storage.expected_size, repository, digest)
        if size is not None:
            return size
        return await self._ask(lambda: self.remote(repository).has_blob(digest))

    async def blob(self, repository: str, digest: str) -> Download | None:
        """Begin, or join, the download of a blob."""
        known = self._downloads.get(digest)
        if known is not None:
            return known
        size = await self.blob_size(repository, digest)
        if size is None:
            return None
        known = self._downloads.get(digest)
        if known is None:
            self._metrics.counters["proxy_misses_total"] += 1
            known = self._downloads[digest] = Download(size)
            task = asyncio.create_task(self._fetch(repository, digest, known))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return known

    async def _fetch(self, repository: str, digest: str, download: Download) -> None:
        descriptor = Descriptor(media_type=_LAYER, digest=digest, size=download.size)
        try:
            async with self._partials.hold(descriptor) as partial:
                await in_thread(partial.take_up)
                download.path = partial.path
                download.advance(partial.offset)
                await fetch(
                    self.remote(repository),
                    descriptor,
                    partial,
                    written=download.advance,
                    retrying=lambda _offset, _reason: None,
                )
                path = await in_thread(partial.finished)
                await in_thread(self._storage.add_blob, repository, digest, download.size, path)
            download.advance(download.size)
        except (RegistryError, ImageError, ImageNotFound, OSError) as exc:
            _log.warning("fetch blob %s: %s", digest, exc)
            download.failure = exc
        finally:
            if download.failure is None and download.available < download.size:
                download.failure = ConnectionAbortedError("the download was given up")
            self._downloads.pop(digest, None)
            download.changed()

    # Listings

    async def tags(self, repository: str) -> tuple[str, ...] | None:
        """The remote's tags, None where it is away or has no such repository."""
        return await self._ask(self.remote(repository).tags)

    async def referrers(self, repository: str, digest: str) -> tuple[Descriptor, ...] | None:
        return await self._ask(lambda: self.remote(repository).referrers(digest))

    async def _ask(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        try:
            return await call()
        except (RegistryError, ImageError, ImageNotFound, *BROKEN) as exc:
            _log.info("the remote registry does not help: %s", exc)
            return None
