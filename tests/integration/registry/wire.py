"""Requests to a server under test, as any client could send them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from runtime.oci.descriptor import CONFIG, LAYER_GZIP, MANIFEST
from runtime.registry.server.app import serving
from runtime.registry.server.config import ServerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.document["errors"][0]["code"])

    def location(self) -> str:
        return self.headers["Location"]


class Wire:
    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self.address = address

    async def __call__(self, method: str, path: str, body: Any = None, /, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes) and len(body) > 1_000_000:
            body = io.BytesIO(body)
        url = URL(f"http://{self.address}{path}", encoded=True)
        async with self._session.request(
            method, url, data=body, headers=named, allow_redirects=False
        ) as response:
            return Reply(
                status=response.status, headers=response.headers, body=await response.read()
            )

    async def push_blob(self, repository: str, content: bytes) -> dict[str, Any]:
        digest = digest_of(content)
        reply = await self("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", content)
        assert reply.status == 201, reply.body
        return {"mediaType": LAYER_GZIP, "digest": digest, "size": len(content)}

    async def push_image(
        self, repository: str, reference: str, content: bytes = b"layer", **more: Any
    ) -> tuple[bytes, Reply]:
        config = await self.push_blob(repository, b"{}" + content)
        layer = await self.push_blob(repository, content)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {**config, "mediaType": CONFIG},
                "layers": [layer],
                **more,
            }
        ).encode()
        reply = await self(
            "PUT", f"/v2/{repository}/manifests/{reference}", manifest, Content_Type=MANIFEST
        )
        return manifest, reply


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@contextlib.asynccontextmanager
async def wired(directory: Path, **changes: Any) -> AsyncIterator[Wire]:
    """A server of ours on a port of its own, and a session to talk to it."""
    config = ServerConfig(**{"storage": directory / "registry", "listen": "127.0.0.1:0", **changes})
    async with serving(config) as address, aiohttp.ClientSession() as session:
        yield Wire(session, address)
