"""Routes of rollouts: what there is, undo, pause, resume; and those that a crash cut short."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from orchestrator.supervisor.requests import INSTANCE, instance_of
from orchestrator.supervisor.rollouts import rollout_body
from orchestrator.supervisor.streaming import stream_run

ROUTES = web.RouteTableDef()


@ROUTES.get("/v1/projects/{project}/rollouts")
async def list_rollouts(request: web.Request) -> web.Response:
    operations = instance_of(request).operations
    service = request.query.get("service", "")
    found = operations.rollouts(request.match_info["project"], service)
    return web.json_response([rollout_body(record) for record in found])


@ROUTES.post("/v1/projects/{project}/rollouts/{service}/pause")
async def pause(request: web.Request) -> web.Response:
    project, service = request.match_info["project"], request.match_info["service"]
    record = instance_of(request).operations.pause_rollout(project, service)
    return web.json_response(rollout_body(record))


@ROUTES.post("/v1/projects/{project}/rollouts/{service}/{verb:undo|resume}")
async def move(request: web.Request) -> web.StreamResponse:
    project, service = request.match_info["project"], request.match_info["service"]
    operations = instance_of(request).operations
    verb = {"undo": operations.undo_rollout, "resume": operations.resume_rollout}
    move = verb[request.match_info["verb"]]
    return await stream_run(request, lambda run: move(project, service, run))


async def resume_unfinished(app: web.Application) -> None:
    """Take up what the last daemon left half-way, beside everything else."""
    instance = app[INSTANCE]
    cancel = asyncio.Event()
    task: asyncio.Task[Any] = asyncio.create_task(
        instance.operations.resume_unfinished(cancel), name="rollouts"
    )
    instance.runs[task] = cancel
    task.add_done_callback(instance.runs.pop)
