"""A wire between client and server that breaks after so many bytes, as often as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Severed:
    """Forwards connections to `target`; breaks `times` of them after `after` bytes one way."""

    def __init__(self, target: str, *, after: int, times: int) -> None:
        self._host, _, self._port = target.partition(":")
        self._after = after
        self.left = times
        self._ends: set[asyncio.StreamWriter] = set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(self._host, int(self._port))
        ends = {writer, inner_writer}
        self._ends |= ends
        pumps = {
            asyncio.ensure_future(self._pump(reader, inner_writer)),
            asyncio.ensure_future(self._pump(inner_reader, writer)),
        }
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.transport.abort()
        await asyncio.wait(pumps)
        for end in ends:
            with contextlib.suppress(ConnectionError):
                await end.wait_closed()
        self._ends -= ends

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(16384):
                passed += len(piece)
                if passed > self._after and self.left > 0:
                    self.left -= 1
                    return
                writer.write(piece)
                await writer.drain()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for end in set(self._ends):
                end.transport.abort()
            async with asyncio.timeout(10):
                while self._ends:
                    await asyncio.sleep(0.01)
