"""Downloading one blob into its partial file, through broken connections.

Source: RFC 9110 section 14 (ranges).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from runtime.errors import ImageError
from runtime.oci.descriptor import Descriptor
from runtime.registry.client import BROKEN
from runtime.registry.errors import RegistryError, Unreachable, printable
from runtime.registry.partial import Partial
from runtime.registry.repository import Repository
from runtime.registry.transfer import drain, in_thread


async def fetch(
    repository: Repository,
    descriptor: Descriptor,
    partial: Partial,
    *,
    written: Callable[[int], None],
    retrying: Callable[[int, str], None],
) -> None:
    """Complete a partial blob; attempts that bring bytes are not counted against the limit.

    `written` hears of each new offset, `retrying` of where and why it goes on. Raises
    Unreachable, ImageNotFound, other RegistryErrors, and ImageError for too many bytes.
    """
    attempt = 0
    while not partial.complete:
        before = partial.offset
        try:
            async with repository.blob(descriptor.digest, partial.offset) as response:
                await _receive(response, descriptor, partial, written)
            if not partial.complete:
                raise EOFError("the answer ends early")
        except BROKEN as exc:
            attempt = attempt + 1 if partial.offset <= before else 1
            if attempt >= repository.client.config.attempts:
                raise Unreachable(
                    f"fetch blob {descriptor.digest} of {repository.name}: the connection breaks"
                ) from exc
            retrying(partial.offset, printable(str(exc) or type(exc).__name__))
            await repository.client.pause(attempt)


async def _receive(
    response: aiohttp.ClientResponse,
    descriptor: Descriptor,
    partial: Partial,
    written: Callable[[int], None],
) -> None:
    if response.status == 416:
        # What is there cannot be the beginning of this blob.
        await in_thread(partial.restart)
        raise EOFError("the registry refuses the range")
    if response.status == 206:
        start = response.headers.get("Content-Range", "")
        if not start.startswith(f"bytes {partial.offset}-"):
            raise RegistryError(f"blob {descriptor.digest}: the registry sends another range")
    elif partial.offset:
        await in_thread(partial.restart)
    declared = response.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > descriptor.size - partial.offset:
        raise ImageError(
            f"blob {descriptor.digest} is longer than the "
            f"{descriptor.size} bytes that its manifest gives"
        )

    def write(piece: bytes) -> None:
        partial.write(piece)
        loop.call_soon_threadsafe(written, partial.offset)

    loop = asyncio.get_running_loop()
    await drain(response.content.iter_any(), write)
