"""Routes of projects: plan, up, down, build, start, stop, restart, kill, containers."""

from __future__ import annotations

import asyncio

from orchestrator.engine.local import LocalBackend
from orchestrator.serving.messages import Answer, Request, Response, json_response
from orchestrator.serving.routes import RouteTable
from orchestrator.supervisor import views
from orchestrator.supervisor.bodies import BuildBody, DownBody, LifecycleBody, UpBody
from orchestrator.supervisor.projects import resolve_project
from orchestrator.supervisor.requests import flag, instance_of, read_body
from orchestrator.supervisor.streaming import stream_run
from specs.project import Project

ROUTES = RouteTable()


@ROUTES.get("/v1/projects")
async def list_projects(request: Request) -> Response:
    """Every project that has containers, with how many are in which state."""
    backend = instance_of(request).backend
    return json_response(await asyncio.to_thread(views.projects, backend))


@ROUTES.get("/v1/loads")
async def list_loads(request: Request) -> Response:
    """The loads of spec files that were started in `directory`."""
    loads = instance_of(request).host.store.loads(request.query.get("directory", ""))
    return json_response(
        [
            {
                "project": load.project,
                "config_files": list(load.config_files),
                "inputs": load.inputs,
            }
            for load in loads
        ]
    )


@ROUTES.get("/v1/projects/{project}/containers")
async def list_containers(request: Request) -> Response:
    """The project's containers; with `all` those that have ended, too."""
    backend: LocalBackend = instance_of(request).backend
    records = backend.host.store.containers(request.parameters["project"])
    shown = await asyncio.to_thread(views.containers, backend, records, all=flag(request, "all"))
    return json_response(shown)


@ROUTES.post("/v1/projects/{project}/plan")
async def plan(request: Request) -> Response:
    """What `up` would do."""
    body = await read_body(request, UpBody)
    project = _project(request, body)
    made = await instance_of(request).operations.plan(project, body.options.policy())
    return json_response(made.to_json())


@ROUTES.post("/v1/projects/{project}/up")
async def up(request: Request) -> Answer:
    """Make the project so, and tell how it goes."""
    body = await read_body(request, UpBody)
    project = _project(request, body)
    operations = instance_of(request).operations
    return await stream_run(request, lambda run: operations.up(project, body.options.policy(), run))


@ROUTES.post("/v1/projects/{project}/down")
async def down(request: Request) -> Answer:
    """Take the project down, and tell how it goes."""
    body = await read_body(request, DownBody)
    name = request.parameters["project"]
    project = Project.from_canonical(body.project) if body.project is not None else None
    operations = instance_of(request).operations
    return await stream_run(
        request, lambda run: operations.down(name, project, body.options.removal(), run), plans=True
    )


@ROUTES.post("/v1/projects/{project}/build")
async def build(request: Request) -> Answer:
    """Build the images of the services that have build instructions."""
    body = await read_body(request, BuildBody)
    project = _project(request, body)
    operations = instance_of(request).operations
    return await stream_run(
        request, lambda run: operations.build(project, body.options, run), plans=True
    )


@ROUTES.post("/v1/projects/{project}/{verb:start|stop|restart|kill}")
async def lifecycle(request: Request) -> Answer:
    """Start, stop, restart or kill the project's containers."""
    body = await read_body(request, LifecycleBody)
    name, verb = request.parameters["project"], request.parameters["verb"]
    operations = instance_of(request).operations
    return await stream_run(
        request,
        lambda run: operations.lifecycle(name, verb, body.services, body.options, run),
        plans=True,
    )


def _project(request: Request, body: UpBody | BuildBody) -> Project:
    store = instance_of(request).host.store
    return resolve_project(store, request.parameters["project"], body.project, body.inputs)
