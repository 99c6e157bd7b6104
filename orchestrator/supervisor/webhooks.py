"""Where deliveries of git servers are taken: a TCP port of its own that knows one path.

It is off until a person asks for it. What comes in is bounded in size, number and time, and
answered as soon as it is known to be genuine; all that it can bring about is that a source's
repository is asked, so that a delivery which is lost or doubled does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
from collections import OrderedDict
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, cast

from orchestrator.engine.errors import EngineError, chain
from orchestrator.supervisor.doorkeeper import Doorkeeper
from orchestrator.supervisor.errors import BadRequest

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.gitops.source import GitSource
    from orchestrator.gitops.webhook import Replays

_log = logging.getLogger(__name__)

PATH = "/v1/gitops/{source}/webhook"
BODY_TIMEOUT = 10.0
SHUTDOWN_TIMEOUT = 2.0
AT_ONCE = 4
BURST = 20
RATE = 2.0
"""Deliveries that one address may make at once, and per second from then on."""
_ADDRESSES = 1000

Find = Callable[[str], "GitSource | None"]


class CannotListen(EngineError):
    """The address for deliveries cannot be had."""


class Allowance:
    """How many deliveries each address may still make: a bucket that fills with time."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, now: float) -> bool:
        """Whether another one is allowed at `now`, in seconds."""
        left, since = self._buckets.pop(address, (float(BURST), now))
        left = min(float(BURST), left + (now - since) * RATE)
        self._buckets[address] = (max(0.0, left - 1), now)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        return left >= 1


class Webhooks:
    """`find` gives a source by its name, `poke` has its repository asked."""

    def __init__(self, find: Find, poke: Callable[[str], object]) -> None:
        self.address = ""
        self._find = find
        self._poke = poke
        self._runner: web.AppRunner | None = None
        self._keeper: Doorkeeper | None = None
        self._changing = asyncio.Lock()
        self._allowance = Allowance()
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._replays: dict[str, Replays] = {}

    async def listen(self, address: str) -> None:
        """Take deliveries at HOST:PORT instead of where they were taken before; "" is nowhere.

        Raises BadRequest, and CannotListen, which leaves everything as it was.
        """
        async with self._changing:
            if address == self.address:
                return
            wanted = parse_address(address) if address else None
            runner = keeper = None
            if wanted is not None:
                from aiohttp import web  # 12 MB for those whom nobody delivers to

                runner = web.AppRunner(
                    self._application(),
                    access_log=None,
                    handler_cancellation=True,
                    shutdown_timeout=SHUTDOWN_TIMEOUT,
                )
                await runner.setup()
                keeper = Doorkeeper(cast("Callable[[], asyncio.BaseProtocol]", runner.server))
                try:
                    await self._begin(keeper, wanted)
                except (OSError, ValueError) as exc:
                    await runner.cleanup()
                    raise CannotListen(f"listen for deliveries at {address}: {_why(exc)}") from None
            await self._close()
            self._runner, self._keeper, self.address = runner, keeper, address
            _log.info("deliveries are taken at %s", address or "no address")

    async def _begin(self, keeper: Doorkeeper, wanted: tuple[str, int]) -> None:
        """Listen at a place that may be one with ours, as every address of a port is with one of
        them; ours is taken up again where the other one cannot be had."""
        try:
            await keeper.listen(*wanted)
        except OSError as exc:
            ours = parse_address(self.address) if self.address else None
            if self._keeper is None or ours is None or ours[1] != wanted[1]:
                raise
            if exc.errno != errno.EADDRINUSE:
                raise
            self._keeper.pause()
            try:
                await keeper.listen(*wanted)
            except OSError:
                try:
                    await self._keeper.listen(*ours)
                except OSError as lost:
                    _log.error("deliveries are taken nowhere: %s: %s", self.address, _why(lost))
                    await self._close()
                raise

    async def close(self) -> None:
        async with self._changing:
            await self._close()

    async def _close(self) -> None:
        runner, keeper, self.address = self._runner, self._keeper, ""
        self._runner = self._keeper = None
        if keeper is not None:
            keeper.close()
        if runner is not None:
            await runner.cleanup()

    def _application(self) -> web.Application:
        from aiohttp import web

        from orchestrator.gitops.webhook import BODY_LIMIT

        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_post(PATH, self._take)
        app.on_response_prepare.append(_prepare)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        from orchestrator.gitops.errors import GitOpsError, WebhookRefused

        name = request.match_info["source"]
        if not self._allowance.take(request.remote or "", time()):
            return _answer(429, "too many deliveries")
        try:
            return await self._judge(request, name)
        except WebhookRefused as exc:
            _log.warning("a delivery for source %s from %s: %s", name, request.remote, exc)
            return _answer(exc.status, str(exc))
        except GitOpsError as exc:
            # Its own secret cannot be read: not the sender's fault, nor the sender's business.
            _log.error("a delivery for source %s: %s", name, chain(exc))
            return _answer(503, "deliveries cannot be checked now")

    async def _judge(self, request: web.Request, name: str) -> web.Response:
        from orchestrator.gitops.secret_files import read_secret
        from orchestrator.gitops.webhook import Replays, accept, concerns

        source = self._find(name)
        if source is None or source.webhook is None:
            return _answer(404, "there is no such source, or it takes no deliveries")
        async with self._reading:
            try:
                async with asyncio.timeout(BODY_TIMEOUT):
                    body = await request.read()
            except TimeoutError:
                return _answer(408, "the delivery did not come in time")
        secret = read_secret(source.webhook.secret_file, "the webhook's secret")
        delivery = accept(request.headers, body, secret, source.webhook.provider)
        if not concerns(delivery, source):
            return _answer(200, "not about what is followed")
        if not self._replays.setdefault(name, Replays()).is_new(delivery, time()):
            return _answer(200, "known already")
        with contextlib.suppress(EngineError):  # it was removed meanwhile
            self._poke(name)
        return _answer(202, "the repository will be asked")


async def _prepare(_request: web.Request, response: web.StreamResponse) -> None:
    # Strangers are not told which version of what listens here, and come anew for each delivery.
    response.headers["Server"] = "bayplan"
    response.headers["Connection"] = "close"
    response.force_close()


def _why(error: OSError | ValueError) -> str:
    """Why an address cannot be had; asyncio's own words name it once more."""
    if isinstance(error, ValueError):
        return "that is not the name of a host"
    if isinstance(error, socket.gaierror) or not error.errno:
        return (error.strerror or str(error)).lower()
    return os.strerror(error.errno).lower()


def _answer(status: int, text: str) -> web.Response:
    from aiohttp import web

    return web.json_response({"message": text}, status=status)


def parse_address(address: str) -> tuple[str, int]:
    """HOST:PORT, or [HOST]:PORT for IPv6; a host that is left out is every address. Raises
    BadRequest."""
    host, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise BadRequest(
            f"{address} is not HOST:PORT", hint="for example 127.0.0.1:9080, or 0.0.0.0:9080"
        )
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)
