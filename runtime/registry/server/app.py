"""The registry server: dispatch, access, background work, and how it is run.

Source: OCI distribution-spec 1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from runtime.errors import RuntimeFault
from runtime.linux.files import try_lock
from runtime.registry.server.access import Access, Passwords, Wanted
from runtime.registry.server.blobs import BlobCalls
from runtime.registry.server.collect import Collected, collect
from runtime.registry.server.config import ServerConfig
from runtime.registry.server.manifests import ManifestCalls
from runtime.registry.server.metrics import CONTENT_TYPE, Metrics
from runtime.registry.server.proxy import PullThrough
from runtime.registry.server.refusals import Code, Refusal, unsupported
from runtime.registry.server.requests import Kind, Target, parse_target
from runtime.registry.server.storage import Storage
from runtime.registry.server.uploads import Uploads
from runtime.registry.transfer import in_thread

_log = logging.getLogger(__name__)
_requests = logging.getLogger(f"{__name__}.requests")


def _is_ours(record: logging.LogRecord) -> bool:
    """False for a request that is none: it has its answer, and a stranger may send any number."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_requests.addFilter(_is_ours)
_READ_BUFFER = 1024 * 1024
_ROUND = 60.0  # how often the background looks for what is due, in seconds
_LINGER = 2.0  # how long a refused body is still read, so that the client sees the answer
# How long downloads may take to end when the server is stopped. Uploads get no further bytes
# from then on (aiohttp drops them), but keep what they have and are taken up by the next server.
_GRACE = 3.0

Call = Callable[[web.Request, Target], Awaitable[web.StreamResponse]]

_COMMON = {
    "Docker-Distribution-API-Version": "registry/2.0",
    "X-Content-Type-Options": "nosniff",
}


