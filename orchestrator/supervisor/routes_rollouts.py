"""Routes of rollouts: what there is, undo, pause, resume; and those that a crash cut short."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator.serving.messages import Answer, Request, Response, json_response
from orchestrator.serving.routes import RouteTable
from orchestrator.supervisor.instance import Instance
from orchestrator.supervisor.requests import instance_of
from orchestrator.supervisor.rollouts import rollout_body
from orchestrator.supervisor.streaming import stream_run

ROUTES = RouteTable()


@ROUTES.get("/v1/projects/{project}/rollouts")
async def list_rollouts(request: Request) -> Response:
    operations = instance_of(request).operations
    service = request.query.get("service", "")
    found = operations.rollouts(request.parameters["project"], service)
    return json_response([rollout_body(record) for record in found])


@ROUTES.post("/v1/projects/{project}/rollouts/{service}/pause")
async def pause(request: Request) -> Response:
    project, service = request.parameters["project"], request.parameters["service"]
    record = instance_of(request).operations.pause_rollout(project, service)
    return json_response(rollout_body(record))


@ROUTES.post("/v1/projects/{project}/rollouts/{service}/{verb:undo|resume}")
async def move(request: Request) -> Answer:
    project, service = request.parameters["project"], request.parameters["service"]
    operations = instance_of(request).operations
    verb = {"undo": operations.undo_rollout, "resume": operations.resume_rollout}
    move = verb[request.parameters["verb"]]
    return await stream_run(request, lambda run: move(project, service, run))


def resume_unfinished(instance: Instance) -> None:
    """Take up what the last daemon left half-way, beside everything else."""
    cancel = asyncio.Event()
    task: asyncio.Task[Any] = asyncio.create_task(
        instance.operations.resume_unfinished(cancel), name="rollouts"
    )
    instance.runs[task] = cancel
    task.add_done_callback(instance.runs.pop)
