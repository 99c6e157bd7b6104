"""A registry that answers as a test wants, well or ill, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from runtime.oci.descriptor import CONFIG, LAYER, MANIFEST
from tests.integration.registry.peers import layer_tar

Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Content:
    """An image with one layer, as bytes."""

    def __init__(self, *, size: int = 100_000) -> None:
        self.layer = layer_tar({"file": bytes(range(256)) * (size // 256)})
        self.config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digest_of(self.layer)]},
            }
        ).encode()
        self.manifest = self.manifest_with()

    def manifest_with(self, **changes: Any) -> bytes:
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.descriptor(CONFIG, self.config),
            "layers": [self.descriptor(LAYER, self.layer)],
            **changes,
        }
        return json.dumps(document).encode()

    @staticmethod
    def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


class Hostile:
    """Serves `content`; `answer` may take a request over by giving a response."""

    def __init__(self, content: Content | None = None, answer: Answer | None = None) -> None:
        self.content = content or Content()
        self.answer = answer
        self.requests: list[web.Request] = []
        self.address = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.answer is not None:
            response = await self.answer(request)
            if response is not None:
                return response
        path = request.path
        if path == "/v2/":
            return web.Response(body=b"{}")
        if "/manifests/" in path:
            digest = digest_of(self.content.manifest)
            headers = {"Content-Type": MANIFEST, "Docker-Content-Digest": digest}
            return web.Response(body=self.content.manifest, headers=headers)
        for blob in (self.content.config, self.content.layer):
            if path.endswith(f"/blobs/{digest_of(blob)}"):
                return ranged(request, blob)
        return web.Response(status=404)

    def asked(self, part: str) -> list[web.Request]:
        return [request for request in self.requests if part in request.path]

    @contextlib.asynccontextmanager
    async def serving(self, *, tls: tuple[Path, Path] | None = None) -> AsyncIterator[str]:
        context = None
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*tls)
        runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            self.address = f"127.0.0.1:{runner.addresses[0][1]}"
            yield self.address
        finally:
            await runner.cleanup()

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app


def ranged(request: web.Request, blob: bytes) -> web.Response:
    header = request.headers.get("Range")
    if header is None:
        return web.Response(body=blob)
    start = int(header.removeprefix("bytes=").rstrip("-"))
    return web.Response(
        status=206,
        body=blob[start:],
        headers={"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"},
    )


async def broken_off(
    request: web.Request, blob: bytes, start: int, count: int
) -> web.StreamResponse:
    """Send some bytes of an answer, then close the connection."""
    response = web.StreamResponse(status=206 if start else 200)
    response.content_length = len(blob) - start
    if start:
        response.headers["Content-Range"] = f"bytes {start}-{len(blob) - 1}/{len(blob)}"
    await response.prepare(request)
    await response.write(blob[start : start + count])
    assert request.transport is not None
    request.transport.close()
    return response
