"""One request and its answer, between a handler and the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import h11

from orchestrator.serving.messages import REASONS, Answer, HttpError, Response

SILENCE = 60.0
"""Seconds that a body may stand still."""
EAGER = 64 * 1024
"""Bytes that are taken in before anybody reads them."""


class Line(Protocol):
    """What an exchange needs of its connection."""

    def send(self, *events: h11.Event) -> None:
        """Raises ConnectionError."""

    async def drained(self) -> None:
        """Wait until the client has read; raises ConnectionError."""

    def hold(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read on."""


class WireExchange:
    """An `Exchange`. A body of more than `largest` bytes is refused; `common` are headers that
    every answer has."""

    def __init__(self, line: Line, largest: int, common: Mapping[str, str]) -> None:
        self._line = line
        self._largest = largest
        self._common = common
        self._head_only = self._awaits_word = self._reading = False
        self._body = bytearray()
        self._changed: asyncio.Event | None = None
        self._failure: HttpError | None = None
        self.complete = False
        """Whether the whole request has come."""
        self.begun = False
        """Whether an answer is on its way."""
        self.ended = False

    def open(self, request: h11.Request) -> None:
        """The request's head has come."""
        self._head_only = request.method == b"HEAD"
        for name, value in request.headers:
            if name == b"content-length" and int(value) > self._largest:
                self._failure = HttpError(413)
            elif name == b"expect" and value.lower() == b"100-continue":
                self._awaits_word = request.http_version >= b"1.1"

    def feed(self, data: bytes) -> None:
        """A piece of the body has come."""
        self._awaits_word = False
        if self._failure is not None or self.begun:
            return  # nobody will look at it
        self._body += data
        if len(self._body) > self._largest:
            self.fail(HttpError(413))
        elif not self._reading and len(self._body) > EAGER:
            self._line.hold()
        self._wake()

    def close(self) -> None:
        """The request is complete."""
        self._awaits_word = False
        self.complete = True
        self._wake()

    def fail(self, error: HttpError) -> None:
        """The rest of the request cannot be had."""
        self._failure = self._failure or error
        self._body.clear()
        self._wake()

    @property
    def is_owed(self) -> bool:
        """Whether the client is still sending."""
        return not self.complete and not self._awaits_word

    @property
    def is_awaited(self) -> bool:
        """Whether the handler waits for the body."""
        return self._reading and not self.complete

    async def receive(self) -> bytes:
        while self._failure is None and not self.complete:
            if not self._reading:
                self._reading = True
                if self._awaits_word:
                    self._line.send(h11.InformationalResponse(status_code=100, headers=[]))
                self._line.resume()
            await self._news()
        if self._failure is not None:
            raise self._failure
        body = bytes(self._body)
        self._body.clear()
        return body

    async def _news(self) -> None:
        self._changed = self._changed or asyncio.Event()
        self._changed.clear()
        try:
            async with asyncio.timeout(SILENCE):
                await self._changed.wait()
        except TimeoutError:
            self.fail(HttpError(408, "the request's body does not come"))

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self._line.send(self._head(status, headers))

    async def send(self, data: bytes) -> None:
        if data and not self._head_only:
            self._line.send(h11.Data(data=data))
            await self._line.drained()

    async def end(self) -> None:
        if not self.ended:
            self._line.send(h11.EndOfMessage())
            self.ended = True
        await self._line.drained()

    async def answer(self, answer: Answer) -> None:
        """Send what a handler has given; raises ConnectionError."""
        if isinstance(answer, Response):
            self.give(answer)
        await self.end()

    def give(self, answer: Response) -> None:
        """Send a whole answer without waiting; raises ConnectionError."""
        head = self._head(answer.status, answer.headers, len(answer.body))
        if self._head_only or not answer.body:
            self._line.send(head, h11.EndOfMessage())
        else:
            self._line.send(head, h11.Data(data=answer.body), h11.EndOfMessage())
        self.ended = True

    def _head(
        self, status: int, headers: Mapping[str, str], length: int | None = None
    ) -> h11.Response:
        fields = [*self._common.items(), *headers.items()]
        if length is not None:
            fields.append(("Content-Length", str(length)))
        if not self.complete:
            # What is left of the request is thrown away, and then the connection ends.
            fields.append(("Connection", "close"))
            self._body.clear()
            self._line.resume()
        self.begun = True
        return h11.Response(status_code=status, headers=fields, reason=REASONS.get(status, ""))
