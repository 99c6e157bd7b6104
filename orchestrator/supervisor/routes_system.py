"""Routes of the daemon itself: version, events, metrics, the API's description, shutdown."""

from __future__ import annotations

import asyncio
import os
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator
from datetime import datetime
from time import time
from typing import Any

from orchestrator.serving.messages import Answer, Request, Response, json_response
from orchestrator.serving.routes import RouteTable
from orchestrator.supervisor import openapi
from orchestrator.supervisor.errors import BadRequest
from orchestrator.supervisor.instance import Instance
from orchestrator.supervisor.journal import Feed, Filter
from orchestrator.supervisor.requests import flag, instance_of
from orchestrator.supervisor.streaming import Write, stream_lines
from orchestrator.supervisor.views import time_text
from orchestrator.version import VERSION

API = 1
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

ROUTES = RouteTable()


@ROUTES.get("/v1/version")
async def show_version(request: Request) -> Response:
    """Which daemon this is, and where it works."""
    instance = instance_of(request)
    return json_response(
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
async def stream_events(request: Request) -> Answer:
    """What has happened since `since`, and with `follow` what happens from now on.

    `project`, `service` and `type` (several with commas) choose; `since` and `until` are seconds
    since the epoch or RFC 3339. Without `since` and with `follow` the past is left out; `until`
    ends the stream.
    """
    wanted = _filter(request)
    follow = flag(request, "follow")
    instance = instance_of(request)
    journal = instance.journal

    async def lines(write: Write) -> None:
        with journal.feed() as feed:
            past: list[tuple[int, dict[str, Any]]] = []
            if wanted.since is not None or not follow:
                past = await asyncio.to_thread(journal.events, wanted)
            for _number, event in past:
                await write(_shown(event))
            if not follow:
                return
            last = past[-1][0] if past else 0
            async for number, event in _until_the_end(instance, feed, wanted.until):
                if number > last and wanted.passes(event):
                    await write(_shown(event))

    return await stream_lines(request, lines)


def _filter(request: Request) -> Filter:
    def several(name: str) -> frozenset[str]:
        given = ",".join(request.query.all(name))
        return frozenset(word for word in given.split(",") if word)

    return Filter(
        project=request.query.get("project"),
        services=several("service"),
        types=several("type"),
        since=_moment(request, "since"),
        until=_moment(request, "until"),
    )


def _moment(request: Request, name: str) -> float | None:
    text = request.query.get(name)
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        try:
            return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
        except ValueError as exc:
            raise BadRequest(f"{name}: {text} is no time") from exc


def _shown(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "time": time_text(event["at"])}


async def _until_the_end(
    instance: Instance, feed: Feed, until: float | None
) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """What the feed gives until the daemon ends, or that time has come."""
    ending = asyncio.ensure_future(instance.ending.wait())
    coming: asyncio.Future[tuple[int, dict[str, Any]]] | None = None
    try:
        while not ending.done():
            coming = asyncio.ensure_future(feed.get())
            left = None if until is None else max(0.0, until - time())
            await asyncio.wait((coming, ending), timeout=left, return_when=FIRST_COMPLETED)
            if not coming.done():
                return
            yield coming.result()
    finally:
        ending.cancel()
        if coming is not None:
            coming.cancel()


@ROUTES.get("/metrics")
async def show_metrics(request: Request) -> Response:
    """Everything that is counted, in Prometheus' text format."""
    instance = instance_of(request)
    text = await asyncio.to_thread(instance.metrics.render, instance.backend, instance.controller)
    return Response(text.encode(), headers={"Content-Type": PROMETHEUS})


@ROUTES.get("/v1/openapi.json")
async def show_openapi(request: Request) -> Response:
    """This API, as an OpenAPI 3.1 document."""
    return json_response(openapi.document(request.routes))


@ROUTES.post("/v1/shutdown")
async def shut_down(request: Request) -> Response:
    """End the daemon once this is answered; containers run on, and nobody starts it again."""
    instance = instance_of(request)
    asyncio.get_running_loop().call_soon(instance.ending.set)
    return json_response({"ending": True})
