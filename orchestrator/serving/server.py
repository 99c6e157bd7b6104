"""The server: sockets that it accepts connections from, and its graceful end."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.serving.connection import Connection
from orchestrator.serving.messages import Answer, Request, Response
from orchestrator.serving.routes import Route, Router

PATIENCE = 75.0
_BACKLOG = 128
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Explain = Callable[[Exception, Request | None], Response]


class Server:
    """Serves `routes`; what handlers raise, and what cannot be served, `explain` turns into an
    answer (without a request where that could not be read).

    `context` is handed to handlers with each request, `name` is the Server header, `largest_body`
    in bytes, `patience` the seconds in which a connection may be without a request.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        context: Any,
        explain: Explain,
        name: str,
        largest_body: int,
        patience: float = PATIENCE,
    ) -> None:
        self.largest_body = largest_body
        self.patience = patience
        self.explain = explain
        self.is_ending = False
        self._router = Router(routes)
        self._context = context
        self._headers = {"Server": name}
        self._dated = 0
        self._listeners: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()

    @property
    def routes(self) -> tuple[Route, ...]:
        return self._router.routes

    async def listen(self, listener: socket.socket) -> asyncio.Server:
        """Accept connections from a bound socket. Closing the result ends that, and leaves the
        connections that there are."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), sock=listener, backlog=_BACKLOG)
        self._listeners.append(server)
        return server

    async def close(self, timeout: float) -> None:
        """Accept nothing any more, give handlers this many seconds to answer, then cancel them
        and give them as many again."""
        self.is_ending = True
        for listener in self._listeners:
            listener.close()
        for connection in tuple(self._connections):
            connection.finish()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for connection in tuple(self._connections):
            connection.finish()
        self._empty.clear()
        if self._connections:
            # The last of their answers are on the way.
            try:
                async with asyncio.timeout(timeout):
                    await self._empty.wait()
            except TimeoutError:
                for connection in tuple(self._connections):
                    connection.abort()

    async def handle(self, request: Request) -> Answer:
        """Have the route's handler answer. Raises HttpError, and what the handler raises."""
        request.context, request.routes = self._context, self._router.routes
        route, request.parameters = self._router.find(request.method, request.unsettled_path)
        return await route.handler(request)

    def headers(self) -> Mapping[str, str]:
        """What every answer has: the server's name and the date (RFC 9110, 6.6.1)."""
        now = int(time.time())
        if now != self._dated:
            self._dated = now
            self._headers = {**self._headers, "Date": _date(now)}
        return self._headers

    def joined(self, connection: Connection) -> None:
        self._connections.add(connection)

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def began(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _date(moment: float) -> str:
    """HTTP's form of a date, in English whatever the locale is."""
    at = time.gmtime(moment)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04} "
        f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
    )
