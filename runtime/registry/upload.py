"""Uploading one blob: mounted, in one piece, in chunks, or taken up where it broke.

Source: OCI distribution-spec "Pushing blobs", "Resuming an upload", "Mounting a blob from
another repository".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import aiohttp
from yarl import URL

from runtime.errors import ImageError
from runtime.oci.descriptor import Descriptor
from runtime.registry.client import BROKEN, Body
from runtime.registry.errors import AccessDenied, RegistryError, Unreachable
from runtime.registry.repository import Repository

_ONE_REQUEST = 4 * 1024 * 1024
"""Blobs up to this many bytes go with the request that ends the upload."""

_CANCEL_SECONDS = 2.0

Content = Callable[[int, int], AsyncIterator[bytes]]
"""A blob's bytes: (offset, length) → pieces. It can be asked again."""


async def mount(target: Repository, digest: str, source: str) -> bool:
    """Ask for a blob of another repository of the same registry; False where it is not given.

    A registry that does not mount opens an upload instead, which is then cancelled.
    """
    query = {"mount": digest, "from": source}
    scopes = target.scopes | {f"repository:{source}:pull"}
    what = f"mount blob {digest} of {source} in {target.name}"
    try:
        async with target.client.request(
            target.endpoint,
            "POST",
            await target.url("blobs/uploads/", query),
            scopes=scopes,
            body=_nothing(),
            expect=(201, 202, 404, 405),
            what=what,
        ) as response:
            if response.status == 201:
                return True
            opened = response.headers.get("Location") if response.status == 202 else None
    except AccessDenied:
        return False  # we may push here, but not read there
    if opened:
        await _cancel(target, target.client.target(target.endpoint, response.url, opened))
    return False


async def upload(
    target: Repository,
    descriptor: Descriptor,
    content: Content,
    *,
    sent: Callable[[int], None],
    retrying: Callable[[int, str], None],
) -> None:
    """Send a blob; `sent` hears of bytes on their way, `retrying` of where it goes on."""
    client = target.client
    what = f"push blob {descriptor.digest} to {target.name}"
    attempt, furthest = 0, 0
    place: URL | None = None
    offset = 0
    while True:
        try:
            if place is None:
                place, least = await _start(target, what)
                offset = 0
                chunk = client.config.chunk_size
                if chunk is not None:
                    chunk = max(chunk, least)
            await _send(target, descriptor, content, place, offset, chunk, sent, what)
            return
        except (*BROKEN, Unreachable, RegistryError) as exc:
            # 4xx is an answer, not an accident; but 404 and 416 say that the upload is another
            # one than we think, and that is settled by asking, or by starting again.
            status = exc.status if isinstance(exc, RegistryError) else 0
            if isinstance(exc, AccessDenied) or status not in (0, 404, 416, 500, 502, 503, 504):
                raise
            found = await _progress(target, place) if place is not None else None
            place, offset = found if found is not None else (None, 0)
            attempt = attempt + 1 if offset <= furthest else 1
            furthest = max(furthest, offset)
            if attempt >= client.config.attempts:
                if isinstance(exc, RegistryError):
                    raise
                raise Unreachable(f"{what}: the connection breaks") from exc
            retrying(offset, str(exc))
            await client.pause(attempt)
        except BaseException:
            if place is not None:
                with contextlib.suppress(RegistryError, ImageError, *BROKEN):
                    async with asyncio.timeout(_CANCEL_SECONDS):
                        await _cancel(target, place)
            raise


async def _start(target: Repository, what: str) -> tuple[URL, int]:
    async with target.client.request(
        target.endpoint,
        "POST",
        await target.url("blobs/uploads/"),
        scopes=target.scopes,
        body=_nothing(),
        expect=(202,),
        what=what,
    ) as response:
        least = response.headers.get("OCI-Chunk-Min-Length", "")
        return _location(target, response), int(least) if least.isdecimal() else 0


async def _send(
    target: Repository,
    descriptor: Descriptor,
    content: Content,
    place: URL,
    offset: int,
    chunk: int | None,
    sent: Callable[[int], None],
    what: str,
) -> None:
    size = descriptor.size
    if chunk is not None or offset or size > _ONE_REQUEST:
        while offset < size:
            length = min(chunk or size, size - offset)
            headers = {}
            if chunk is not None or offset:
                headers["Content-Range"] = f"{offset}-{offset + length - 1}"
            async with target.client.request(
                target.endpoint,
                "PATCH",
                place,
                scopes=target.scopes,
                headers=headers,
                body=_body(content, offset, length, sent),
                expect=(202, 204),
                what=what,
                attempts=1,
            ) as response:
                place = _location(target, response)
            offset += length
    async with target.client.request(
        target.endpoint,
        "PUT",
        place.update_query({"digest": descriptor.digest}),
        scopes=target.scopes,
        body=_body(content, offset, size - offset, sent),
        expect=(201, 204),
        what=what,
        attempts=1,
    ):
        pass


async def _progress(target: Repository, place: URL) -> tuple[URL, int] | None:
    """Where an upload stands: its place and the bytes that the registry has; None: start anew."""
    try:
        async with target.client.request(
            target.endpoint,
            "GET",
            place,
            scopes=target.scopes,
            expect=(204,),
            what=f"look up an upload to {target.name}",
        ) as response:
            first, _, last = response.headers.get("Range", "").partition("-")
            where = place
            if "Location" in response.headers:
                where = _location(target, response)
    except RegistryError:
        return None
    if first.removeprefix("bytes=") != "0" or not last.isdecimal():
        return None
    # "0-0" is what an empty upload answers, and also one of a single byte; taking it for
    # empty would be refused with 416, so such an upload is started again.
    return (where, int(last) + 1) if int(last) > 0 else None


async def _cancel(target: Repository, place: URL) -> None:
    async with target.client.request(
        target.endpoint,
        "DELETE",
        place,
        scopes=target.scopes,
        expect=(200, 202, 204, 404, 405),
        what=f"cancel an upload to {target.name}",
        attempts=1,
    ):
        pass


def _location(target: Repository, response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location")
    if not location:
        raise RegistryError(f"{target.endpoint.host} does not say where to upload to")
    return target.client.target(target.endpoint, response.url, location)


def _nothing() -> Body:
    return Body(pieces=lambda: b"", length=0)


def _body(content: Content, offset: int, length: int, sent: Callable[[int], None]) -> Body:
    if length == 0:
        return _nothing()

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in content(offset, length):
            yield piece
            sent(len(piece))

    return Body(pieces=pieces, length=length)
