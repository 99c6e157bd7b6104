"""Routes of images, volumes and networks."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator.serving.messages import Answer, Request, Response, json_response
from orchestrator.serving.routes import RouteTable
from orchestrator.supervisor import views
from orchestrator.supervisor.bodies import BootstrapBody
from orchestrator.supervisor.operations import Run
from orchestrator.supervisor.requests import instance_of, read_body
from orchestrator.supervisor.streaming import stream_run

ROUTES = RouteTable()


@ROUTES.get("/v1/images")
async def list_images(request: Request) -> Response:
    backend = instance_of(request).backend
    return json_response(await asyncio.to_thread(views.images, backend))


@ROUTES.get("/v1/images/{reference:.+}")
async def show_image(request: Request) -> Response:
    backend = instance_of(request).backend
    reference = request.parameters["reference"]
    return json_response(await asyncio.to_thread(views.image, backend, reference))


@ROUTES.delete("/v1/images/{reference:.+}")
async def remove_image(request: Request) -> Response:
    backend = instance_of(request).backend
    removed = await backend.images.discard(
        request.parameters["reference"], force=request.query.get("force") == "1"
    )
    return json_response(removed)


@ROUTES.post("/v1/images/bootstrap")
async def bootstrap_image(request: Request) -> Answer:
    body = await read_body(request, BootstrapBody)
    backend = instance_of(request).backend

    async def operation(run: Run) -> dict[str, Any]:
        def tell(line: str) -> None:
            run.emit({"type": "progress", "resource": f"Image {body.reference}", "line": line})

        image = await backend.images.bootstrap(body.reference, body.include, body.mirror, tell)
        return {"type": "result", "ok": True, "error": None, "exit_code": 0, "image": image}

    return await stream_run(request, operation)


@ROUTES.get("/v1/volumes")
async def list_volumes(request: Request) -> Response:
    backend = instance_of(request).backend
    project = request.query.get("project")
    return json_response(await asyncio.to_thread(views.volumes, backend, project))


@ROUTES.delete("/v1/volumes/{name}")
async def remove_volume(request: Request) -> Response:
    await instance_of(request).backend.discard_volume(request.parameters["name"])
    return json_response({"removed": request.parameters["name"]})


@ROUTES.get("/v1/networks")
async def list_networks(request: Request) -> Response:
    backend = instance_of(request).backend
    project = request.query.get("project")
    return json_response(await asyncio.to_thread(views.networks, backend, project))
