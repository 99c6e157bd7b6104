"""Routes of the daemon itself: version, events, shutdown."""

from __future__ import annotations

import asyncio
import os

from aiohttp import web

from orchestrator.supervisor.requests import flag, instance_of
from orchestrator.supervisor.streaming import Write, stream_lines
from orchestrator.supervisor.views import time_text
from orchestrator.version import VERSION

API = 1

ROUTES = web.RouteTableDef()


@ROUTES.get("/v1/version")
async def show_version(request: web.Request) -> web.Response:
    instance = instance_of(request)
    return web.json_response(
        {
            "version": VERSION,
            "api": API,
            "pid": os.getpid(),
            "root": str(instance.host.root),
            "run": str(instance.host.run),
            "started_at": time_text(instance.started_at),
        }
    )


@ROUTES.get("/v1/events")
async def stream_events(request: web.Request) -> web.StreamResponse:
    """Events from now on; without `follow` there are none, for none are kept."""
    project = request.query.get("project")
    follow = flag(request, "follow")
    instance = instance_of(request)

    async def lines(write: Write) -> None:
        if not follow:
            return
        with instance.host.bus.subscribe() as events:
            ending = asyncio.ensure_future(instance.ending.wait())
            try:
                while not ending.done():
                    coming = asyncio.ensure_future(events.get())
                    await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done():
                        coming.cancel()
                        return
                    event = coming.result()
                    if project is None or event.project == project:
                        shown = event.to_json()
                        await write({**shown, "time": time_text(event.at)})
            finally:
                ending.cancel()

    return await stream_lines(request, lines)


@ROUTES.post("/v1/shutdown")
async def shut_down(request: web.Request) -> web.Response:
    """End the daemon once this is answered; containers run on."""
    instance = instance_of(request)
    asyncio.get_running_loop().call_soon(instance.ending.set)
    return web.json_response({"ending": True})
