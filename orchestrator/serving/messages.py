"""What handlers get and give: requests, whole answers, and answers that last."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.serving.targets import Query

if TYPE_CHECKING:
    from orchestrator.serving.routes import Route

REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Request Entity Too Large",
    422: "Unprocessable Entity",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    505: "HTTP Version Not Supported",
}


class HttpError(Exception):
    """A request that is not served: the status, a line for people, and headers of the answer."""

    def __init__(
        self, status: int, message: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message or REASONS[status].lower())
        self.status = status
        self.headers = dict(headers or {})


class Exchange(Protocol):
    """The way to and from the client of one request."""

    async def receive(self) -> bytes:
        """The whole body; raises HttpError."""

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of an answer that lasts; raises ConnectionError."""

    async def send(self, data: bytes) -> None:
        """Send a piece of it, once the client keeps up; raises ConnectionError."""

    async def end(self) -> None:
        """Say that this was all; raises ConnectionError."""


class Request:
    """A request whose head has come.

    `path` has its escapes resolved, `unsettled_path` all but those of / and %. `parameters` are
    the values that the route's path names, `routes` all routes that there are; `context` is what
    the server was made with.
    """

    def __init__(
        self,
        *,
        method: str,
        path: str,
        unsettled_path: str,
        query: str,
        fields: list[tuple[bytes, bytes]],
        exchange: Exchange,
    ) -> None:
        self.method = method
        self.path = path
        self.unsettled_path = unsettled_path
        self.parameters: dict[str, str] = {}
        self.routes: tuple[Route, ...] = ()
        self.context: Any = None
        self._query = query
        self._fields = fields
        self._exchange = exchange
        self._body: bytes | None = None

    @cached_property
    def query(self) -> Query:
        return Query(self._query)

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """By names in small letters; of a header that comes twice, the first."""
        fields = reversed(self._fields)
        return {name.decode("ascii"): value.decode("latin-1") for name, value in fields}

    async def read(self) -> bytes:
        """The whole body. Raises HttpError where it is too large, malformed or does not come."""
        if self._body is None:
            self._body = await self._exchange.receive()
        return self._body

    async def begin(self, headers: Mapping[str, str], status: int = 200) -> Stream:
        """Begin an answer that lasts; raises ConnectionError."""
        await self._exchange.begin(status, headers)
        return Stream(self._exchange)


class Response:
    """An answer as a whole."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.body = body
        self.status = status
        self.headers = dict(headers or {})


class Stream:
    """An answer that lasts. Writing waits for clients that read slowly, and raises
    ConnectionError once they are gone; the handler is cancelled then, too."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def write(self, data: bytes) -> None:
        await self._exchange.send(data)

    async def end(self) -> None:
        await self._exchange.end()


Answer = Response | Stream
Handler = Callable[[Request], Awaitable[Answer]]


def json_response(
    document: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    kind = {"Content-Type": "application/json; charset=utf-8"}
    body = json.dumps(document).encode()
    return Response(body, status=status, headers={**kind, **(headers or {})})
