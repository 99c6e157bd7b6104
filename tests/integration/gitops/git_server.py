"""Serves repositories below a directory over http, by git's own http-backend."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

BACKEND = Path(
    subprocess.run(
        ("git", "--exec-path"), capture_output=True, text=True, check=False
    ).stdout.strip()
    or "/nonexistent",
    "git-http-backend",
)
needs_backend = pytest.mark.skipif(not BACKEND.exists(), reason="needs git http-backend")


class GitServer:
    """With `login` as (name, password) it asks for them; `elsewhere` redirects every request."""

    def __init__(
        self,
        root: Path,
        *,
        login: tuple[str, str] | None = None,
        elsewhere: str | None = None,
        status: int = 0,
    ) -> None:
        self.root = root
        self.login = login
        self.elsewhere = elsewhere
        self.status = status
        self.url = ""
        self.requests: list[tuple[str, str | None]] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[GitServer]:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization")
        self.requests.append((request.path, given))
        if self.status:
            return web.Response(status=self.status)
        if self.elsewhere is not None:
            return web.Response(status=302, headers={"Location": self.elsewhere + request.path_qs})
        if self.login is not None:
            wanted = base64.b64encode(":".join(self.login).encode()).decode()
            if given != f"Basic {wanted}":
                return web.Response(
                    status=401, headers={"WWW-Authenticate": 'Basic realm="the test"'}
                )
        return await self._run(request)

    async def _run(self, request: web.Request) -> web.Response:
        environ = {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
            "PATH": "/usr/bin:/bin",
        }
        process = await asyncio.create_subprocess_exec(
            str(BACKEND),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environ,
        )
        output, _ = await process.communicate(await request.read())
        head, _, body = output.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        status = int(headers.pop("Status", "200").split()[0])
        return web.Response(status=status, headers=headers, body=body)
