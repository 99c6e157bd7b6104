"""One client's connection: requests one after another, each with a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol, cast

import h11

from orchestrator.serving.exchange import EAGER, WireExchange
from orchestrator.serving.messages import Answer, HttpError, Request, Response
from orchestrator.serving.targets import settle, split, unescape

_log = logging.getLogger(__name__)

LARGEST_HEAD = 16 * 1024
LARGEST_TARGET = 8 * 1024
LINGER = 10.0
"""Seconds in which a client that has its answer may go on to send."""


class Host(Protocol):
    """What a connection needs of its server."""

    @property
    def largest_body(self) -> int: ...

    @property
    def patience(self) -> float:
        """Seconds in which a connection may be without a request."""

    @property
    def is_ending(self) -> bool: ...

    async def handle(self, request: Request) -> Answer:
        """Raises what the handler raises."""

    def explain(self, error: Exception, request: Request | None) -> Response:
        """What is answered to an error; without a request to one that could not be read."""

    def headers(self) -> Mapping[str, str]:
        """What every answer has."""

    def joined(self, connection: Connection) -> None: ...

    def left(self, connection: Connection) -> None: ...

    def began(self, task: asyncio.Task[None]) -> None: ...


class Connection(asyncio.Protocol):
    """A client that closes its connection, or its own half of it, has gone away: the task of its
    request is cancelled."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self._exchange: WireExchange | None = None
        self._lost = self._half_closed = self._lingering = False
        self._ahead = 0
        self._idle_since = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(self._host.patience, self._look)
        self._host.joined(self)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        self._http.receive_data(data)
        if self._exchange is None or not self._exchange.complete:
            self._advance()
            return
        # The next request waits until this one is answered.
        self._ahead += len(data)
        if self._ahead > EAGER:
            self.hold()

    def eof_received(self) -> bool:
        """The result is whether the connection is still of use."""
        self._half_closed = True
        exchange = self._exchange
        if self._lingering or (exchange is not None and not exchange.is_awaited):
            return False
        self._http.receive_data(b"")
        self._advance()
        # Whoever waits for the body learns that it ends early, and says so.
        return exchange is not None

    def connection_lost(self, _exc: Exception | None) -> None:
        self._lost = True
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._writable.set()
        self._host.left(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def finish(self) -> None:
        """End the connection, once what it asked for is answered."""
        if self._exchange is None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def send(self, *events: h11.Event) -> None:
        if self._lost or self._transport.is_closing():
            raise ConnectionResetError("the client has gone away")
        self._transport.write(b"".join(self._http.send(event) or b"" for event in events))

    async def drained(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()
        if self._lost:
            raise ConnectionResetError("the client has gone away")

    def hold(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def _advance(self) -> None:
        """Take up what has been received."""
        try:
            while not self._lingering and not self._transport.is_closing():
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                self._take(cast("h11.Event", event))
        except h11.RemoteProtocolError as exc:
            if self._exchange is not None:
                self._exchange.fail(HttpError(400, "the request's body is malformed or cut short"))
                return
            error = HttpError(400, "this is no HTTP request")
            if exc.error_status_hint == 431:
                error = HttpError(431, "the request's head is too large")
            self._refuse(error, self._new_exchange())

    def _take(self, event: h11.Event) -> None:
        if isinstance(event, h11.Request):
            self._begin(event)
        elif isinstance(event, h11.ConnectionClosed):
            self._transport.close()
        elif self._exchange is not None:
            if isinstance(event, h11.Data):
                self._exchange.feed(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._exchange.close()

    def _begin(self, event: h11.Request) -> None:
        exchange = self._new_exchange()
        exchange.open(event)
        target = split(event.target.decode("ascii"))
        fault = _fault(event)
        if fault is not None or target is None:
            self._refuse(fault or HttpError(400, "the request asks for no path"), exchange)
            return
        path, query = target
        readable = unescape(path)
        request = Request(
            method=event.method.decode("ascii"),
            path=settle(readable),
            unsettled_path=readable,
            query=query,
            fields=list(event.headers),
            exchange=exchange,
        )
        self._exchange = exchange
        self._task = self._loop.create_task(self._serve(request, exchange))
        self._host.began(self._task)

    def _new_exchange(self) -> WireExchange:
        return WireExchange(self, self._host.largest_body, self._host.headers())

    async def _serve(self, request: Request, exchange: WireExchange) -> None:
        try:
            try:
                answer = await self._host.handle(request)
            except Exception as exc:
                if exchange.begun:
                    raise
                answer = self._host.explain(exc, request)
            await exchange.answer(answer)
        except ConnectionError:
            self.abort()
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception:
            # The client sees that its answer ends early.
            _log.exception("%s %s", request.method, request.path)
            self.abort()
        else:
            self._answered(exchange)

    def _answered(self, exchange: WireExchange) -> None:
        self._task = self._exchange = None
        self._idle_since = self._loop.time()
        again = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if not again or self._host.is_ending:
            self._leave(still_sending=exchange.is_owed)
            return
        self._http.start_next_cycle()
        self._ahead = 0
        self.resume()
        self._advance()

    def _refuse(self, error: HttpError, exchange: WireExchange) -> None:
        """Nothing behind this can be understood."""
        exchange.give(self._host.explain(error, None))
        self._leave(still_sending=True)

    def _leave(self, *, still_sending: bool) -> None:
        """End the connection. The kernel would take an answer away from a client that is still
        sending (ECONNRESET), so that what it sends is read, and thrown away, for a while."""
        if not still_sending or self._half_closed:
            self._transport.close()
            return
        self._lingering = True
        self._timer.cancel()
        self._timer = self._loop.call_later(LINGER, self.abort)
        self._transport.write_eof()
        self.resume()

    def _look(self) -> None:
        left = self._idle_since + self._host.patience - self._loop.time()
        if self._exchange is not None:
            left = self._host.patience
        elif left <= 0:
            self.abort()
            return
        self._timer = self._loop.call_later(left, self._look)


def _fault(request: h11.Request) -> HttpError | None:
    """What h11 lets pass. Of two lengths one is for somebody in between (RFC 9112, 6.3)."""
    if not request.http_version.startswith(b"1."):
        return HttpError(505)
    sizes = (len(name) + len(value) for name, value in request.headers)
    if len(request.target) + sum(sizes) > LARGEST_HEAD:
        return HttpError(431, "the request's head is too large")
    if len(request.target) > LARGEST_TARGET:
        return HttpError(400, "the request's line is too long")
    names = [name for name, _ in request.headers]
    if b"content-length" in names and b"transfer-encoding" in names:
        return HttpError(400, "the request has two lengths")
    return None