class Registry:
    """One server over one storage; its methods belong to one event loop."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        config.storage.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = try_lock(config.storage / "lock")
        if held is None:
            raise RuntimeFault(f"{config.storage} is in use by another registry server")
        self._lock = held
        try:
            passwords = Passwords(config.htpasswd) if config.htpasswd is not None else None
            self.access = Access(passwords, config.token)
            self.metrics = Metrics()
            self.storage = Storage(config.storage)
            self.uploads = Uploads(self.storage, config.limits)
            self.proxy: PullThrough | None = None
            if config.proxy is not None:
                self.proxy = PullThrough(config.proxy, self.storage, self.metrics)
        except BaseException:
            os.close(held)
            raise
        blobs = BlobCalls(self.storage, self.uploads, self.access, self.metrics, self.proxy)
        manifests = ManifestCalls(self.storage, config.limits, self.proxy)
        self._calls: dict[tuple[Kind, str], Call] = {
            (Kind.BASE, "GET"): self._base,
            (Kind.CATALOG, "GET"): manifests.catalog,
            (Kind.MANIFEST, "GET"): manifests.get,
            (Kind.MANIFEST, "PUT"): manifests.put,
            (Kind.MANIFEST, "DELETE"): manifests.delete,
            (Kind.TAGS, "GET"): manifests.tags,
            (Kind.REFERRERS, "GET"): manifests.referrers,
            (Kind.BLOB, "GET"): blobs.get,
            (Kind.BLOB, "DELETE"): blobs.delete,
            (Kind.UPLOADS, "POST"): blobs.start,
            (Kind.UPLOAD, "GET"): blobs.status,
            (Kind.UPLOAD, "PATCH"): blobs.append,
            (Kind.UPLOAD, "PUT"): blobs.finish,
            (Kind.UPLOAD, "DELETE"): blobs.cancel,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request; every refusal is JSON with a code of the specification."""
        started = time.monotonic()
        kind = "other"
        try:
            target = parse_target(request.rel_url.raw_path)
            if target is None:
                if request.path == "/metrics" and self.config.metrics:
                    return await self._metrics(request)
                raise Refusal(Code.UNSUPPORTED, 404, "no such call")
            kind = target.kind.value
            response = await self._answer(request, target)
        except Refusal as refusal:
            response = refusal.response()
        except (ConnectionError, aiohttp.ClientError, asyncio.IncompleteReadError) as exc:
            # The client is gone, or has sent less than it said; it may come back.
            _log.debug("%s %s: %r", request.method, request.path, exc)
            response = Refusal(Code.BLOB_UPLOAD_INVALID, 400, "the request broke off").response()
        self.metrics.request(request.method, kind, response.status, time.monotonic() - started)
        return response

    async def _answer(self, request: web.Request, target: Target) -> web.StreamResponse:
        method = "GET" if request.method == "HEAD" else request.method
        call = self._calls.get((target.kind, method))
        if call is None:
            raise unsupported(f"{request.method} is not a call of this path")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise unsupported("bodies are taken as they are, without content encoding", 415)
        await self.access.check(request, _wanted(target, method))
        writes = method != "GET" and target.kind is not Kind.BASE
        if writes and self.config.read_only:
            raise unsupported("the registry is read-only")
        if writes and self.proxy is not None:
            raise unsupported("this registry serves another one's content and takes none")
        if method == "DELETE" and target.kind is not Kind.UPLOAD and not self.config.delete:
            raise unsupported("deleting is not allowed")
        return await call(request, target)

    async def _base(self, _request: web.Request, _target: Target) -> web.StreamResponse:
        return web.Response(body=b"{}", content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        await self.access.check(request, Wanted(repository="", actions=frozenset({"*"})))
        gauges = dict(await in_thread(self.storage.counts))
        gauges["uploads"] = len(self.uploads)
        body = self.metrics.render(gauges).encode()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def add_headers(self, _request: web.Request, response: web.StreamResponse) -> None:
        for name, value in {**_COMMON, **self.config.headers}.items():
            response.headers.setdefault(name, value)

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """What goes on beside requests, for as long as the application runs."""
        if self.proxy is not None:
            await self.proxy.start()
        background = asyncio.create_task(self._background())
        try:
            yield
        finally:
            background.cancel()
            await asyncio.gather(background, return_exceptions=True)
            if self.proxy is not None:
                await self.proxy.stop()
            self.storage.close()
            os.close(self._lock)

    async def collect(self) -> Collected:
        """Collect garbage now, while requests go on."""
        proxy = self.config.proxy
        done = await in_thread(
            collect,
            self.storage,
            self.config.retention,
            pulled_age=proxy.ttl if proxy is not None else None,
        )
        self.metrics.counters["collections_total"] += 1
        self.metrics.counters["collected_bytes_total"] += done.freed
        self.metrics.counters["collected_blobs_total"] += done.blobs
        return done

    async def _background(self) -> None:
        every = self.config.collect_every
        due = time.monotonic() + (every or 0.0)
        while True:
            await asyncio.sleep(min(_ROUND, every or _ROUND))
            try:
                await self.uploads.expire()
                if every is not None and time.monotonic() >= due:
                    due = time.monotonic() + every
                    _log.info("collected garbage: %s", await self.collect())
            except Exception:
                # The next round tries again; the registry goes on serving meanwhile.
                _log.exception("the registry's background work failed")


def _wanted(target: Target, method: str) -> Wanted | None:
    if target.kind is Kind.BASE:
        return None
    if target.kind is Kind.CATALOG:
        return Wanted(repository="", actions=frozenset({"*"}))
    if target.kind in (Kind.UPLOADS, Kind.UPLOAD) or method == "PUT":
        actions = {"pull", "push"}
    elif method == "DELETE":
        actions = {"delete"}
    else:
        actions = {"pull"}
    return Wanted(repository=target.repository, actions=frozenset(actions))


REGISTRY = web.AppKey("registry", Registry)


def create_server(config: ServerConfig) -> web.Application:
    """The registry as an application, to be run with `serving`, `serve`, or a runner.

    Raises RuntimeFault where the storage is in use or the passwords cannot be read.
    """
    registry = Registry(config)
    app = web.Application()
    app[REGISTRY] = registry
    app.router.add_route("*", "/{path:.*}", registry.handle)
    app.on_response_prepare.append(registry.add_headers)
    app.cleanup_ctx.append(registry.run)
    return app


@contextlib.asynccontextmanager
async def serving(config: ServerConfig) -> AsyncIterator[str]:
    """Run a registry for the length of a block; gives the `host:port` that it listens on."""
    host, port = _address(config.listen)
    tls = _tls(config)
    runner = web.AppRunner(
        create_server(config),
        access_log=None,
        logger=_requests,
        auto_decompress=False,
        read_bufsize=_READ_BUFFER,
        shutdown_timeout=_GRACE,
        lingering_time=_LINGER,
    )
    try:
        await runner.setup()
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError as exc:
            raise RuntimeFault(f"listen on {config.listen}") from exc
        bound = runner.addresses[0][1]
        yield f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
    finally:
        await runner.cleanup()


async def serve(config: ServerConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """Run a registry until SIGTERM or SIGINT; `ready` hears of the address."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        async with serving(config) as address:
            if ready is not None:
                ready(address)
            await stopped.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise RuntimeFault(f"cannot listen on {listen!r}", hint="give host:port or :port")
    return host.strip("[]") or "0.0.0.0", int(port)


def _tls(config: ServerConfig) -> ssl.SSLContext | None:
    if config.tls_certificate is None:
        if config.tls_key is not None:
            raise RuntimeFault("a TLS key is given without its certificate")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key)
    except (OSError, ssl.SSLError) as exc:
        raise RuntimeFault(f"read the TLS certificate {config.tls_certificate}") from exc
    return context
