"""Blobs over HTTP: download with ranges, upload in one piece or in chunks, mount, delete.

Source: OCI distribution-spec 1.1, end-2, end-4 to end-6, end-10, end-11, end-13, end-14.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web

from runtime.oci.digest import digest_of
from runtime.registry.server.access import Access, Wanted
from runtime.registry.server.metrics import Metrics
from runtime.registry.server.proxy import PullThrough
from runtime.registry.server.refusals import Code, Refusal, blob_unknown
from runtime.registry.server.requests import (
    Target,
    blob_range,
    check_digest,
    check_name,
    content_range,
    matches,
)
from runtime.registry.server.storage import Storage
from runtime.registry.server.uploads import Upload, Uploads
from runtime.registry.transfer import in_thread

_NOTHING = digest_of(b"")


class BlobCalls:
    def __init__(
        self,
        storage: Storage,
        uploads: Uploads,
        access: Access,
        metrics: Metrics,
        proxy: PullThrough | None,
    ) -> None:
        self._storage = storage
        self._uploads = uploads
        self._access = access
        self._metrics = metrics
        self._proxy = proxy

    # Download

    async def get(self, request: web.Request, target: Target) -> web.StreamResponse:
        digest = target.argument
        size = await in_thread(self._storage.find_blob, target.repository, digest)
        if size is not None:
            if self._proxy is not None:
                self._metrics.counters["proxy_hits_total"] += 1
            return await self._send_file(request, digest, size)
        if self._proxy is None:
            raise blob_unknown(digest)
        if request.method == "HEAD":
            size = await self._proxy.blob_size(target.repository, digest)
            if size is None:
                raise blob_unknown(digest)
            return web.Response(headers={**_headers(digest), "Content-Length": str(size)})
        download = await self._proxy.blob(target.repository, digest)
        if download is None:
            raise blob_unknown(digest)
        await download.begun()

        async def follow(response: web.StreamResponse, offset: int, length: int) -> None:
            async for piece in download.read(offset, length):
                await response.write(piece)

        return await self._send(request, digest, download.size, follow)

    async def _send_file(self, request: web.Request, digest: str, size: int) -> web.StreamResponse:
        try:
            file = await in_thread(_open, self._storage.blob_path(digest))
        except FileNotFoundError:
            raise blob_unknown(digest) from None
        with file:

            async def send(response: web.StreamResponse, offset: int, length: int) -> None:
                transport = request.transport
                if transport is None:
                    raise ConnectionResetError("the client is gone")
                loop = asyncio.get_running_loop()
                await loop.sendfile(transport, file, offset, length)

            return await self._send(request, digest, size, send)

    async def _send(
        self,
        request: web.Request,
        digest: str,
        size: int,
        send: Callable[[web.StreamResponse, int, int], Awaitable[None]],
    ) -> web.StreamResponse:
        headers = _headers(digest)
        if matches(request, headers["ETag"]):
            return web.Response(status=304, headers=headers)
        part = blob_range(request, size, headers["ETag"])
        offset, length = part or (0, size)
        if part is not None:
            headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{size}"
        response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
        response.content_length = length
        await response.prepare(request)
        if request.method != "HEAD" and length:
            await send(response, offset, length)
            self._metrics.counters["sent_bytes_total"] += length
        await response.write_eof()
        return response

    # Upload

    async def start(self, request: web.Request, target: Target) -> web.StreamResponse:
        repository = target.repository
        mount = request.query.get("mount")
        if mount is not None and await self._mount(request, repository, check_digest(mount)):
            return self._created(repository, mount)
        kind = request.query.get("digest-algorithm", "sha256")
        if kind not in ("sha256", "sha512"):
            raise Refusal(Code.DIGEST_INVALID, 400, "the digest algorithm is not supported")
        digest = request.query.get("digest")
        if digest is not None:
            check_digest(digest)
        upload = await self._uploads.open(repository, kind)
        # Without a body, the digest announces what later requests bring.
        if digest is None or (not request.body_exists and digest != _NOTHING):
            return web.Response(status=202, headers=self._uploads.headers(upload))
        async with self._uploads.alone(upload):
            try:
                await self._receive(request, upload)
            except BaseException:
                await self._uploads.drop(upload)  # nobody knows its name
                raise
            await self._uploads.finish(upload, digest)
        return self._created(repository, digest)

    async def append(self, request: web.Request, target: Target) -> web.StreamResponse:
        upload = self._uploads.find(target.repository, target.argument)
        async with self._uploads.alone(upload):
            await self._chunk(request, upload)
        return web.Response(status=202, headers=self._uploads.headers(upload))

    async def finish(self, request: web.Request, target: Target) -> web.StreamResponse:
        digest = check_digest(request.query.get("digest", ""))
        upload = self._uploads.find(target.repository, target.argument)
        async with self._uploads.alone(upload):
            if request.body_exists or "Content-Range" in request.headers:
                await self._chunk(request, upload)
            await self._uploads.finish(upload, digest)
        return self._created(target.repository, digest)

    async def status(self, _request: web.Request, target: Target) -> web.StreamResponse:
        upload = self._uploads.find(target.repository, target.argument)
        return web.Response(status=204, headers=self._uploads.headers(upload))

    async def cancel(self, _request: web.Request, target: Target) -> web.StreamResponse:
        upload = self._uploads.find(target.repository, target.argument)
        async with self._uploads.alone(upload):
            await self._uploads.drop(upload)
        return web.Response(status=204)

    async def delete(self, _request: web.Request, target: Target) -> web.StreamResponse:
        if not await in_thread(self._storage.remove_blob, target.repository, target.argument):
            raise blob_unknown(target.argument)
        return web.Response(status=202, headers={"Docker-Content-Digest": target.argument})

    async def _mount(self, request: web.Request, repository: str, digest: str) -> bool:
        source = request.query.get("from")
        if source is None:
            if self._access.by_repository:
                return False  # it may be in a repository that the client must not see
        else:
            check_name(source)
            wanted = Wanted(repository=source, actions=frozenset({"pull"}))
            try:
                await self._access.check(request, wanted)
            except Refusal:
                return False
        return await in_thread(self._storage.mount_blob, repository, digest, source)

    async def _chunk(self, request: web.Request, upload: Upload) -> None:
        part = content_range(request)
        if part is not None and part[0] != upload.offset:
            raise self._uploads.out_of_order(
                upload, f"the next byte of this upload is {upload.offset}, not {part[0]}"
            )
        received = await self._receive(request, upload)
        if part is not None and received != part[1]:
            raise Refusal(Code.SIZE_INVALID, 400, f"the chunk has {received} bytes, not {part[1]}")

    async def _receive(self, request: web.Request, upload: Upload) -> int:
        length = request.content_length
        if length is not None and upload.offset + length > self._uploads.largest:
            raise Refusal(
                Code.SIZE_INVALID, 413, f"a blob may have {self._uploads.largest} bytes at most"
            )
        pieces: AsyncIterator[bytes] = request.content.iter_any()
        received = await self._uploads.receive(upload, pieces)
        self._metrics.counters["received_bytes_total"] += received
        return received

    def _created(self, repository: str, digest: str) -> web.Response:
        return web.Response(
            status=201,
            headers={
                "Location": f"/v2/{repository}/blobs/{digest}",
                "Docker-Content-Digest": digest,
            },
        )


def _headers(digest: str) -> dict[str, str]:
    return {
        "Docker-Content-Digest": digest,
        "Content-Type": "application/octet-stream",
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "max-age=31536000",
    }


def _open(path: Path) -> io.BufferedReader:
    return open(path, "rb")
